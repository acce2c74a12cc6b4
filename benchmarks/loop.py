"""The training loop against a bare PyTorch loop of the same model and data, in CPU seconds on one thread.

    python benchmarks/loop.py [--quick] [--pairs 60] [--seconds 3] [--model convnet|mlp] [--layout same|default]

Both train on the digits with fused AdamW from the same fresh weights, for the same number of updates. Ours also
follows a schedule, reseeds at each update, watches for losses that are no number, tells its progress and writes
checkpoints; the bare loop does none of that. `--layout same` (default) gives the bare loop our memory layout, so that
the loops alone are compared; `default` leaves it as most people write it. The runs of a pair are interleaved in
alternating order, and a second bare run in each pair is the control. The last line is the median ratio: ours / bare.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from luodi.core.bundle import Bundle
from luodi.core.run import Run
from luodi.core.source import Data
from luodi.core.thing import make
from luodi.train.loop.checkpoint import Checkpoint
from luodi.train.loop.examples import Held, examples_of
from luodi.train.loop.fit import fit
from luodi.train.loop.patience import Patience
from luodi.train.loop.plan import Plan
from luodi.train.loop.sampler import Shuffled

TASK = {"supervised": {"inputs": {"image": {"image": {"size": 28, "channels": 1}}}, "targets": {"label": "category"}}}
MODELS = {"convnet": {"convnet": {"widths": [32, 64]}}, "mlp": {"mlp": {"hidden": [256, 128]}}}
BATCH = 64


def prepare(model: str, cache: Path, models: Mapping[str, object] = MODELS) -> tuple[Bundle, Held]:
    """A fresh model and the encoded digits, made exactly as the train step makes them."""
    rows = make("sources", {"sample": {"name": "digits"}}).open(cache)
    bundle = Bundle(task=make("tasks", TASK), config=make("models", models[model]), data=Data({"train": rows[:4000]}))
    bundle = bundle.ready(Run(cache))
    examples, _ = examples_of(bundle.task, bundle.data["train"], "cpu", 1000)
    assert isinstance(examples, Held)
    return bundle, examples


def bare(model: nn.Module, x: Tensor, y: Tensor, epochs: int, layout: str) -> None:
    """The loop that everybody writes, with the fast optimizer."""
    if layout == "same":
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            images, labels = x.index_select(0, rows), y.index_select(0, rows)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(image=images)["label"], labels)
            loss.backward()
            optimizer.step()


def ours(bundle: Bundle, model: nn.Module, examples: Held, epochs: int) -> None:
    """`fit` as the train step calls it, without validation, which the bare loop has not."""
    told: list[object] = []
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), threads=1, log=lambda event, facts: told.append((event, facts)))
        plan = Plan(
            Shuffled(examples.count, run), bundle.task.loss, make("updates", "adamw"), make("schedules", "cosine"),
            listeners=(run.log,), epochs=epochs, batch_size=BATCH,
        )  # fmt: skip
        fit(model, examples, plan, run, Checkpoint(run.out / "checkpoint", {}, 60.0), Patience(None, "loss", {}))


def cpu_seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """Median and its 95% bootstrap interval."""
    dice = np.random.default_rng(0)
    medians = np.median(dice.choice(ratios, (4000, len(ratios))), axis=1)
    return float(np.median(ratios)), *(float(edge) for edge in np.quantile(medians, [0.025, 0.975]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 pairs of 2 seconds: under a minute")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU seconds of each run, at least")
    parser.add_argument("--model", choices=sorted(MODELS), default="convnet")
    parser.add_argument("--layout", choices=("same", "default"), default="same")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "luodi")
    given = parser.parse_args()
    pairs, seconds = (5, 2.0) if given.quick else (given.pairs, given.seconds)

    torch.set_num_threads(1)
    bundle, examples = prepare(given.model, given.cache)
    x, y = examples.inputs["image"], examples.truth["label"]
    assert bundle.model is not None
    fresh = bundle.model

    def loops(epochs: int) -> dict[str, Callable[[], None]]:
        def plain() -> None:
            bare(deepcopy(fresh), x, y, epochs, given.layout)

        return {"ours": lambda: ours(bundle, deepcopy(fresh), examples, epochs), "bare": plain, "again": plain}

    for loop in loops(1).values():  # warm-up: kernels are chosen, torch's compiler is imported
        loop()
    one = min(cpu_seconds(loops(1)["bare"]) for _ in range(2))
    epochs = max(1, int(np.ceil(1.1 * seconds / one)))
    print(f"{given.model}: {epochs} epochs a run, bare {one:.2f} CPU s an epoch, {pairs} pairs", flush=True)
    found: dict[str, list[float]] = {"ours": [], "bare": [], "again": []}
    for pair in range(pairs):
        names = list(found)[pair % 3 :] + list(found)[: pair % 3]
        for name in names if pair % 2 else names[::-1]:
            found[name].append(cpu_seconds(loops(epochs)[name]))
        print(
            f"pair {pair + 1}: " + ", ".join(f"{name} {spent[-1]:.2f} s" for name, spent in found.items()), flush=True
        )
    times = {name: np.asarray(spent) for name, spent in found.items()}
    print("control, bare / bare: {:.4f} [{:.4f}, {:.4f}]".format(*interval(times["again"] / times["bare"])))
    print("ours / bare, median:  {:.4f} [{:.4f}, {:.4f}]".format(*interval(times["ours"] / times["bare"])))
    print(f"ratio {np.median(times['ours'] / times['bare']):.4f}")


if __name__ == "__main__":
    main()
