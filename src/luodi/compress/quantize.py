"""Stores weights in fewer bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from luodi.compress.calibration.walk import Order, calibration_of
from luodi.compress.quantization.building import built
from luodi.compress.quantization.codes import By, Codes, calibrated
from luodi.compress.quantization.gptq import Columns
from luodi.compress.quantization.grids import Grid
from luodi.compress.quantization.kinds import DYNAMIC, LINEAR, NARROW, TABLE, planned, shape_of
from luodi.core.bundle import Bundle, Edit
from luodi.core.step import Facts, Step
from luodi.core.thing import Json, WrongThing

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.run import Run
    from luodi.core.task import Task

LOW_BITS: Mapping[str, Json] = {"weights": "int4", "group": 32, "grid": "asymmetric", "by": "corrected"}


class Quantize(Step):
    """Stores the weights of linear and convolution layers and tables of vectors in 2 to 8 bits, or as bfloat16.

    The forward dequantises: answers are float arithmetic on rounded weights, and the files are really that small. A
    `group` of so many inputs of an output has a scale (bfloat16) of its own; asymmetric, also a zero. Plain int8 has a
    float32 scale an output, amax / 127.5. `activations: int8` also rounds what enters a linear layer, row by row, and
    multiplies in integers (LLM.int8's vector-wise scheme, arXiv 2208.07339, without its outliers); convolutions stay
    weight-only. `by` says how integers are found: the nearest, or from what the layers are given on `rows` rows of the
    training split (gptq: arXiv 2210.17323, with its order of `columns`; awq: arXiv 2306.00978; corrected: gptq of the
    largest columns first that also makes good for the layers before). Weights that are 0 stay 0. An output layer that
    is tied to a table stays tied.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model", "float"})
    ends: ClassVar[frozenset[str]] = frozenset({"float"})

    weights: Literal["bf16", "int8", "int7", "int6", "int5", "int4", "int3", "int2"] = "int8"
    activations: Literal["float", "int8"] = "float"
    group: Literal["channel", "tensor"] | Annotated[int, Field(ge=2)] = "channel"  # weights that share a scale
    grid: Literal["symmetric", "asymmetric"] = "symmetric"
    by: By = "nearest"
    columns: Columns = "stored"  # the order in which gptq rounds them; largest: those with the largest inputs first
    tables: Literal["auto", "int8", "same"] = "auto"  # of vectors; auto: int8, or bf16 where the weights are
    rows: Annotated[int, Field(ge=1)] = 128  # of the training split, for all but nearest
    order: Order = "layers"  # once: every layer is looked at in one pass over the rows, before any is changed

    @model_validator(mode="after")
    def _fits(self) -> Self:
        plain = (self.group, self.grid, self.by) == ("channel", "symmetric", "nearest")
        if self.activations == "int8" and not (self.weights == "int8" and plain):
            raise WrongThing(
                [(("activations",), "int8 multiplies plain int8 weights: leave the other fields as they are")]
            )
        if self.weights == "bf16" and not plain:
            raise WrongThing([(("weights",), "bf16 has no scales: leave group, grid and by as they are")])
        return self

    @property
    def bits(self) -> int:
        return 16 if self.weights == "bf16" else int(self.weights[-1])

    def facts(self, have: frozenset[str]) -> Facts:
        rows = frozenset() if self.by == "nearest" else frozenset({"split"})
        return Facts(self.needs | rows, self.gives, self.ends, self.excludes)

    @classmethod
    def offers(cls) -> Sequence[Mapping[str, Json]]:
        return ({}, {"activations": "int8"}, {"weights": "int6"}, LOW_BITS)

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        import torch

        assert bundle.model is not None
        plan, left = self.plan(bundle.model)
        codes, unseen = self._codes(bundle, plan, run)
        model = self._built(bundle.model, plan, codes)
        edit = Edit(step=self, plan=plan, version=self.version, packages={"torch": torch.__version__})
        changed = bundle.with_model(model, edit=edit)
        changed = changed.replace(facts=changed.facts - {"float"}).noting(layers=plan, left_float=left)
        return changed.noting(nearest=unseen) if unseen else changed

    def restore(self, task: Task, model: nn.Module, plan: Mapping[str, Json]) -> nn.Module:
        """Replaces the plan's layers; on the meta device the new buffers are shapes, filled later."""
        return self._built(model, plan, {})

    def plan(self, model: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
        """(layer -> what it becomes, layer -> why it stays)."""
        return planned(model, self._kind, 0 if self.weights == "bf16" else NARROW)

    def _kind(self, layer: nn.Module) -> str | None:
        """What a layer becomes if its weight is its own, None if it stays."""
        shape = shape_of(layer)
        if shape is None:
            return None
        if self.activations == "int8" and shape == LINEAR:
            return DYNAMIC
        if self.weights == "bf16":
            return f"bf16{shape}"
        plain = self.bits == 8 and (self.group, self.grid, self.by) == ("channel", "symmetric", "nearest")
        int8 = plain or (shape == TABLE and self.tables != "same")
        return f"{'int8' if int8 else f'{self.bits}-bit'}{shape}"

    def _built(self, model: nn.Module, plan: Mapping[str, Json], codes: Mapping[int, Codes]) -> nn.Module:
        return built(model, plan, self._grid(), columns=self.by == "awq", codes=codes)

    def _grid(self) -> Grid | None:
        return None if self.weights == "bf16" else Grid(self.bits, self.group, self.grid == "symmetric")

    def _codes(self, bundle: Bundle, plan: Mapping[str, str], run: Run) -> tuple[dict[int, Codes], list[str]]:
        """Integers of the layers that are rounded with an eye on what they are given."""
        grid = self._grid()
        if self.by == "nearest" or grid is None:
            return {}, []
        assert bundle.model is not None
        layers = {id(layer): (name, layer) for name, layer in _chosen(bundle.model, plan)}
        calibration = calibration_of(bundle, self.rows, run)
        return calibrated(bundle.model, dict(layers.values()), calibration, grid, self.by, self.columns, self.order)


def _chosen(model: nn.Module, plan: Mapping[str, str]) -> list[tuple[str, nn.Module]]:
    """The linear and convolution layers that are rounded here; one that is tied to a table goes with the table."""
    return [
        (name, model.get_submodule(name))
        for name, kind in plan.items()
        if kind.endswith(("-bit linear", "-bit convolution"))
    ]
