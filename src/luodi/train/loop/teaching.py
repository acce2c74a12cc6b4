"""A loss that also looks at what another model answers."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.task import Task
    from luodi.train.loop.slots import Batch, Losses

TAUGHT = ("category", "number", "tokens")  # kinds of outputs that can be learned from a teacher


class Teaching:
    """An objective: the task's losses and the distance to a teacher, for every call of the student within them.

    Open it as a context: it listens to the student's calls.
    """

    def __init__(
        self, task: Task, teacher: nn.Module, student: nn.Module, soft: float, temperature: float, features: float
    ) -> None:
        self.task, self.teacher, self.student = task, teacher, student
        self.soft, self.temperature, self.features = soft, temperature, features
        self.kinds = {name: spec.kind for name, spec in task.outputs_specs().items()}
        self.calls: list[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]] = []
        self.seen: dict[str, list[Tensor]] = {"student": [], "teacher": []}
        self.hooks: list[Any] = []

    def __enter__(self) -> Self:
        def hear(model: nn.Module, args: Any, given: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> None:
            if model.training:
                self.calls.append((given, out))

        def look(side: str) -> Any:
            return lambda heads, args: self.seen[side].append(args[0].flatten(1))

        self.hooks = [self.student.register_forward_hook(hear, with_kwargs=True)]
        if self.features:
            models: list[tuple[str, Any]] = [("student", self.student), ("teacher", self.teacher)]
            self.hooks += [model.heads.register_forward_pre_hook(look(side)) for side, model in models]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hook in self.hooks:
            hook.remove()

    def __call__(self, model: nn.Module, batch: Batch, truth: Batch) -> Losses:
        """The task's losses at (1 - soft), and for each output `<name>, taught` at soft."""
        import torch

        self._forget()
        found = dict(self.task.loss(model, batch, truth))
        losses = {name: (each, weights, share * (1 - self.soft)) for name, (each, weights, share) in found.items()}
        for number, (given, out) in enumerate(self.calls):
            with torch.no_grad():
                told = self.teacher(**given)
            for name, kind in self.kinds.items():
                share = found[name][2] if name in found else 1.0
                losses[f"{name}, taught {number}"] = (
                    *distance(kind, out[name], told[name], given.get(f"{name}_mask"), self.temperature),
                    share * self.soft,
                )
        if self.features:
            for number, (own, theirs) in enumerate(zip(self.seen["student"], self.seen["teacher"], strict=True)):
                unlike = (alike(own) - alike(theirs.to(own))).square().mean(1)
                losses[f"features {number}"] = (unlike, unlike.new_ones(unlike.shape), self.features)
        self._forget()
        return losses

    def _forget(self) -> None:
        self.calls.clear()
        for part in self.seen.values():
            part.clear()


def distance(kind: str, own: Tensor, theirs: Tensor, mask: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
    """(losses (batch,), weights (batch,)) of a student's output against its teacher's; of tokens, summed over the
    real ones, whose number is the weight."""
    from torch.nn import functional

    if kind == "number":
        each = (own.float() - theirs.float()).square().flatten(1).mean(1)
        return each, each.new_ones(each.shape)
    student = functional.log_softmax(own.float() / temperature, -1)
    teacher = functional.log_softmax(theirs.float() / temperature, -1)
    each = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * temperature**2
    if each.dim() == 1:
        return each, each.new_ones(each.shape)
    weights = mask.to(each.dtype) if mask is not None else each.new_ones(each.shape)
    return (each * weights).sum(1), weights.sum(1)


def alike(vectors: Tensor) -> Tensor:
    """How much alike the rows of a batch are: (batch, batch), each row of length 1."""
    from torch.nn import functional

    flat = vectors.float().flatten(1)
    return functional.normalize(flat @ flat.T, dim=1)
