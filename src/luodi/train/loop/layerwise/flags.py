"""What is wrong with a layer, in words, with the threshold that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal

from luodi.train.loop.layerwise.look import Layer


@dataclass(frozen=True)
class Thresholds:
    """From where on a layer is flagged."""

    vanishing: float  # root mean square of a gradient, over that of the head
    exploding: float  # the same
    dead: float  # share of units that are zero for every row of a batch
    update: float  # norm of an update over the norm of the weights


@dataclass(frozen=True)
class Flag:
    """One finding about one layer."""

    layer: str
    what: Literal["vanish", "explode", "not finite", "dead", "large update"]
    value: float | None
    threshold: float | None
    text: str

    def facts(self) -> dict[str, Any]:
        """As it goes into the stream of events."""
        return asdict(self)


def flags_of(layers: Sequence[Layer], limits: Thresholds) -> list[Flag]:
    """Every layer's findings; the head is the last layer that has a gradient."""
    sloped = [layer for layer in layers if layer.slope is not None]
    found: list[Flag] = []
    for layer in sloped:
        found += _slope(layer, sloped[-1], limits)
    for layer in layers:
        found += _units(layer, limits)
    return found


def _slope(layer: Layer, head: Layer, limits: Thresholds) -> list[Flag]:
    assert layer.slope is not None and head.slope is not None
    name = layer.name
    if not isfinite(layer.slope):
        return [Flag(name, "not finite", None, None, f"gradients of {name} are not finite numbers")]
    if layer is head or not isfinite(head.slope) or not head.slope:
        return []
    ratio, of = layer.slope / head.slope, f"of those of the head ({head.name})"
    if ratio < limits.vanishing:
        text = f"gradients of {name} vanish: {ratio:.0e} {of}, under {limits.vanishing:g}"
        return [Flag(name, "vanish", ratio, limits.vanishing, text)]
    if ratio > limits.exploding:
        text = f"gradients of {name} explode: {ratio:.0e} {of}, over {limits.exploding:g}"
        return [Flag(name, "explode", ratio, limits.exploding, text)]
    return []


def _units(layer: Layer, limits: Thresholds) -> list[Flag]:
    found = []
    share = (layer.activations or {}).get("dead")
    if share is not None and share > limits.dead:
        text = (
            f"{share:.0%} of the units of {layer.name} are dead: zero for every row of a batch, over {limits.dead:.0%}"
        )
        found.append(Flag(layer.name, "dead", share, limits.dead, text))
    if layer.update is not None and layer.update > limits.update:
        text = f"one update moves {layer.name} by {layer.update:.0%} of its weights, over {limits.update:.0%}"
        found.append(Flag(layer.name, "large update", layer.update, limits.update, text))
    return found
