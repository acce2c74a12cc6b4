"""Early stopping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from luodi.core.weights import fill, plain_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from luodi.train.loop.validation import Checked


class Patience:
    """Remembers the best weights and ends the training when `epochs` in a row brought nothing better (None: never).

    `watch`: the validation loss, or the main metric with the lower loss breaking ties.
    """

    def __init__(
        self, epochs: int | None, watch: Literal["loss", "metric"], metrics: Mapping[str, Literal["higher", "lower"]]
    ) -> None:
        self.epochs, self.watch = epochs, watch
        self.main = next(iter(metrics.items()), None)
        self.best: list[float] | None = None  # the higher the better, compared from left to right
        self.epoch = 0  # the best one, from 1
        self.since = 0  # epochs since then
        self.weights: dict[str, Tensor] = {}

    def hear(self, checked: Checked, epoch: int, model: nn.Module) -> None:
        """Notes the check after `epoch`."""
        if self.epochs is None:
            return
        score = self._score(checked)
        if self.best is None or score > self.best:
            self.best, self.epoch, self.since = score, epoch, 0
            self.weights = {name: tensor.clone() for name, tensor in plain_tensors(model)[0].items()}
        else:
            self.since += 1

    def _score(self, checked: Checked) -> list[float]:
        if self.watch == "loss" or self.main is None:
            return [-checked.loss]
        name, better = self.main
        return [checked.metrics[name] if better == "higher" else -checked.metrics[name], -checked.loss]

    @property
    def over(self) -> bool:
        return self.epochs is not None and self.since >= self.epochs

    def restore(self, model: nn.Module, path: Path) -> None:
        """Puts the best weights back."""
        if self.weights:
            fill(model, self.weights, plain_tensors(model)[1], path)
