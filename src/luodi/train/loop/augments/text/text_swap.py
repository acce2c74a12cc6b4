"""Random swaps in texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.augments.writing.graphemes import Unit, changeable, pieces
from luodi.train.loop.slots import TextAugment

if TYPE_CHECKING:
    import numpy as np


class TextSwap(TextAugment):
    """Lets some words or characters of each text change places with one nearby (arXiv 1901.11196, within reach).

    Nothing is made or lost, spaces stay where they are, and no piece moves twice. A Han character is a word of its own,
    and what a reader sees as one character stays one. Each piece takes two draws.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.1  # of the pieces that begin a swap, on average
    unit: Unit = "word"
    reach: Annotated[int, Field(ge=1, le=1000)] = 1  # how many pieces away the other one is at most

    def apply_text(self, values: Sequence[str], dice: np.random.Generator) -> list[str]:
        return [self._swapped(text, dice) for text in values]

    def _swapped(self, text: str, dice: np.random.Generator) -> str:
        found = pieces(text, self.unit)
        places = [place for place, piece in enumerate(found) if changeable(piece)]
        hit = (dice.random(len(places)) < self.share).tolist()
        away = dice.integers(1, self.reach + 1, len(places)).tolist()
        moved: set[int] = set()
        for at, now in enumerate(hit):
            other = at + away[at]
            if now and other < len(places) and not {at, other} & moved:
                here, there = places[at], places[other]
                found[here], found[there] = found[there], found[here]
                moved |= {at, other}
        return "".join(found)
