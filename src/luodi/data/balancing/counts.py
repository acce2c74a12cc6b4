"""How many rows of each label there are to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np


def weights(counts: Mapping[str, int], strength: float) -> dict[str, float]:
    """Label -> weight in the loss, mean 1 over the rows: count ** -strength, scaled.

    At strength 1 it is rows / (labels * count), so that every label weighs the same in all (King and Zeng 2001).
    """
    raw = {label: count**-strength for label, count in counts.items()}
    scale = sum(counts.values()) / sum(counts[label] * raw[label] for label in counts)
    return {label: value * scale for label, value in raw.items()}


def raised(counts: Mapping[str, int], strength: float) -> dict[str, int]:
    """Label -> rows wanted: at strength 1 as many as the most frequent has, at 0 what is there, between by powers."""
    most = max(counts.values())
    return {label: round(count * (most / count) ** strength) for label, count in counts.items()}


def lowered(counts: Mapping[str, int], strength: float) -> dict[str, int]:
    """Label -> rows wanted: at strength 1 as many as the rarest has."""
    least = min(counts.values())
    return {label: max(round(count * (least / count) ** strength), 1) for label, count in counts.items()}


def places_of(labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Label -> the numbers of its rows, ascending; labels in order."""
    return {label: np.flatnonzero(np.asarray(labels, object) == label) for label in sorted(Counter(labels))}


def drawn(places: np.ndarray, count: int, dice: np.random.Generator) -> np.ndarray:
    """`count` of these places, each as often as any other but for one."""
    whole, rest = divmod(count, len(places))
    return np.concatenate([np.repeat(places, whole), dice.permutation(places)[:rest]])
