"""Adapters of low rank."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from luodi.core.bundle import Edit
from luodi.core.errors import LuodiError
from luodi.core.step import Step
from luodi.core.thing import Json

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.bundle import Bundle
    from luodi.core.run import Run
    from luodi.core.task import Task


class Lora(Step):
    """Freezes the model and puts a small change of low rank beside its layers: only these and the heads learn then.

    LoRA (arXiv 2106.09685): each linear and 2-d convolution layer adds alpha / rank x up x down, where `up` is zero at
    first, so the answers stay. `dora` (arXiv 2402.09353) learns the length of each output's weights besides. Frozen
    norms keep their running statistics. `merge` puts the changes into the weights. Raises LuodiError for a pattern
    that fits no layer, and for a model without such layers before its heads.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model", "float"})
    gives: ClassVar[frozenset[str]] = frozenset({"adapters"})
    excludes: ClassVar[frozenset[str]] = frozenset({"adapters"})
    keeps: ClassVar[Literal["answers", "shape", "nothing"]] = "answers"

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0  # the change is scaled by alpha / rank
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of what enters the change
    variant: Literal["plain", "dora"] = "plain"
    layers: tuple[str, ...] = ("*",)  # patterns of layer names; what none fits stays frozen

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        import torch

        from luodi.models.layers.lora import LowRank

        assert bundle.model is not None
        plan = self.plan(bundle.model)
        device = next(bundle.model.parameters()).device
        model = self.restore(bundle.task, bundle.model, plan).to(device)
        for name, layer in model.named_modules():
            if isinstance(layer, LowRank):
                layer.begin(run.generator("lora", name))
        model.eval()
        edit = Edit(step=self, plan=plan, version=self.version, packages={"torch": torch.__version__})
        counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
        trained, total = sum(count for count, learns in counts if learns), sum(count for count, _ in counts)
        done = bundle.with_model(model, edit=edit)
        return done.replace(facts=done.facts | {"adapters"}).noting(
            layers=plan["layers"], trained=trained, of=total, told=[f"{trained:,} of {total:,} numbers learn"]
        )

    def plan(self, model: nn.Module) -> dict[str, Json]:
        """{"layers": those that are changed, "still": norms with running statistics, "heads": weights that learn}."""
        from torch import nn

        from luodi.train.loop.learning import stages_of

        last = stages_of(model)[-1]
        heads, owners = {id(p) for p in last.parameters}, _owners(model)
        able = [
            name
            for name, layer in model.named_modules()
            if type(layer) in (nn.Linear, nn.Conv2d) and not any(id(p) in heads for p in layer.parameters())
            and layer._parameters.get("weight") is not None and owners[id(layer.weight)] == 1
            and getattr(layer, "padding_mode", "zeros") == "zeros"
        ]  # fmt: skip
        if not able:
            raise LuodiError("this model has no linear or 2-d convolution layer before its heads")
        for pattern in self.layers:
            if not any(fnmatchcase(name, pattern) for name in able):
                raise LuodiError(f"{pattern!r} fits no layer; there are: {', '.join(able[:12])}")
        chosen = [name for name in able if any(fnmatchcase(name, pattern) for pattern in self.layers)]
        still = [name for name, layer in model.named_modules() if getattr(layer, "running_mean", None) is not None]
        learn = [name for name, parameter in model.named_parameters() if id(parameter) in heads]
        return {"layers": chosen, "still": still, "heads": learn}

    def restore(self, task: Task, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """The layers with their changes, all frozen but these and the heads; on the meta device shapes alone."""
        from luodi.models.layers.lora import LowRank, Still
        from luodi.models.layers.replaced import put

        model.requires_grad_(False)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in plan["heads"])
        for name in plan["layers"]:
            base: Any = model.get_submodule(name)
            put(model, name, LowRank(base, self.rank, self.alpha / self.rank, self.dropout, self.variant))
        for name in plan["still"]:
            put(model, name, Still(model.get_submodule(name)))
        return model


def _owners(model: nn.Module) -> dict[int, int]:
    """How many layers hold each weight."""
    found: dict[int, int] = {}
    for layer in model.modules():
        for weight in layer._parameters.values():
            found[id(weight)] = found.get(id(weight), 0) + 1
    return found
