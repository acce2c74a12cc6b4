"""What a chain that was not tried would measure, from those that were."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luodi.tune.landing.space import Chain

ALIKE = 0.5  # how much the same step with other fields tells of a step
PAIRS = 0.1  # how much the chains' parts act on each other, against what each does alone
NOISE = 0.02  # of a measured figure, in the unit of `spread`


class Guess:
    """One figure of a chain as a Gaussian process over sets of steps: a chain is the sum of what its steps do alone,
    and a little of what they do together; figures are changes against the chain without steps, which is 0.

    Rasmussen and Williams 2006, equations 2.23 and 2.24. A step that was never tried may do anything within `spread`,
    so that trying it is worth more than trying what is known.
    """

    def __init__(self, spread: float) -> None:
        self.spread = spread
        self.chains: list[Chain] = []
        self.values: list[float] = []

    def learn(self, chain: Chain, value: float) -> None:
        """What a chain was found to change."""
        self.chains.append(chain)
        self.values.append(value)

    def of(self, chains: Sequence[Chain]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of what each of these chains changes."""
        own = np.array([_alike(chain, chain) for chain in chains]) * self.spread**2
        if not self.chains:
            return np.zeros(len(chains)), np.sqrt(own)
        known = _kernel(self.chains, self.chains) * self.spread**2
        known += np.eye(len(known)) * (NOISE * self.spread) ** 2
        across = _kernel(chains, self.chains) * self.spread**2
        weighed = np.linalg.solve(known, across.T)
        variance = own - np.einsum("ij,ji->i", across, weighed)
        return weighed.T @ np.asarray(self.values), np.sqrt(np.maximum(variance, 0))


def _kernel(rows: Sequence[Chain], columns: Sequence[Chain]) -> np.ndarray:
    return np.array([[_alike(row, column) for column in columns] for row in rows])


def _alike(one: Chain, other: Chain) -> float:
    shared = sum(
        1.0 if a == b else ALIKE if type(x) is type(y) else 0.0
        for a, x in zip(one.parts, one.steps, strict=True)
        for b, y in zip(other.parts, other.steps, strict=True)
    )
    return shared + PAIRS * shared**2
