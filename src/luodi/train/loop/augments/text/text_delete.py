"""Random deletion in texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.augments.writing.graphemes import Unit, changeable, pieces
from luodi.train.loop.slots import TextAugment

if TYPE_CHECKING:
    import numpy as np


class TextDelete(TextAugment):
    """Leaves some words or characters of each text out; at least one stays (arXiv 1901.11196).

    A Han character is a word of its own, and what a reader sees as one character stays one. A word goes with one of the
    two spaces around it. Each piece takes one draw.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.1  # of the pieces that are no spaces, on average
    unit: Unit = "word"

    def apply_text(self, values: Sequence[str], dice: np.random.Generator) -> list[str]:
        return [self._shortened(text, dice) for text in values]

    def _shortened(self, text: str, dice: np.random.Generator) -> str:
        found = pieces(text, self.unit)
        draws = dice.random(len(found)).tolist()
        can = [place for place, piece in enumerate(found) if changeable(piece)]
        gone = {place for place in can if draws[place] < self.share}
        if gone and len(gone) == len(can):
            gone.remove(max(can, key=draws.__getitem__))
        if not gone:
            return text
        kept: list[str] = []
        after_gap = False  # a piece is gone since the last one kept
        for place, piece in enumerate(found):
            doubled = piece.isspace() and after_gap and (not kept or kept[-1].isspace())
            if place in gone:
                after_gap = True
            elif not doubled:
                kept.append(piece)
                after_gap = False
        return "".join(kept)
