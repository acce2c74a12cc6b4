"""The range finder: which learning rate a training can begin with (arXiv 1506.01186)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.core.atomic import write_json
from luodi.core.errors import LuodiError
from luodi.train.loop.audience import Audience
from luodi.train.loop.checkpoint import Checkpoint
from luodi.train.loop.fit import fit
from luodi.train.loop.patience import Patience
from luodi.train.loop.slots import Checks, Sampler, Schedule, Scope
from luodi.train.loop.state import Diverged

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.run import Run
    from luodi.train.loop.examples import Examples
    from luodi.train.loop.plan import Plan

LOWEST, HIGHEST = 1e-6, 10.0
UPDATES, REHEARSED = 100, 8
LEAST = 0.01  # share of the loss by which it must fall somewhere
WINDOW = 15  # updates, one decade of rates: a straight line through them is the smoothed loss and its slope


@dataclass(frozen=True)
class Found:
    """The rate, and the loss at each rate that was tried."""

    rate: float
    curve: list[dict[str, float]]  # {"rate", "loss", "still"}: still is the loss had no weight moved


def find_rate(model: nn.Module, examples: Examples, plan: Plan, run: Run, checkpoint: Checkpoint) -> Found:
    """Trains a copy with rates that rise from 1e-6 to 10, and takes the one at which the loss fell fastest.

    A second copy goes through the same updates and stands still: its losses are the batches' own difficulty. What was
    found is kept beside the checkpoint, so that a training that goes on has the same. Raises LuodiError if the loss
    fell at no rate.
    """
    path = checkpoint.folder / "rates.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept.get("key") == checkpoint.key:
        curve = kept["curve"]
    else:
        curve = _tried(model, examples, plan, run.at("rates"))
        if run.rank == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"key": checkpoint.key, "curve": curve})
    rate = steepest(curve)
    if rate is None and not run.rehearse:
        raise LuodiError(
            "learning_rate: auto found no rate at which the loss falls; give a number, or look at the rows"
        )
    rate = rate or curve[-1]["rate"]
    told = f"learning rate {rate:.2g}: where the loss fell fastest in {len(curve)} updates from {LOWEST:g} up"
    run.log("note", {"text": told})
    return Found(rate, curve)


def steepest(curve: Sequence[Mapping[str, float]]) -> float | None:
    """The rate of the steepest descent of (loss - still) over the rate's logarithm, before its lowest point.

    Value and slope are those of a straight line through 15 neighbours. None if it falls by less than a hundredth of
    the loss.
    """
    rates = np.array([each["rate"] for each in curve])
    gains = np.array([each["loss"] - each["still"] for each in curve])
    half = (min(WINDOW, len(curve)) - 1) // 2
    if half < 1:
        return None
    centres, places = np.arange(half, len(curve) - half), np.log(rates)
    around = [slice(at - half, at + half + 1) for at in centres]
    lines = [np.polyfit(places[one] - places[at], gains[one], 1) for at, one in zip(centres, around, strict=True)]
    slopes, smooth = np.array(lines).T
    if min(smooth) > -LEAST * abs(np.mean([each["still"] for each in curve])):
        return None
    return float(rates[centres[int(np.argmin(slopes[: int(np.argmin(smooth)) + 1]))]])


class Rising(Schedule):
    """From the lowest rate to the highest, by the same factor at each update."""

    def factor(self, step: int, total: int, checks: Checks = ()) -> float:
        return (HIGHEST / LOWEST) ** (step / max(1, total - 1))


class First(Scope):
    """A scope as it is in the first epoch: the search's epochs are single updates."""

    scope: Any

    def rates(self, stages: Sequence[str], epoch: int) -> list[float]:
        return list(self.scope.rates(stages, 0))


@dataclass
class Single:
    """Epochs of one whole update each: the loop then tells the loss of every update."""

    inner: Sampler
    rows: int  # of an update
    epoch: int = -1
    whole: Sequence[Tensor] = ()

    def order(self, epoch: int) -> Tensor:
        if not self.whole:
            self._read(0)
        of, at = divmod(epoch, len(self.whole))
        if of != self.epoch:
            self._read(of)
        return self.whole[at]

    def _read(self, epoch: int) -> None:
        parts = self.inner.order(epoch).split(self.rows)
        self.epoch, self.whole = epoch, [part for part in parts if len(part) == len(parts[0])]


class _Enough(Exception):
    """Ends the search."""


def _tried(model: nn.Module, examples: Examples, plan: Plan, run: Run) -> list[dict[str, float]]:
    """Rates and losses, up to where the loss is far above where it began."""
    updates = REHEARSED if run.rehearse else UPDATES
    still = _losses(
        deepcopy(model), examples, replace(plan, learning_rate=0.0, epochs=updates), run, lambda found: False
    )
    losses = _losses(
        deepcopy(model), examples, replace(plan, learning_rate=LOWEST, epochs=updates, schedule=Rising()), run,
        lambda found: _diverges(found, still),
    )  # fmt: skip
    rising = Rising()
    return [
        {"rate": LOWEST * rising.factor(step, updates), "loss": loss, "still": still[step]}
        for step, loss in enumerate(losses)
    ]


def _losses(
    model: nn.Module, examples: Examples, plan: Plan, run: Run, enough: Callable[[Sequence[float]], bool]
) -> list[float]:
    """The loss of every update, until it is enough or no number; all random draws are the same at each call."""
    losses: list[float] = []

    def listen(event: str, facts: Mapping[str, Any]) -> None:
        if event == "epoch":
            losses.append(facts["train_loss"])
            if enough(losses):
                raise _Enough

    rows = plan.rows * run.world
    alone = replace(
        plan, sampler=Single(plan.sampler, rows), listeners=(listen,), average=None, audience=Audience(),
        scope=First(scope=plan.scope), compile=False, workers=0,
    )  # fmt: skip
    checkpoint = Checkpoint(run.out, {}, inf)
    checkpoint.remove()
    checkpoint.took = inf  # none is written but at Ctrl-C, and that one is not read
    try:
        fit(model, examples, alone, replace(run, rehearse=False), checkpoint, Patience(None, "loss", {}))
    except (Diverged, _Enough):  # both are where the search ends
        if not losses:
            raise
    return losses


def _diverges(losses: Sequence[float], still: Sequence[float]) -> bool:
    """Whether the last losses are as far above the start as the lowest were below, and by a quarter at least."""
    if len(losses) < 10:
        return False
    gains = np.array(losses) - np.array(still[: len(losses)])
    lowest = float(np.min(np.convolve(gains, np.ones(5) / 5, "valid")))
    return float(np.mean(gains[-3:])) > max(-lowest, abs(float(np.mean(still))) / 4)
