"""Random slips in texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from luodi.train.loop.augments.writing.graphemes import Unit, changeable, class_of, pieces
from luodi.train.loop.slots import TextAugment

if TYPE_CHECKING:
    import numpy as np

Slip = Literal["replace", "insert", "repeat"]


class TextNoise(TextAugment):
    """Writes some characters or words of each text wrong: another in its place, one too many, the same one twice.

    What is put in comes from the batch's own texts and is of the same class: Han for Han, small letters for small ones,
    digits for digits. What a reader sees as one character stays one. Each piece takes three draws.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.05  # of the pieces that are no spaces, on average
    unit: Unit = "character"
    slips: Annotated[tuple[Slip, ...], Field(min_length=1)] = ("replace", "insert", "repeat")  # equally often

    def apply_text(self, values: Sequence[str], dice: np.random.Generator) -> list[str]:
        every = [pieces(text, self.unit) for text in values]
        seen: dict[str, dict[str, None]] = {}
        for piece in (piece for found in every for piece in found if changeable(piece)):
            seen.setdefault(class_of(piece), {})[piece] = None
        pools = {name: list(pool) for name, pool in seen.items()}
        return ["".join(self._wrong(found, pools, dice)) for found in every]

    def _wrong(self, found: list[str], pools: dict[str, list[str]], dice: np.random.Generator) -> list[str]:
        hit, which, other = (dice.random(len(found)).tolist() for _ in range(3))
        for place, piece in enumerate(found):
            if hit[place] < self.share and changeable(piece):
                pool = pools[class_of(piece)]
                drawn = pool[int(other[place] * len(pool))]
                slip = self.slips[int(which[place] * len(self.slips))]
                found[place] = drawn if slip == "replace" else piece + (drawn if slip == "insert" else piece)
        return found
