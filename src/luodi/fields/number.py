"""A column of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import FiniteFloat, PositiveFloat

from luodi.core.errors import BadRequest, LuodiError
from luodi.core.field import Target
from luodi.core.spec import Arrays, Spec
from luodi.core.thing import Json

if TYPE_CHECKING:
    from torch import Tensor

KINDS = (float, int, str, Decimal, np.integer, np.floating)
LARGEST = (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))


class Number(Target):
    """A number, brought to a common scale with what the training split shows.

    A value is a float, or None where `missing: mean` allows it. Encoded: float32 (batch, 1). As a target it is learned
    on that scale and answered on its own. `r2` follows scikit-learn: truths all equal give 1 if all are hit, else 0.
    """

    better: ClassVar[dict[str, Literal["higher", "lower"]]] = {"rmse": "lower", "mae": "lower", "r2": "higher"}

    normalize: Literal["none", "standard", "range"] = "standard"  # standard: mean 0, deviation 1; range: 0..1
    missing: Literal["refuse", "mean"] = "refuse"  # what an empty cell is taken for
    distance: Literal["squared", "absolute", "huber"] = "squared"  # on the normalised scale; huber turns at 1
    mean: FiniteFloat | None = None
    scale: PositiveFloat | None = None  # the standard deviation
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None

    def fit(self, column: Iterable[Any]) -> Self:
        cells = (self.read(cell) for cell in column)
        known = np.asarray([value for value in cells if value is not None], np.float64)
        if not len(known) and (self.normalize != "none" or self.missing == "mean"):
            raise LuodiError("a number field is fitted on training rows that hold a number, and there are none")
        found: dict[str, float] = {}
        if self.normalize == "standard" or self.missing == "mean":
            found["mean"] = float(known.mean())
        if self.normalize == "standard":
            found["scale"] = _spread(known)
        if self.normalize == "range":
            found["low"], found["high"] = float(known.min()), float(known.max())
        return self.model_copy(update={name: found[name] for name in found if getattr(self, name) is None})

    def specs(self) -> dict[str, Spec]:
        return {"": Spec(kind="number", shape=(1,))}

    def read(self, wire: Json | bytes) -> float | None:
        value = _number(wire)
        if value is None and self.missing == "refuse":
            raise BadRequest("", "a number is missing (set `missing: mean` to allow empty cells)")
        return value

    def write(self, value: Any) -> Json:
        return value

    def encode(self, values: Sequence[Any]) -> Arrays:
        shift, scale = self._scale()
        if None in values:
            assert self.mean is not None, "a number field is fitted before it encodes"
            values = [self.mean if value is None else value for value in values]
        with np.errstate(over="ignore"):
            column = (np.asarray(values, np.float64) - shift) / scale
        return {"": np.clip(column, *LARGEST).astype(np.float32)[:, None]}  # huge, never infinite

    def example(self, count: int, seed: int) -> list[float | None]:
        dice = np.random.Generator(np.random.PCG64(seed))
        shift, scale = self._scale()
        spread = dice.normal(0.0, 1.5, count) if self.normalize != "range" else dice.uniform(-0.5, 1.5, count)
        edges = np.asarray([0.0, 4.0, -4.0, 1.0])[:count]
        spread[: len(edges)] = edges
        values: list[float | None] = [float(value) for value in spread * scale + shift]
        if self.missing == "mean" and count > 4:
            values[4] = None
        return values

    def wire_schema(self) -> dict[str, Json]:
        about = "A number."
        if self.normalize == "standard" and self.mean is not None and self.scale is not None:
            about = f"A number; {self.mean:.6g} in the mean of the training rows, deviation {self.scale:.6g}."
        if self.normalize == "range" and self.low is not None and self.high is not None:
            about = f"A number; {self.low:.6g} to {self.high:.6g} in the training rows."
        kind: Json = "number" if self.missing == "refuse" else ["number", "null"]
        shown = next((given for given in (self.mean, self.low) if given is not None), 0.0)
        return {"type": kind, "description": about, "examples": [float(f"{shown:.4g}")]}

    def loss(self, output: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        from torch.nn import functional

        kinds = {"squared": functional.mse_loss, "absolute": functional.l1_loss, "huber": functional.huber_loss}
        losses = kinds[self.distance](output.flatten(), truth.flatten(), reduction="none")
        return losses, losses.new_ones(losses.shape)

    def decode(self, output: np.ndarray) -> list[Json]:
        shift, scale = self._scale()
        return [{"value": value} for value in (output.astype(np.float64).ravel() * scale + shift).tolist()]

    def answer_schema(self) -> dict[str, Json]:
        return {"type": "object", "properties": {"value": {"type": "number"}}, "required": ["value"]}

    def record(self, answers: Sequence[Json], truths: Sequence[Any]) -> Arrays:
        return {
            "value": np.asarray([answer["value"] for answer in answers], np.float64),
            "truth": np.asarray(truths, np.float64),
        }

    def score(self, record: Mapping[str, np.ndarray]) -> dict[str, float]:
        truth = record["truth"]
        off = record["value"] - truth
        squares, spread = float(off @ off), truth - truth.mean()
        around = float(spread @ spread)
        fit = 1.0 - squares / around if around else float(squares == 0.0)
        return {"rmse": math.sqrt(squares / len(off)), "mae": float(np.abs(off).mean()), "r2": fit}

    def _scale(self) -> tuple[float, float]:
        """What is taken off a value, and what the rest is divided by."""
        if self.normalize == "none":
            return 0.0, 1.0
        if self.normalize == "range":
            assert self.low is not None and self.high is not None, "a number field is fitted before it encodes"
            return self.low, (self.high - self.low) or 1.0
        assert self.mean is not None and self.scale is not None, "a number field is fitted before it encodes"
        return self.mean, self.scale


def _spread(known: np.ndarray) -> float:
    """The standard deviation; 1 for a constant column, whose rounding errors are no spread."""
    spread = float(known.std())
    return spread if spread > 1e-12 * float(np.abs(known).max()) else 1.0


def _number(wire: Any) -> float | None:
    if wire is None or (isinstance(wire, str) and not wire.strip()):
        return None
    # True is 1 and "1_000" is 1000 to Python, which nobody means in a table.
    if isinstance(wire, bool) or not isinstance(wire, KINDS) or (isinstance(wire, str) and "_" in wire):
        raise BadRequest("", f"expected a number, got {wire!r:.60}")
    try:
        found = float(wire)
    except (ValueError, OverflowError) as error:
        raise BadRequest("", f"expected a number, got {wire!r:.60}") from error
    if math.isnan(found):
        return None
    if math.isinf(found):
        raise BadRequest("", f"expected a finite number, got {wire!r:.60}")
    return found
