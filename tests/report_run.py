"""A run folder as the engine writes it, made without running anything: digits of scikit-learn, answers of a plain
linear model that is damaged a little more at every step."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from luodi.core import records
from luodi.core.bundle import Bundle
from luodi.core.evidence import Change, Evidence, Measure
from luodi.core.rows import Rows
from luodi.core.source import Data, Origin
from luodi.core.task import Exam
from luodi.core.thing import make

MACHINE = {
    "processor": "Example CPU 2.4 GHz", "cores": 2, "memory_gb": 8.2, "system": "Linux x86_64", "threads": 1,
    "python": "3.11.9", "device": "cpu", "torch": "2.13.0", "onnxruntime": "1.32.0", "openvino": "2026.4.0",
    "busy": False,
}  # fmt: skip
STEPS: list[tuple[str, str, dict[str, Any], float, float, float, float, float]] = [
    # name, form, fields, noise on the logits, p50, size, memory, seconds
    ("train", "torch", {"epochs": 10, "learning_rate": 0.001, "batch_size": 64}, 0.0, 0.812, 1.68, 41.2, 71.0),
    ("prune", "torch", {"sparsity": 0.5, "scope": "global"}, 0.5, 0.804, 1.68, 41.6, 0.4),
    ("quantize", "torch", {"weights": "int8", "activations": None}, 0.6, 1.37, 0.44, 44.0, 0.3),
    ("export", "onnx", {"to": "onnx", "activations": "float"}, 0.6, 0.214, 0.43, 18.3, 4.1),
    ("export", "openvino-int8", {"to": "openvino", "activations": "int8"}, 1.4, 0.171, 0.47, 61.9, 9.8),
]
WORDS = [
    ("trained 421,642 weights in 10 epochs",),
    ("only 50% of the weights changed", "no faster and no smaller: zeros are stored and multiplied like other numbers"),
    ("size 3.8 times smaller", "69% slower: weights are turned back into floats at every call"),
    ("6.4 times faster than the step before", "same answers as torch (drift 2e-6)"),
    ("20% faster", "memory 3.4 times larger: the runtime compiles its own copy"),
]


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32)


def digits(count: int = 1000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pictures (count, 8, 8), truths as text, logits (count, 10)) of held-out digits under a linear model."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    found = load_digits()
    model = LogisticRegression(max_iter=300, C=0.3).fit(found.data[count:] / 16, found.target[count:])
    return (
        found.images[:count],
        found.target[:count].astype(str),
        1.6 * model.decision_function(found.data[:count] / 16),
    )


def png(picture: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    image = Image.fromarray((255 - picture * 255 / 16).astype(np.uint8)).resize((28, 28), Image.Resampling.BICUBIC)
    image.save(out, "PNG")
    return out.getvalue()


def accuracy(right: np.ndarray, before: np.ndarray | None) -> Measure:
    dice = np.random.default_rng(0)
    draws = [dice.integers(0, len(right), len(right)) for _ in range(400)]
    low, high = np.percentile([right[d].mean() for d in draws], [2.5, 97.5])
    change = None
    verdict = None
    if before is not None:
        off = right.astype(float) - before
        c_low, c_high = np.percentile([off[d].mean() for d in draws], [2.5, 97.5])
        change = Change(value=off.mean(), low=c_low, high=c_high)
        verdict = "same" if not off.any() else "worse" if c_high < 0 else "better" if c_low > 0 else "undecided"
    return Measure(value=right.mean(), low=low, high=high, count=len(right), change=change, verdict=verdict)


def around(value: float, before: float | None, spread: float, count: int) -> Measure:
    change = verdict = None
    if before is not None:
        off = value - before
        change = Change(value=off, low=off - 2 * spread, high=off + 2 * spread)
        verdict = "better" if change.high < 0 else "worse" if change.low > 0 else "same" if spread == 0 else "undecided"
    return Measure(value=value, low=value - spread, high=value + spread, count=count, change=change, verdict=verdict)


def history(epochs: int = 10) -> list[dict[str, Any]]:
    dice = np.random.default_rng(3)
    lines = []
    for epoch in range(1, epochs + 1):
        loss = 1.9 * np.exp(-0.62 * epoch) + 0.05
        lines.append({
            "epoch": epoch, "train_loss": float(loss + dice.normal(0, 0.004)),
            "validation_loss": float(loss + 0.05 + 0.002 * epoch + dice.normal(0, 0.006)),
            "validation": {"label.accuracy": float(0.985 - 0.35 * np.exp(-0.7 * epoch) + dice.normal(0, 0.002))},
            "learning_rate": float(0.0005 * (1 + np.cos(np.pi * epoch / epochs))), "seconds": 7.1,
        })  # fmt: skip
    return lines


def write_run(folder: Path, *, labels: tuple[str, ...] | None = None, rehearsal: bool = False) -> Path:
    """A whole run folder; `labels` renames the ten classes."""
    pictures, truth, logits = digits()
    names = labels or tuple("0123456789")
    truth = np.asarray([names[int(t)] for t in truth], dtype=object)
    rows = Rows(pa.table({"image": [png(p) for p in pictures], "label": list(truth)}))
    rows.save(folder / "rows" / "test.arrow")
    evidence = [
        Evidence(step={"split": {"validation": 0.1, "test": 0.2, "stratify": "label", "seed": 0}}, name="split",
                 number=1, form="", notes={"rows": {"train": 3500, "validation": 500, "test": 1000}}, seconds=0.8,
                 words=("3,500 train, 500 validation, 1,000 test",), machine=MACHINE, rehearsal=rehearsal)
    ]  # fmt: skip
    before: dict[str, Any] = {}
    for place, (name, form, fields, noise, p50, size, memory, seconds) in enumerate(STEPS):
        dice = np.random.default_rng(7)
        chances = softmax(logits + noise * dice.normal(size=logits.shape))
        value = np.asarray(names, dtype=object)[chances.argmax(axis=1)]
        file = f"{place + 2}-{name}-{form}.parquet"
        columns = {"label.value": value, "label.truth": truth, "label.probabilities": chances}
        records.write(Exam(rows.ids, columns), folder / "records" / file)
        right = value == truth
        measures = {
            "label.accuracy": accuracy(right, before.get("right")),
            "p50_ms": around(p50, before.get("p50"), p50 * 0.012, 1200),
            "p95_ms": around(p50 * 1.4, before.get("p50", 0) * 1.4 or None, p50 * 0.05, 1200),
            "size_mb": around(size, before.get("size"), 0.0, 1),
            "memory_mb": around(memory, before.get("memory"), 0.7, 3),
            "process_mb": around(memory + 180, before["memory"] + 180 if before else None, 1.5, 3),
        }
        before = {"right": right, "p50": p50, "size": size, "memory": memory}
        evidence.append(
            Evidence(step={name: fields}, name=name, number=place + 2, form=form, measures=measures, words=WORDS[place],
                     touched=[1.0, 0.5, 1.0, None, None][place], rows=rows.fingerprint, machine=MACHINE, records=file,
                     notes={"history": history()} if name == "train" else {}, seconds=seconds, measuring=5.5,
                     rehearsal=rehearsal)
        )  # fmt: skip
    bundle_of(evidence, names).save(folder / "bundle")
    write_rest(folder, evidence[-1])
    return folder


def bundle_of(evidence: list[Evidence], labels: tuple[str, ...]) -> Bundle:
    """A bundle without weights: all that a report or a card reads."""
    targets = {"label": {"category": {"values": list(labels)}}}
    inputs = {"image": {"image": {"size": 28, "channels": 1}}}
    task: Any = make("tasks", {"supervised": {"inputs": inputs, "targets": targets}})
    config: Any = make("models", {"convnet": {"widths": [32, 64]}})
    origin = Origin({"sample": {"name": "digits"}}, "c0ffee" * 8)
    return Bundle(task=task, config=config, data=Data({}, origin), evidence=tuple(evidence))


def write_rest(folder: Path, last: Evidence) -> None:
    (folder / "recipe.yaml").write_text(RECIPE)
    judged = [("p50_ms", 0.5, "met"), ("size_mb", 1.0, "met"), ("memory_mb", 50.0, "missed")]
    limits = []
    for name, allowed, state in judged:
        m = last.measures[name]
        words = f"{name} is {m.value:.4g} ({m.low:.4g} to {m.high:.4g}), the limit {allowed:g}: "
        words += f"{state} by {abs(m.value - allowed):.3g} ({abs(m.value - allowed) / allowed:.0%} of the limit)"
        limits.append({"limit": name, "allowed": allowed, "value": m.value, "low": m.low, "high": m.high,
                       "state": state, "words": words})  # fmt: skip
    limits.append({
        "limit": "drop.accuracy", "allowed": 0.02, "value": 0.014, "low": 0.003, "high": 0.025, "state": "undecided",
        "words": "drop.accuracy is 0.014 (0.003 to 0.025), the limit 0.02: undecided; about 3,362 rows or calls would "
                 "settle it (there were 1,000)",
    })  # fmt: skip
    (folder / "limits.json").write_text(json.dumps(limits))
    events = [{"time": 1763820000.5 + 7 * k, "event": "epoch", "step": 2, "name": "train", **line}
              for k, line in enumerate(history(9))]  # fmt: skip
    events.append({"time": 1763820100.25, "event": "note", "step": 5, "name": "export", "text": "in fp32"})
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"torn": ')


RECIPE = """\
# resolved by luodi 0.1.0
name: digits
task:
  supervised:
    inputs: {image: {image: {size: 28, channels: 1}}}
    targets: {label: category}
data: {sample: {name: digits}}
model: {convnet: {widths: [32, 64]}}
steps:
  - split: {validation: 0.1, test: 0.2}
  - train: {epochs: 10, learning_rate: 0.001}
  - prune: {sparsity: 0.5}
  - quantize: {weights: int8}
  - export: {to: onnx}
  - export: {to: openvino, activations: int8}
limits: {p50_ms: 0.5, size_mb: 1, memory_mb: 50, drop: {accuracy: 0.02}}
seed: 0
threads: 1
"""
