"""How numbers are brought to a common scale and back, with what the training rows show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

Normalize = Literal["none", "standard", "range", "robust", "log", "quantile"]
LARGEST_LOG = 709.0  # exp of more is infinite
MOST_KNOTS = 1000  # quantiles kept: a rank is then known to a thousandth


class Scaling(Protocol):
    """One way to a common scale; both ways take and give float64 arrays."""

    def to(self, values: np.ndarray) -> np.ndarray: ...

    def back(self, values: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Straight:
    """(value - shift) / scale."""

    shift: float
    scale: float

    def to(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return (values - self.shift) / self.scale

    def back(self, values: np.ndarray) -> np.ndarray:
        return values * self.scale + self.shift


@dataclass(frozen=True)
class Logarithmic:
    """Standardised sign(value) * log(1 + |value|)."""

    shift: float
    scale: float

    def to(self, values: np.ndarray) -> np.ndarray:
        return (logarithm(values) - self.shift) / self.scale

    def back(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            powers = np.clip(values * self.scale + self.shift, -LARGEST_LOG, LARGEST_LOG)
        return np.sign(powers) * np.expm1(np.abs(powers))


@dataclass(frozen=True)
class Ranked:
    """The share of the training rows below a value, 0 to 1; beyond their ends it is 0 or 1."""

    knots: np.ndarray

    def to(self, values: np.ndarray) -> np.ndarray:
        # Equal knots are one value of many ranks: their middle one, as read from both ends.
        shares = np.linspace(0.0, 1.0, len(self.knots))
        up = np.interp(values, self.knots, shares)
        down = np.interp(-values, -self.knots[::-1], -shares[::-1])
        return np.where(values == self.knots[0], 0.0, np.where(values == self.knots[-1], 1.0, (up - down) / 2))

    def back(self, values: np.ndarray) -> np.ndarray:
        return np.interp(values, np.linspace(0.0, 1.0, len(self.knots)), self.knots)


def logarithm(values: np.ndarray) -> np.ndarray:
    """sign(value) * log(1 + |value|): near 0 the value itself, far from it its magnitude."""
    return np.sign(values) * np.log1p(np.abs(values))


def deviation(known: np.ndarray) -> float:
    """The standard deviation; 1 for a constant column, whose rounding errors are no spread."""
    return _or_one(float(known.std()), known)


def middle_half(known: np.ndarray) -> tuple[float, float]:
    """The median, and the width of the middle half of the values; 1 where half of them are equal."""
    low, median, high = np.percentile(known, (25, 50, 75))
    return float(median), _or_one(float(high - low), known)


def knots_of(known: np.ndarray) -> tuple[float, ...]:
    """Quantiles at equal distances, from the lowest to the highest value."""
    found = np.quantile(known, np.linspace(0.0, 1.0, min(MOST_KNOTS, len(known))))
    return tuple(np.maximum.accumulate(found).tolist())  # rounding may turn two of them round


def _or_one(spread: float, known: np.ndarray) -> float:
    return spread if spread > 1e-12 * float(np.abs(known).max()) else 1.0
