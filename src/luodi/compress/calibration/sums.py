"""Sums over what a layer was given: all that data-aware compression wants of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Axes as in matrix.py: P parts, C columns; N rows of inputs.


@dataclass
class Sums:
    """Over the N inputs x of a layer, and the inputs y that the whole model gives it in their place.

    `squares` (P, C): of x by column, `sizes` of |x|. `products` (P, C, C): x^T x. `crossed` (P, C, C): y^T x,
    None where the two are the same.
    """

    count: int = 0
    squares: Tensor | None = None
    sizes: Tensor | None = None
    products: Tensor | None = None
    crossed: Tensor | None = None

    def add(self, seen: Tensor, *, products: bool, whole: Tensor | None = None) -> None:
        """`seen` (P, N, C), and `whole` of the same shape."""
        seen = seen.float()
        self.count += seen.shape[1]
        self.squares = _more(self.squares, seen.square().sum(1))
        self.sizes = _more(self.sizes, seen.abs().sum(1))
        if products:
            self.products = _more(self.products, seen.mT @ seen)
        if products and whole is not None:
            self.crossed = _more(self.crossed, whole.float().mT @ seen)


def _more(sums: Tensor | None, found: Tensor) -> Tensor:
    return found if sums is None else sums.add_(found)
