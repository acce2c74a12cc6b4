"""Texts made from a seed alone, covering what people send: golden requests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Lengths, scripts and signs that have broken systems: each of these is in every set of golden requests.
ODD = (
    "",
    "Ｆｕｌｌ　ｗｉｄｔｈ　１２３，全角标点！",
    "繁體中文與简体中文混排，mixed with English words.",
    "\N{FAMILY}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL} 👍🏽 emoji 😀😀",
    "cafe\N{COMBINING ACUTE ACCENT} naïve ﬁne\ttabs\nand lines",
)
LONG = 6  # times the length that a field keeps


def made(count: int, seed: int, units: Sequence[str], length: int, glue: str) -> list[str]:
    """`count` texts: the odd ones, one too long, the others of 1 to `length` units drawn from the seed."""
    dice = np.random.Generator(np.random.PCG64(seed))
    found: list[str] = []
    for index in range(count):
        if index % 8 < len(ODD):
            found.append(ODD[index % 8])
            continue
        most = min(length, 64)
        size = length * LONG if index % 16 == len(ODD) else int(dice.integers(1, most + 1))
        found.append(glue.join(units[place] for place in dice.integers(0, len(units), size)) if units else "a" * size)
    return found
