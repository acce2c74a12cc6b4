"""Random masking of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.augments.writing.graphemes import Unit, changeable, pieces
from luodi.train.loop.slots import TextAugment

if TYPE_CHECKING:
    import numpy as np


class TextMask(TextAugment):
    """Puts a mask in the place of some words or characters of each text.

    A Han character is a word of its own, and what a reader sees as one character stays one; spaces stay. Each piece
    takes one draw.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.1  # of the pieces that are no spaces, on average
    unit: Unit = "word"
    mask: str = "[MASK]"  # as the text field's tokenizer knows it

    def apply_text(self, values: Sequence[str], dice: np.random.Generator) -> list[str]:
        return [self._masked(text, dice) for text in values]

    def _masked(self, text: str, dice: np.random.Generator) -> str:
        found = pieces(text, self.unit)
        hit = dice.random(len(found)) < self.share
        return "".join(
            self.mask if now and changeable(piece) else piece for piece, now in zip(found, hit.tolist(), strict=True)
        )
