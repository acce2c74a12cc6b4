"""A weight as integers on a grid, and how a layer comes by them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from luodi.compress.calibration.matrix import matrix_of, weight_of
from luodi.compress.calibration.targets import corrected
from luodi.compress.calibration.walk import Calibration, Order, holding, walk
from luodi.compress.quantization.awq import awq
from luodi.compress.quantization.gptq import Columns, gptq
from luodi.compress.quantization.grids import Grid, Lines

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.compress.calibration.sums import Sums
    from luodi.models.layers.stored.stores import Rounded

By = Literal["nearest", "gptq", "awq", "corrected"]


@dataclass(frozen=True)
class Codes:
    """integers (P, R, C) on a grid; `columns` (C,) were multiplied by these before."""

    grid: Grid
    integers: Tensor
    lines: Lines
    columns: Tensor | None = None

    def real(self) -> Tensor:
        """The numbers that they stand for, (P, R, C)."""
        found = self.grid.real(self.integers, self.lines)
        return found if self.columns is None else found / self.columns

    def into(self, store: Rounded) -> None:
        """Fills a store of the same grid."""
        scale, zero = (line.reshape(-1, line.shape[2]) for line in self.lines)
        columns = self.columns
        if store.columns is not None and columns is None:
            columns = store.columns.new_ones(store.width)
        integers = self.integers.reshape(-1, store.width)
        store.fill(integers, scale, None if store.zero is None else zero, columns)


def nearest(matrix: Tensor, grid: Grid) -> Codes:
    """Every number (P, R, C) to the nearest one of a grid that spans its group."""
    lines = grid.fitted(matrix)
    return Codes(grid, grid.integers(matrix, lines), lines)


def calibrated(
    model: nn.Module, names: Mapping[str, nn.Module], calibration: Calibration, grid: Grid, by: By, columns: Columns,
    order: Order,
) -> tuple[dict[int, Codes], list[str]]:  # fmt: skip
    """(id of a layer -> its codes, names of layers that no row reached); weights become what their codes stand for."""
    import torch

    whole = deepcopy(model) if by == "corrected" and order != "once" else None
    weights: dict[str, Any] = {name: layer.weight for name, layer in names.items()}
    found: dict[int, Codes] = {}
    unseen: list[str] = []
    with torch.no_grad():
        for name, sums in walk(calibration, model, holding(model, weights), products=True, order=order, whole=whole):
            layer, weight = names[name], weights[name]
            matrix = matrix_of(layer, weight).float()
            codes = nearest(matrix, grid) if sums.products is None else _by(by, matrix, sums, grid, columns)
            unseen += [name] if sums.products is None else []
            found[id(layer)] = codes
            weight.copy_(weight_of(layer, codes.real(), tuple(weight.shape)))
    return found, unseen


def _by(by: By, matrix: Tensor, sums: Sums, grid: Grid, columns: Columns) -> Codes:
    assert sums.products is not None and sums.sizes is not None
    if by == "gptq":
        return Codes(grid, *gptq(matrix, sums.products, grid, columns))
    if by == "corrected":
        return Codes(grid, *gptq(corrected(matrix, sums), sums.products, grid, "largest", zero=matrix == 0))
    factors = awq(matrix, sums.products, sums.sizes, grid)
    scaled = nearest(matrix * factors, grid)
    return Codes(grid, scaled.integers, scaled.lines, factors)
