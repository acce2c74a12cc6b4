"""How many rows a forward takes: estimated, tried with real updates in a process of their own, searched, verified."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from statistics import median
from typing import TYPE_CHECKING, Any

from luodi.train.loop.memory.apart import OutOfMemory, probed_apart

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.run import Run
    from luodi.train.loop.examples import Examples
    from luodi.train.loop.plan import Plan
    from luodi.train.train import Train

FIRST = 8  # rows of the smallest forward that is tried
FASTER = 1.05  # times the examples a second that a larger batch must bring: less is noise, and costs updates
LEAST = 20  # updates that an epoch should keep: a training on few rows needs small batches to get anywhere
WARM, TIMED, SECONDS = 2, 8, 2.0  # updates before the clock starts; at most so many, and so long, while it runs


def chosen(
    step: Train, bundle: Bundle, run: Run, limit_mb: float, predicted: Callable[[Train], float]
) -> tuple[Train, str]:
    """The step with the smallest batch size that is within 5% of the most examples a second, and why: with the figures
    of each one tried.

    Sizes are 8 times the powers of two, up to what is predicted to fit and to what leaves 20 updates an epoch; two of
    them in a rehearsal.
    """
    assert bundle.data is not None
    rows = len(bundle.data["train"])
    most = step.effective_batch or max(rows // LEAST, 1)
    sizes, size = [], min(FIRST, most)
    while size <= most and (not sizes or predicted(_with(step, size)) <= limit_mb):
        sizes.append(size)
        size *= 2
    found = _rates(step, bundle, run, limit_mb, sizes[:2] if run.rehearse else sizes)
    highest = max((facts["rate"] for facts in found.values()), default=0.0)
    best = next((size for size, facts in found.items() if facts["rate"] * FASTER >= highest), sizes[0])
    taken = _with(step, best)
    told = ", ".join(
        f"{size} rows {facts['rate']:,.0f}/s" + (f" in {facts['mb']:,.0f} MB" if facts["mb"] is not None else "")
        for size, facts in found.items()
    )
    whole = f", {taken.accumulate} of them an update" if taken.accumulate > 1 else ""
    return taken, f"batch size {best}{whole}: {told or 'none of the sizes could be tried'}"


def no_longer_pays(rates: list[float]) -> bool:
    """Whether the last two doublings brought next to nothing over what was best before: one alone may be noise."""
    return len(rates) > 2 and max(rates[-2:]) < FASTER * max(rates[:-2])


def _with(step: Train, rows: int) -> Train:
    return step.model_copy(update={"batch_size": rows}).settled()


def _rates(step: Train, bundle: Bundle, run: Run, limit_mb: float, sizes: list[int]) -> dict[int, Mapping[str, Any]]:
    """Examples a second and peak MB of each size that got through training and evaluation, from small to large."""
    found: dict[int, Mapping[str, Any]] = {}

    def hear(event: str, facts: Mapping[str, Any]) -> None:
        if event == "probe":
            found[facts["rows"]] = facts

    steps = [_with(step, size) for size in sizes]
    try:
        probed_apart(steps, bundle, replace(run, log=hear, out=run.out / "probe"), limit_mb if limit_mb < inf else None)
    except OutOfMemory as error:  # the sizes before the one that did not fit are known
        run.log("note", {"text": f"a forward of more rows than {max(found, default=0)} does not fit: {error}"})
    return found


def probe(step: Train, bundle: Bundle, examples: Examples, plan: Plan, run: Run) -> float:
    """Examples a second of a few real updates and one evaluation with this step's batch size; in a process that is
    thrown away: the weights move."""
    from luodi.train.loop.fit import _set
    from luodi.train.loop.gradients import backward
    from luodi.train.loop.learning import Learning
    from luodi.train.loop.precision import Arithmetic
    from luodi.train.loop.validation import wanted_by

    assert bundle.model is not None
    learning, arithmetic = Learning(bundle.model, plan.scope, plan.update), Arithmetic(plan.precision, run.device)
    with _set(bundle.model, run, plan.thrift):
        updates = plan.updates(plan.sampler.order(0), run)
        order = [updates[at % len(updates)] for at in range(WARM + TIMED)]
        parameters, seconds = learning.begin(0), []
        bundle.model.train()
        began = at = time.perf_counter()
        for rows, batches in zip(order, plan.batches(examples, order, 0, run), strict=True):
            loss = backward(plan.losses, bundle.model, parameters, batches, 1, arithmetic)
            learning.move(0.0)
            float(loss)  # waits for the device
            seconds.append((time.perf_counter() - at) / len(rows))
            at = time.perf_counter()
            if len(seconds) > WARM and at - began > SECONDS:
                break
        check = wanted_by(step, bundle, run)
        if check is not None:
            check(bundle.model)
    return 1 / median(seconds[WARM:])  # not the mean: another process may stop one update for a while
