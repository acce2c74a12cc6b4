"""Predicted against real peak memory of trainings of several shapes, each in a clean process of its own.

    python benchmarks/memory.py [--only NAME]

A training runs as the train step runs one whose `memory_mb` is given: in a fresh process, its growth counted above the
imported process (the kernel's high-water mark, mapped files left out), what is freed given back at once. The prediction
is made before, on the meta device. The last line is the shape whose prediction is farthest off, and the lowest ratio.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
from PIL import Image

from luodi.core.bundle import Bundle
from luodi.core.run import Run
from luodi.core.source import Data, rows_of
from luodi.core.thing import make

AMPLE = 16_000.0  # MB: a limit that no shape comes near
VIT = {
    "architecture": "ViTForImageClassification",
    "config": {
        "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024,
        "image_size": 64, "patch_size": 8, "num_channels": 3,
    },
}  # fmt: skip
# name -> (side and channels of pictures, or letters of texts; model; fields of train)
SHAPES: dict[str, tuple[tuple[int, int] | int, Any, dict[str, Any]]] = {
    "mlp, wide": ((28, 1), {"mlp": {"hidden": [4096, 4096]}}, {"batch_size": 64}),
    "mlp, sgd": ((28, 1), {"mlp": {"hidden": [4096, 4096, 4096]}}, {"batch_size": 256, "update": "sgd"}),
    "mlp, large batch": ((32, 3), {"mlp": {"hidden": [2048] * 4}}, {"batch_size": 4096}),
    "mlp, adafactor": ((28, 1), {"mlp": {"hidden": [6000, 6000]}}, {"batch_size": 32, "update": "adafactor"}),
    "convnet": ((28, 1), {"convnet": {"widths": [32, 64]}}, {"batch_size": 256}),
    "convnet, large batch": ((28, 1), {"convnet": {"widths": [64, 128]}}, {"batch_size": 1024, "update": "sgd"}),
    "convnet, colour": ((64, 3), {"convnet": {"widths": [32, 64, 128]}}, {"batch_size": 64, "augment": ["affine"]}),
    "convnet, accumulated": ((96, 3), {"convnet": {"widths": [32, 64, 128, 256]}}, {"batch_size": 32, "accumulate": 4}),
    "convnet, recomputed": ((64, 3), {"convnet": {"widths": [48, 96, 192]}}, {"batch_size": 128, "recompute": True}),
    "convnet, bf16": ((64, 3), {"convnet": {"widths": [32, 64, 128]}}, {"batch_size": 128, "precision": "bf16"}),
    "transformer": ((64, 3), {"pretrained_image": VIT}, {"batch_size": 64, "patience": 2}),
    "text transformer": (128, {"text_transformer": {"layers": 4, "width": 192, "heads": 4}}, {"batch_size": 64}),
    "bilstm": (100, {"bilstm": {}}, {"batch_size": 64}),
    "bilstm, large batch": (200, {"bilstm": {"width": 256}}, {"batch_size": 256}),
    "gpt": (96, {"gpt": {"layers": 4, "width": 128, "heads": 4, "context": 96}}, {"batch_size": 32}),
    "gpt, wide": (128, {"gpt": {"layers": 6, "width": 256, "heads": 4, "context": 128}}, {"batch_size": 32}),
}


def rows_for(side: int, channels: int, count: int) -> Any:
    """Pictures of noise, in ten classes."""
    dice, cells = np.random.default_rng(0), []
    shape = (side, side) if channels == 1 else (side, side, channels)
    for _ in range(32):
        stream = io.BytesIO()
        Image.fromarray(dice.integers(0, 256, shape, np.uint8)).save(stream, "PNG")
        cells.append(stream.getvalue())
    return rows_of({"image": [cells[at % 32] for at in range(count)], "label": [str(at % 10) for at in range(count)]})


def texts_for(letters: int, count: int) -> Any:
    """Texts of at most so many random letters, half of them shorter, in ten classes."""
    dice = np.random.default_rng(0)
    sizes = [letters if at % 2 else int(dice.integers(letters // 2, letters)) for at in range(count)]
    texts = ["".join(dice.choice(list(ascii_lowercase), size)) for size in sizes]
    return rows_of({"text": texts, "label": [str(at % 10) for at in range(count)]})


def measured(name: str, folder: Path) -> tuple[float, float]:
    """(predicted, real) MB of a shape."""
    size, model, fields = SHAPES[name]
    count = int(2.5 * fields["batch_size"] * fields.get("accumulate", 1))
    if isinstance(size, int):
        inputs: Any = {"text": {"text": {"tokens": "character", "length": size}}}
        rows = texts_for(size, max(count, 600))
    else:
        inputs = {"image": {"image": {"size": size[0], "channels": size[1]}}}
        rows = rows_for(*size, count)
    supervised = {"supervised": {"inputs": inputs, "targets": {"label": "category"}}}
    task: Any = make("tasks", {"language": {"inputs": inputs}} if "gpt" in model else supervised)
    count = len(rows)
    data = Data({"train": rows, "validation": rows.take(np.arange(64) % count)})
    config: Any = make("models", model)
    bundle = Bundle(task=task, config=config, data=data, facts=frozenset({"rows", "split", "loss"}))
    step: Any = make("steps", {"train": {"epochs": 1, "memory_mb": AMPLE, "ladder": [], **fields}})
    memory: Any = step(bundle, Run(folder, threads=1)).notes["memory"]
    return memory["predicted_mb"], memory["real_mb"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="shapes whose name contains this")
    given = parser.parse_args()
    found: dict[str, float] = {}
    for name in SHAPES:
        if not given.only or given.only in name:
            with tempfile.TemporaryDirectory() as folder:
                need, real = measured(name, Path(folder))
            found[name] = need / real
            print(f"{name:<22} predicted {need:8,.1f} MB, real {real:8,.1f} MB: ratio {need / real:.3f}", flush=True)
    worst = max(found, key=lambda name: abs(found[name] - 1))
    print(f"worst: {worst}, ratio {found[worst]:.3f}; lowest {min(found.values()):.3f}")


if __name__ == "__main__":
    main()
