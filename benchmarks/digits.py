"""Accuracy of the digits recipe's network on 1,000 held-out digits, over seeds, and the CPU seconds of each training.

`python benchmarks/digits.py` trains 5 seeds in full; `--quick` one seed for 2 epochs. The last line is the mean
accuracy with its 95% interval (Student's t over seeds); the goal is 97.5% in at most 120 CPU seconds a training.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from luodi.core.apply import apply, open_rows
from luodi.core.bundle import Bundle
from luodi.core.recipe import Recipe
from luodi.core.run import Run

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t, two-sided 95%, by the number of seeds


def trained(recipe: Recipe, seed: int, cache: Path, threads: int) -> tuple[float, float]:
    """(accuracy on the test rows, CPU seconds of the training) of the recipe's first two steps with this seed."""
    assert recipe.data is not None and recipe.task is not None
    data: Any = recipe.data
    bundle = Bundle(task=recipe.task, config=recipe.model, data=open_rows(data, cache), facts=frozenset({"rows"}))
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number, step in enumerate(recipe.steps[:2], 1):
            out = Path(folder) / str(number)
            out.mkdir()
            started = time.process_time()
            bundle = apply(step, bundle, Run(out, seed=seed, threads=threads, scope=(str(number),)), number)
            seconds = time.process_time() - started
    assert bundle.data is not None
    exam = bundle.task.examine(bundle.predictor(), bundle.data["test"], 600.0)
    return bundle.task.score(exam)["label.accuracy"], seconds


def main() -> None:
    """Trains the seeds and prints a line each, the mean last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "luodi")
    args = parser.parse_args()
    settings = ["steps.train.epochs=2"] if args.quick else []
    recipe = Recipe.read(Path(__file__).parents[1] / "recipes" / "digits.yaml", settings)
    found = []
    for seed in range(1 if args.quick else args.seeds):
        accuracy, seconds = trained(recipe, seed, args.cache, 1)
        found.append(accuracy)
        print(f"seed {seed}: accuracy {accuracy:.4f}, training {seconds:.1f} CPU s", flush=True)
    mean = statistics.mean(found)
    half = T95[len(found)] * statistics.stdev(found) / len(found) ** 0.5 if len(found) > 1 else float("nan")
    print(f"mean accuracy over {len(found)} seeds {mean:.4f} [{mean - half:.4f}, {mean + half:.4f}]")


if __name__ == "__main__":
    main()
