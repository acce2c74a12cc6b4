"""Which chain to try next: the one that most likely is within the limits and better than the best, for its cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import erfc, log, sqrt

import numpy as np

from luodi.core.evidence import Measure
from luodi.core.limits import COSTS, full_name
from luodi.tune.landing.choice import Chooser, cost
from luodi.tune.landing.guess import Guess
from luodi.tune.landing.space import Chain
from luodi.tune.landing.trials import Trial, Trials

UNLIKELY = 0.01  # no chain left is as likely as this to be better: the search is over
FINALISTS = 3  # measured again, longer
LAST = 0.3  # most of the time that is kept for them
FOLD = 1.0  # log: a step that was never tried may change a time or a size e times
SHARE = 0.1  # of the metric's value that such a step may lose, or three times what may be lost
SETTLED = 0.01  # log: times closer than this are the same


class Search:
    """A loop over trials; what was learned of the chains tried says which is next."""

    def __init__(self, trials: Trials, chooser: Chooser, chains: Sequence[Chain]) -> None:
        self.trials, self.chooser = trials, chooser
        self.chains = {chain.key: chain for chain in chains}
        self.base = trials.tried(Chain())
        names = [name for name in COSTS if getattr(trials.limits, name) is not None]
        self.costs = {name: Guess(FOLD) for name in dict.fromkeys([*names, "p50_ms", "size_mb"])}
        self.drops = {full_name(name, list(self.base.losses)): most for name, most in trials.limits.drop.items()}
        wanted = [name for name in dict.fromkeys([*self.drops, chooser.metric]) if name in self.base.losses]
        self.losses = {name: Guess(self._spread(name)) for name in wanted if name is not None}
        self.seconds, self.fails = Guess(FOLD), Guess(0.5)
        for key, chain in self.chains.items():
            if key in trials.done and chain.steps:
                self._learn(chain, trials.done[key])

    def go(self, seconds: float, most: int | None, tell: Callable[[Trial, int], None]) -> list[Trial]:
        """Tries chains until the time, or what is worth trying, is used up; measures the best again; all, best first
        where any is within the limits."""
        while (most is None or len(self.trials.done) < most) and self.trials.spent < seconds * (1 - LAST):
            chain = self._next()
            if chain is None:
                break
            trial = self.trials.tried(chain)
            self._learn(chain, trial)
            tell(trial, len(self.trials.done))
        self._last(seconds)
        return list(self.trials.done.values())

    def _last(self, seconds: float) -> None:
        """The best are measured again, longer; where nothing is within the limits, those that come near to the end."""
        order = self.chooser.order(list(self.trials.done.values()))
        for trial in order[:FINALISTS]:
            if trial.steps and (self.trials.spent < seconds or trial is order[0]):
                self.trials.confirmed(self.chains[trial.key])
        if not order:
            made = [trial for trial in self.trials.done.values() if not trial.why and "p50_ms" in trial.figures]
            near = sorted((one for one in made if not one.losses), key=lambda one: cost(one, "p50_ms"))
            for trial in near[:FINALISTS]:
                self.trials.tried(self.chains[trial.key], whole=True)

    def _next(self) -> Chain | None:
        seen = {part for key in self.trials.done if key in self.chains for part in self.chains[key].parts}
        # One step at a time that was never tried: what a chain of several strangers changes teaches little.
        left = [
            chain
            for key, chain in self.chains.items()
            if key not in self.trials.done and len(set(chain.parts) - seen) <= 1
        ]
        if not left:
            return None
        chance = self._fits(left) * np.clip(1 - self.fails.of(left)[0], 0.01, 1)
        order = self.chooser.order(list(self.trials.done.values()))
        if order:
            chance *= self._better(left, order[0])
            if chance.max() < UNLIKELY:
                return None
        worth = np.log(np.maximum(chance, 1e-300)) - self.seconds.of(left)[0]
        return left[int(worth.argmax())]

    def _fits(self, chains: Sequence[Chain]) -> np.ndarray:
        """How likely each chain is within all limits."""
        chance = np.ones(len(chains))
        for name in COSTS:
            allowed = getattr(self.trials.limits, name)
            known: Measure | None = self.base.figures.get(name)
            if allowed is not None and known is not None:
                chance *= _below(self.costs[name], chains, log(allowed / max(known.value, 1e-9)))
        for name, allowed in self.drops.items():
            if name in self.losses:
                chance *= _below(self.losses[name], chains, allowed)
        return chance

    def _better(self, chains: Sequence[Chain], best: Trial) -> np.ndarray:
        """How likely each chain answers better than the best, or as well in less time."""
        reached = cost(best, "p50_ms") / self.base.figures["p50_ms"].value
        faster = _below(self.costs["p50_ms"], chains, log(reached) - SETTLED)
        name = self.chooser.metric
        if name not in self.losses or name not in best.losses:
            return faster
        lost = best.losses[name]
        half = max((lost.high - lost.low) / 2, 1e-9)
        higher = _below(self.losses[name], chains, lost.value - half)
        same = _below(self.losses[name], chains, lost.value + half) - higher
        return higher + same * faster

    def _learn(self, chain: Chain, trial: Trial) -> None:
        self.fails.learn(chain, float(bool(trial.why)))
        self.seconds.learn(chain, log(max(trial.seconds, 0.01) / max(self.base.seconds, 0.01)))
        known: Mapping[str, Measure] = self.base.figures
        for name, guess in self.costs.items():
            if name in trial.figures and name in known:
                guess.learn(chain, log(max(trial.figures[name].value, 1e-9) / max(known[name].value, 1e-9)))
        for name, guess in self.losses.items():
            if name in trial.losses:
                guess.learn(chain, trial.losses[name].value)

    def _spread(self, name: str) -> float:
        found = abs(self.base.figures[name].value) * SHARE
        return max(3 * self.drops.get(name, 0.0), found, 1e-6)


def _below(guess: Guess, chains: Sequence[Chain], most: float) -> np.ndarray:
    """How likely each chain's figure is at most this."""
    means, deviations = guess.of(chains)
    scores = (most - means) / np.maximum(deviations, 1e-9)
    return np.array([0.5 * erfc(-float(np.clip(score, -35, 35)) / sqrt(2)) for score in scores])
