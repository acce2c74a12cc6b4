"""Fewer bits and fewer weights of a language model trained here: how much of what rounding and pruning lose is kept.

    python benchmarks/weights.py [--quick] [--bundle FOLDER] [--seeds 2] [--rows 1500] [--calibration 128] [--group 64]

The GPT of recipes/gpt_shakespeare.yaml is trained (about five CPU minutes; `--quick`: a tenth of the rows), or taken
from a saved bundle. Its linear layers are then rounded to 4 and 3 bits, asymmetric, in groups of the same size for
every method (the table of letters is int8 for all), and half of their weights are pruned. What the methods look at are
rows of the training split, others for each seed; perplexity is told on rows of the test split, plays never read before.
Printed are the share of the gap to the nearest grid point that each method closes, and each rise over SparseGPT's, of
the logarithm of perplexity, with 95% intervals over test rows (a paired bootstrap of the seeds' means). The last two
lines are the best way at 4 bits, and of pruning.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from luodi.core import yaml
from luodi.core.apply import apply, open_rows, reopen
from luodi.core.bundle import Bundle
from luodi.core.recipe import Recipe
from luodi.core.run import Run
from luodi.core.thing import make
from luodi.train.loop.examples import Examples, examples_of

RECIPE = Path(__file__).parents[1] / "recipes" / "gpt_shakespeare.yaml"
ROUNDED: dict[str, dict[str, Any]] = {
    "nearest": {},
    "AWQ": {"by": "awq"},
    "GPTQ": {"by": "gptq"},
    "GPTQ, largest first": {"by": "gptq", "columns": "largest"},
    "corrected": {"by": "corrected"},
}
PRUNED: dict[str, dict[str, Any]] = {
    "magnitude": {},
    "magnitude, global": {"scope": "global"},
    "Wanda": {"by": "wanda"},
    "SparseGPT": {"by": "sparsegpt"},
    "SparseGPT, global": {"by": "sparsegpt", "scope": "global"},
    "corrected": {"by": "corrected"},
    "corrected, global": {"by": "corrected", "scope": "global"},
    "SparseGPT 2:4": {"by": "sparsegpt", "pattern": "2:4"},
    "corrected 2:4": {"by": "corrected", "pattern": "2:4"},
}


class Losses(NamedTuple):
    """Of each test row: the sum over its tokens, and how many there are."""

    sums: np.ndarray
    counts: np.ndarray

    def mean(self, rows: np.ndarray) -> float:
        return float(self.sums[rows].sum() / self.counts[rows].sum())


def trained(share: float) -> Bundle:
    """The recipe's model, on so much of its training rows."""
    recipe = Recipe.of(yaml.parse(RECIPE.read_text(encoding="utf-8")))
    run = Run(Path(tempfile.mkdtemp()), seed=1, threads=1)
    bundle = Bundle(
        task=recipe.task, config=recipe.model, data=open_rows(recipe.data, run.cache), facts=frozenset({"rows", "loss"})
    )
    for number, step in enumerate(recipe.steps, 1):
        bundle = apply(step, bundle, run.at(str(number)), number)
        if share < 1 and "split" in bundle.facts and bundle.model is None:
            bundle = apply(make("steps", {"sample": {"share": share}}), bundle, run.at("fewer"))
    return bundle


def losses(bundle: Bundle, examples: Examples) -> Losses:
    assert bundle.model is not None
    bundle.model.eval()
    found: list[tuple[Any, Any]] = []
    with torch.no_grad():
        for rows in torch.arange(examples.count).split(250):
            ((sums, counts, _),) = bundle.task.loss(bundle.model, *examples.batch(rows)).values()
            found.append((sums.double().numpy(), counts.double().numpy()))
    return Losses(*map(np.concatenate, zip(*found, strict=True)))


def changed(bundle: Bundle, step: dict[str, Any], examples: Examples, seeds: int) -> tuple[Losses, float]:
    """Losses after a step, their mean over several choices of calibration rows, and CPU seconds of one step."""
    chosen: Any = make("steps", step)
    several = seeds if "split" in chosen.facts(frozenset()).needs else 1
    found, seconds = [], 0.0
    for seed in range(several):
        begun, run = bundle.fork(), Run(Path(tempfile.mkdtemp()), seed=seed, threads=1)
        start = time.process_time()
        after = chosen(begun, run)
        seconds += time.process_time() - start
        found.append(losses(after, examples))
    return Losses(np.mean([one.sums for one in found], axis=0), found[0].counts), seconds / several


def interval(values: list[float]) -> str:
    low, high = np.quantile(values, [0.025, 0.975])
    return f"[{low:.3f}, {high:.3f}]"


def told(
    title: str, whole: Losses, ways: dict[str, tuple[Losses, float]], against: str, *, closed: bool
) -> dict[str, str]:
    """Prints a table; gives the ratio of each way with its interval."""
    dice, count = np.random.default_rng(0), len(whole.sums)
    every = np.arange(count)
    resamples = [every, *(dice.integers(0, count, count) for _ in range(1000))]
    floor = [whole.mean(rows) for rows in resamples]
    rises = {
        name: [kept.mean(rows) - low for rows, low in zip(resamples, floor, strict=True)]
        for name, (kept, _) in ways.items()
    }
    print(f"\n{title}; the float model has {np.exp(floor[0]):.4f}")
    ratio = "share of the gap closed" if closed else "rise over SparseGPT's"
    print(f"| way | perplexity | rise of its logarithm | {ratio} | CPU s |\n|---|---|---|---|---|")
    ratios = {}
    for name, rise in rises.items():
        values = [one / other for one, other in zip(rise, rises[against], strict=True)]
        values = [1 - value for value in values] if closed else values
        ratios[name] = f"{values[0]:.3f} {interval(values[1:])}"
        print(f"| {name} | {np.exp(floor[0] + rise[0]):.4f} | {rise[0]:.5f} | {ratios[name]} | {ways[name][1]:.1f} |")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the training, one seed, 400 rows")
    parser.add_argument("--bundle", type=Path, help="a trained bundle of a language model with its rows")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1500, help="of the test split")
    parser.add_argument("--calibration", type=int, default=128, help="rows of the training split")
    parser.add_argument("--group", type=int, default=64)
    given = parser.parse_args()
    seeds, rows = (1, 400) if given.quick else (given.seeds, given.rows)
    torch.set_num_threads(1)
    run = Run(Path(tempfile.mkdtemp()), threads=1)
    bundle = reopen(Bundle.load(given.bundle), run.cache, run) if given.bundle else trained(0.1 if given.quick else 1)
    assert bundle.data is not None
    test = bundle.data["test"]
    chosen = np.sort(np.random.default_rng(0).permutation(len(test))[:rows])
    examples = examples_of(bundle.task, test.take(chosen), "cpu", 2048.0)[0]
    whole, last = losses(bundle, examples), {}
    for bits in (4,) if given.quick else (4, 3):
        fixed = {"weights": f"int{bits}", "group": given.group, "grid": "asymmetric", "rows": given.calibration}
        ways = {
            name: changed(bundle, {"quantize": {**fixed, **more}}, examples, seeds) for name, more in ROUNDED.items()
        }
        ratios = told(f"{bits} bits in groups of {given.group}", whole, ways, "nearest", closed=True)
        last.setdefault("bits", ratios["corrected"])
    some = {name: more for name, more in PRUNED.items() if not given.quick or "by" in more}
    ways = {
        name: changed(bundle, {"prune": {"sparsity": 0.5, "rows": given.calibration, **more}}, examples, seeds)
        for name, more in some.items()
    }
    ratios = told("half of the weights", whole, ways, "SparseGPT", closed=False)
    print(f"\n4 bits, corrected: {last['bits']} of the gap to the nearest closed")
    print(f"50% pruned, corrected, global: {ratios['corrected, global']} times SparseGPT's rise")


if __name__ == "__main__":
    main()
