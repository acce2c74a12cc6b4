"""A column of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import FiniteFloat, PositiveFloat, field_validator

from luodi.core.errors import BadRequest, LuodiError
from luodi.core.field import Target
from luodi.core.spec import Arrays, Spec
from luodi.core.thing import Json
from luodi.fields.numbers.scaling import (
    Logarithmic,
    Normalize,
    Ranked,
    Scaling,
    Straight,
    deviation,
    knots_of,
    logarithm,
    middle_half,
)

if TYPE_CHECKING:
    from torch import Tensor

KINDS = (float, int, str, Decimal, np.integer, np.floating)
LARGEST = (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))


class Number(Target):
    """A number, brought to a common scale with what the training split shows.

    A value is a float, or None where `missing: mean` allows it. Encoded: float32 (batch, 1). As a target it is learned
    on that scale and answered on its own. `normalize`: standard (mean 0, deviation 1), range (0 to 1), robust (median
    0, middle half 1 wide), log (standard, of sign * log(1 + size)), quantile (0 to 1 by rank; answers stay within the
    training rows' range). `r2` follows scikit-learn: truths all equal give 1 if all are hit, else 0.
    """

    better: ClassVar[dict[str, Literal["higher", "lower"]]] = {"rmse": "lower", "mae": "lower", "r2": "higher"}

    normalize: Normalize = "standard"  # see above
    missing: Literal["refuse", "mean"] = "refuse"  # what an empty cell is taken for
    distance: Literal["squared", "absolute", "huber"] = "squared"  # on the normalised scale; huber turns at 1
    mean: FiniteFloat | None = None
    scale: PositiveFloat | None = None  # the standard deviation
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    median: FiniteFloat | None = None
    width: PositiveFloat | None = None  # of the middle half: the third quartile less the first
    log_mean: FiniteFloat | None = None
    log_scale: PositiveFloat | None = None
    knots: tuple[FiniteFloat, ...] | None = None  # quantiles at equal distances, lowest to highest

    @field_validator("knots")
    @classmethod
    def _rising(cls, given: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if given is not None and (not given or list(given) != sorted(given)):
            raise ValueError("at least one number, in rising order")
        return given

    def fit(self, column: Iterable[Any]) -> Self:
        cells = (self.read(cell) for cell in column)
        known = np.asarray([value for value in cells if value is not None], np.float64)
        if not len(known) and (self.normalize != "none" or self.missing == "mean"):
            raise LuodiError("a number field is fitted on training rows that hold a number, and there are none")
        found: dict[str, Any] = {"mean": float(known.mean())} if self.missing == "mean" else {}
        found |= _fitted(self.normalize, known)
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
        if None in values:
            assert self.mean is not None, "a number field is fitted before it encodes"
            values = [self.mean if value is None else value for value in values]
        column = self._scaling().to(np.asarray(values, np.float64))
        return {"": np.clip(column, *LARGEST).astype(np.float32)[:, None]}  # huge, never infinite

    def example(self, count: int, seed: int) -> list[float | None]:
        dice = np.random.Generator(np.random.PCG64(seed))
        bounded = self.normalize in ("range", "quantile")
        spread = dice.uniform(-0.5, 1.5, count) if bounded else dice.normal(0.0, 1.5, count)
        edges = np.asarray([0.0, 4.0, -4.0, 1.0])[:count]
        spread[: len(edges)] = edges
        found = self._scaling().back(spread)
        if self.knots:  # going back ends at the outer knots
            found += (spread - spread.clip(0, 1)) * (self.knots[-1] - self.knots[0])
        values: list[float | None] = [float(value) for value in found]
        if self.missing == "mean" and count > 4:
            values[4] = None
        return values

    def wire_schema(self) -> dict[str, Json]:
        about = "A number."
        if self.normalize == "standard" and self.mean is not None and self.scale is not None:
            about = f"A number; {self.mean:.6g} in the mean of the training rows, deviation {self.scale:.6g}."
        if self.normalize == "robust" and self.median is not None:
            about = f"A number; half of the training rows are below {self.median:.6g}."
        ends = (self.knots[0], self.knots[-1]) if self.knots else (self.low, self.high)
        if self.normalize in ("range", "quantile") and ends[0] is not None and ends[1] is not None:
            about = f"A number; {ends[0]:.6g} to {ends[1]:.6g} in the training rows."
        kind: Json = "number" if self.missing == "refuse" else ["number", "null"]
        shown = next((given for given in (self.mean, self.low, self.median, ends[0]) if given is not None), 0.0)
        return {"type": kind, "description": about, "examples": [float(f"{shown:.4g}")]}

    def loss(self, output: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        from torch.nn import functional

        kinds = {"squared": functional.mse_loss, "absolute": functional.l1_loss, "huber": functional.huber_loss}
        losses = kinds[self.distance](output.flatten(), truth.flatten(), reduction="none")
        return losses, losses.new_ones(losses.shape)

    def decode(self, output: np.ndarray) -> list[Json]:
        found = self._scaling().back(output.astype(np.float64).ravel())
        return [{"value": value} for value in found.tolist()]

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

    def _scaling(self) -> Scaling:
        unfitted = "a number field is fitted before it encodes"
        match self.normalize:
            case "none":
                return Straight(0.0, 1.0)
            case "range":
                assert self.low is not None and self.high is not None, unfitted
                return Straight(self.low, (self.high - self.low) or 1.0)
            case "robust":
                assert self.median is not None and self.width is not None, unfitted
                return Straight(self.median, self.width)
            case "log":
                assert self.log_mean is not None and self.log_scale is not None, unfitted
                return Logarithmic(self.log_mean, self.log_scale)
            case "quantile":
                assert self.knots, unfitted
                return Ranked(np.asarray(self.knots))
        assert self.mean is not None and self.scale is not None, unfitted
        return Straight(self.mean, self.scale)


def _fitted(normalize: Normalize, known: np.ndarray) -> dict[str, Any]:
    """The blanks that a normalisation needs, from the numbers of the training rows."""
    match normalize:
        case "standard":
            return {"mean": float(known.mean()), "scale": deviation(known)}
        case "range":
            return {"low": float(known.min()), "high": float(known.max())}
        case "robust":
            return dict(zip(("median", "width"), middle_half(known), strict=True))
        case "log":
            powers = logarithm(known)
            return {"log_mean": float(powers.mean()), "log_scale": deviation(powers)}
        case "quantile":
            return {"knots": knots_of(known)}
    return {}


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
