"""A model whose named inputs are one dictionary: exporters cannot free the axes of keyword arguments."""

from __future__ import annotations

from torch import Tensor, nn


class OneArgument(nn.Module):
    """Takes {name: tensor}, gives the named outputs as a tuple in a stated order."""

    def __init__(self, model: nn.Module, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        answers = self.model(**batch)
        return tuple(answers[name] for name in self.outputs)
