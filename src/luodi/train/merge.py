"""Adapters put into the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from luodi.core.bundle import Edit
from luodi.core.step import Step

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.bundle import Bundle
    from luodi.core.run import Run
    from luodi.core.task import Task


class Merge(Step):
    """Adds the low-rank changes of `lora` to the weights: the plain layers come back, and the answers stay.

    The bundle is then as if it had been trained whole, without a layer more; every weight may learn again.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model", "float", "adapters"})
    ends: ClassVar[frozenset[str]] = frozenset({"adapters"})
    keeps: ClassVar[Literal["answers", "shape", "nothing"]] = "answers"

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        import torch

        from luodi.models.layers.lora import LowRank, Still

        assert bundle.model is not None
        layers = {name: layer for name, layer in bundle.model.named_modules() if isinstance(layer, LowRank)}
        plan = {
            "layers": list(layers),
            "still": [name for name, layer in bundle.model.named_modules() if isinstance(layer, Still)],
        }
        for layer in layers.values():
            layer.merged()
        model = self.restore(bundle.task, bundle.model, plan).eval()
        edit = Edit(step=self, plan=plan, version=self.version, packages={"torch": torch.__version__})
        done = bundle.with_model(model, edit=edit)
        return done.replace(facts=done.facts - {"adapters"}).noting(layers=plan["layers"])

    def restore(self, task: Task, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """The plain layers, every weight free to learn."""
        from luodi.models.layers.replaced import put

        for name in plan["layers"]:
            put(model, name, model.get_submodule(f"{name}.base"))
        for name in plan["still"]:
            put(model, name, model.get_submodule(f"{name}.layer"))
        return model.requires_grad_(True)
