"""How much faster than eager PyTorch the form is that `luodi land` finds alone: shapes of ResNet-18 and DistilBERT.

    python benchmarks/landing.py [--quick] [--only resnet|distilbert] [--seconds 240]

The weights are random, so quality is how far the outputs move: a form whose relative error on held-out rows is above 2%
does not count. One thread. `land` is given a latency limit of a fifth of eager's, which need not be within reach; the
chosen chain's latency is from calls in turn with eager's. The last line is the lower ratio of the shapes that were run.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.run import Run
from luodi.core.source import Data, rows_of
from luodi.core.thing import make

ROWS, HELD_OUT = 128, 32
ERROR = 0.02
SHAPES: dict[str, tuple[Any, Any]] = {
    "resnet": ({"image": {"image": {"size": 224, "channels": 3}}}, {"resnet": {"depth": 18}}),
    "distilbert": (
        {"text": {"text": {"tokens": "character", "length": 128}}},
        {"text_transformer": {"width": 768, "layers": 6, "heads": 12}},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="resnet alone, 30 seconds of search")
    parser.add_argument("--only", choices=list(SHAPES))
    parser.add_argument("--seconds", type=float, default=240.0, help="of each search")
    asked = parser.parse_args()
    names = ["resnet"] if asked.quick else [asked.only] if asked.only else list(SHAPES)
    ratios = [landed(name, 30.0 if asked.quick else asked.seconds) for name in names]
    print(f"landed / eager: {min(ratios):.2f}x faster")


def landed(name: str, seconds: float) -> float:
    """Eager's median latency over that of what `land` takes."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), threads=1)
        bundle = random_model(name, run)
        limits = {"p50_ms": eager_ms(bundle) / 5}
        step: Any = make("steps", {"land": {"seconds": seconds, "depth": 0, "limits": limits, "threads": 1}})
        after = apply(step, bundle, run)
        note: Any = after.notes["land"]
        for chain in sorted(note["chains"], key=lambda one: one["figures"].get("p50_ms", 1e9)):
            print(
                f"  {chain['name']}: {chain['figures'].get('p50_ms', float('nan')):.2f} ms {chain['why']}", flush=True
            )
        taken = next(one for one in note["chains"] if one["name"] == note["taken"])
        eager = next(one for one in note["chains"] if one["name"] == "as it is")
        ratio = eager["figures"]["p50_ms"] / taken["figures"]["p50_ms"]
        drift = after.forms[after.serving].drift if after.forms else 0.0
        print(f"{name}: {note['taken']}, {ratio:.2f}x faster than eager, outputs moved by {drift:.2%}", flush=True)
        if drift > ERROR:
            print(f"{name}: an error above {ERROR:.0%} does not count", flush=True)
            return 0.0
        return ratio


def random_model(name: str, run: Run) -> Bundle:
    """A model that was never trained, with rows to set ranges and to judge by."""
    inputs, model = SHAPES[name]
    task: Any = make("tasks", {"supervised": {"inputs": inputs, "targets": {"label": "category"}}})
    dice = np.random.default_rng(0)
    (column,) = inputs
    cells = [_picture(dice) if column == "image" else _text(dice) for _ in range(ROWS + HELD_OUT)]
    rows = rows_of({column: cells, "label": [str(at % 4) for at in range(ROWS + HELD_OUT)]})
    splits = {"train": rows.take(np.arange(ROWS)), "validation": rows.take(np.arange(ROWS, ROWS + HELD_OUT))}
    config: Any = make("models", model)
    bundle = Bundle(task=task, config=config, data=Data(splits), facts=frozenset({"rows", "split"}) | task.gives)
    ready = bundle.ready(run)
    assert ready.model is not None
    ready.model.eval()
    return replace(ready, notes={})


def eager_ms(bundle: Bundle) -> float:
    """Median of a few eager calls of one request."""
    import time

    import torch

    torch.set_num_threads(1)
    predictor, times = bundle.predictor(), []
    (request,) = bundle.task.examples(1, 0)
    for _ in range(12):
        began = time.perf_counter()
        predictor([request])
        times.append((time.perf_counter() - began) * 1e3)
    return float(np.median(times[4:]))


def _picture(dice: np.random.Generator) -> bytes:
    """Smooth noise, as a photograph is and white noise is not."""
    small = Image.fromarray(dice.integers(0, 256, (14, 14, 3), np.uint8))
    stream = io.BytesIO()
    small.resize((224, 224), Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


def _text(dice: np.random.Generator) -> str:
    return "".join(chr(97 + one) for one in dice.integers(0, 26, 200))


if __name__ == "__main__":
    main()
