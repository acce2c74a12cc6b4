"""A loss that also looks at what another model answers."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.task import Task
    from luodi.train.loop.slots import Batch, Losses

ABSENT = -1e9  # the score of a place that is none


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
                real = _real(kind, name, given)
                taught = distance(kind, out[name], told[name], real, self.temperature)
                losses[f"{name}, taught {number}"] = (*taught, share * self.soft)
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


def _real(kind: str, name: str, given: Mapping[str, Tensor]) -> Tensor | None:
    """(batch, time), True where an output counts: at real tokens; of places, at those of the text that is searched, and
    at the first, which stands for "not here"."""
    if kind != "sequence":
        return given.get(f"{name}_mask")
    real = next(mask for key, mask in given.items() if key.endswith("_part")).bool().clone()
    real[:, 0] = True
    return real


def distance(kind: str, own: Tensor, theirs: Tensor, mask: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
    """(losses (batch,), weights (batch,)) of a student's output against its teacher's; of tokens, summed over the
    real ones, whose number is the weight; of places, whose columns are distributions, the mean of the columns."""
    from torch.nn import functional

    own, theirs = own.float(), theirs.float()
    if kind == "number":
        each = (own - theirs).square().flatten(1).mean(1)
        return each, each.new_ones(each.shape)
    if kind == "sequence":
        assert mask is not None
        own, theirs = (one.masked_fill(~mask.unsqueeze(-1), ABSENT).transpose(1, 2) for one in (own, theirs))
    student, teacher = (functional.log_softmax(one / temperature, -1) for one in (own, theirs))
    each = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * temperature**2
    if kind == "sequence" or each.dim() == 1:
        each = each if each.dim() == 1 else each.mean(1)
        return each, each.new_ones(each.shape)
    weights = mask.to(each.dtype) if mask is not None else each.new_ones(each.shape)
    return (each * weights).sum(1), weights.sum(1)


def alike(vectors: Tensor) -> Tensor:
    """How much alike the rows of a batch are: (batch, batch), each row of length 1."""
    from torch.nn import functional

    flat = vectors.float().flatten(1)
    return functional.normalize(flat @ flat.T, dim=1)
