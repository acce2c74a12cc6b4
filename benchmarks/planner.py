"""Chains that `land` tries until it has one within 2% of the best, against grid and random search.

    python benchmarks/planner.py [--quick] [--orders 200]

A small convolutional network is trained on digits, and every chain of at most two steps and one form is made and
measured once. The search then replays those measurements, so that all three see the same figures: the grid goes through
the chains as they are enumerated, random is the mean over shuffled orders. "Within 2%" is of the fastest chain that
keeps the limits and is not shown to answer worse than the best. The last line is the ratio to random: below 1, `land`
needs fewer.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from luodi.core.apply import apply, open_rows
from luodi.core.bundle import Bundle
from luodi.core.child import PRELOADED, Nursery
from luodi.core.limits import Limits
from luodi.core.run import CACHE, Run
from luodi.core.thing import make
from luodi.tune.landing.choice import Chooser, cost
from luodi.tune.landing.search import Search
from luodi.tune.landing.space import Chain, chains, offered
from luodi.tune.landing.trials import Trial, Trials

CLOSE = 1.02
CASES = {
    "small": Limits(size_mb=0.3, drop={"accuracy": 0.02}),
    "fast": Limits(p50_ms=0.6, drop={"accuracy": 0.02}),
    "both": Limits(p50_ms=0.8, size_mb=0.25, drop={"accuracy": 0.02}),
}


@dataclass
class Replay:
    """A bench that gives what was measured before."""

    whole: dict[str, Trial]
    limits: Limits
    done: dict[str, Trial] = field(default_factory=dict)
    spent: float = 0.0

    def tried(self, chain: Chain, *, whole: bool = False) -> Trial:
        """The chain's trial; its time counts."""
        self.done[chain.key] = found = self.whole[chain.key]
        self.spent += found.seconds
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="chains of one step and a form, two epochs")
    parser.add_argument("--orders", type=int, default=200, help="shuffled orders")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Nursery(PRELOADED) as nursery:
        bundle, run = trained(Path(folder), 2 if asked.quick else 6), Run(Path(folder) / "land")
        every = chains(bundle, offered("cpu")[0], 1 if asked.quick else 2)
        bench = Trials(bundle, run, nursery, Limits(), 1)
        for number, chain in enumerate(every, 1):
            trial = bench.tried(chain)
            print(
                f"{number}/{len(every)} {trial.name}: {trial.why or round(trial.figures['p50_ms'].value, 3)}",
                flush=True,
            )
        ratios = [_case(name, limits, bench, every, run.out / "exams", asked.orders) for name, limits in CASES.items()]
    print(f"land tries {float(np.exp(np.mean(np.log(ratios)))):.3f} times as many chains as random search")


def trained(folder: Path, epochs: int) -> Bundle:
    """The network of the digits recipe."""
    inputs = {"image": {"image": {"size": 28, "channels": 1}}}
    task: Any = make("tasks", {"supervised": {"inputs": inputs, "targets": {"label": "category"}}})
    source: Any = make("sources", {"sample": {"name": "digits"}})
    rows = open_rows(source, CACHE)
    bundle = Bundle(
        task=task, config=make("models", {"convnet": {"widths": [32, 64]}}), data=rows, facts=frozenset({"rows"})
    )  # ty: ignore
    for step in ({"split": {"validation": 0.2}}, {"train": {"epochs": epochs, "learning_rate": 0.002}}):
        bundle = apply(make("steps", step), bundle, Run(folder, threads=1))  # ty: ignore
    return bundle


def _case(name: str, limits: Limits, bench: Trials, every: Sequence[Chain], exams: Path, orders: int) -> float:
    chooser = Chooser(bench.bundle.task, limits, exams)
    order = chooser.order(list(bench.done.values()))
    if not order:
        print(f"{name}: no chain is within the limits")
        return 1.0
    most = cost(order[0], "p50_ms") * CLOSE
    alike = {
        trial.key for trial in order if cost(trial, "p50_ms") <= most and not chooser.worse(trial, order[0])
    }  # fmt: skip
    replay: Any = Replay(bench.done, limits)
    search = Search(replay, chooser, every)
    while not alike & replay.done.keys():
        chain = search._next()
        if chain is None:
            break
        search._learn(chain, replay.tried(chain))
    reached, tries = bool(alike & replay.done.keys()), len(replay.done)
    keys = [chain.key for chain in every]
    grid = next(at for at, key in enumerate(keys, 1) if key in alike)
    dice = np.random.default_rng(0)
    drawn = [next(at for at, key in enumerate(dice.permutation(keys), 1) if key in alike) for _ in range(orders)]
    mean = float(np.mean(drawn))
    print(
        f"{name}: {len(alike)} of {len(every)} chains lie within 2% of the best ({order[0].name}); land {tries} tries"
        f"{'' if reached else ' and stopped before'}, grid {grid}, random {mean:.1f}"
    )
    return tries / mean if reached else len(every) / mean


if __name__ == "__main__":
    main()
