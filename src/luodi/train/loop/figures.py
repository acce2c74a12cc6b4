"""The numbers of one event of a training, named as trackers show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from typing import Any

TICK = {"loss": "train/loss", "learning_rate": "train/learning_rate", "examples_a_second": "speed/examples_a_second",
        "memory_mb": "memory/process_mb", "device_mb": "memory/device_mb"}  # fmt: skip
EPOCH = {"train_loss": "epoch/train_loss", "validation_loss": "validation/loss", "seconds": "epoch/seconds"}
Keep = Callable[[int, Mapping[str, float]], object]  # (updates done, numbers by name)


class Figures:
    """A listener that hands the numbers of every event on, each with the update it belongs to."""

    def __init__(self, keep: Keep) -> None:
        self.keep, self.done = keep, 0

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        """Nothing is handed on for an event without numbers."""
        self.done = int(facts.get("done", facts.get("update", self.done)))
        found = {name: float(value) for name, value in named(event, facts) if value is not None and isfinite(value)}
        if found:
            self.keep(self.done, found)


def named(event: str, facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of the numbers of an event: "progress", "epoch" or "layers"."""
    names = {"progress": TICK, "epoch": EPOCH}.get(event, {})
    yield from ((name, facts[key]) for key, name in names.items() if key in facts)
    if event == "epoch":
        yield from ((f"validation/{name}", value) for name, value in facts["validation"].items())
    if event == "layers":
        for layer in facts["layers"]:
            for part in ("weights", "gradients", "activations"):
                yield from ((f"layers/{layer['name']}/{part}.{k}", v) for k, v in (layer.get(part) or {}).items())
            yield f"layers/{layer['name']}/update", layer.get("update")
