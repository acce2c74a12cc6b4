"""The ends of networks that say where an answer begins and ends."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from luodi.core.spec import Spec


class SpanHeads(nn.Module):
    """One linear layer for each named output: states (batch, length, width) to (batch, length, 2), begin and end."""

    def __init__(self, width: int, outputs: Mapping[str, Spec]) -> None:
        super().__init__()
        self.names = sorted(outputs)
        self.layers = nn.ModuleList(nn.Linear(width, 2) for _ in self.names)

    def forward(self, states: Tensor) -> dict[str, Tensor]:
        return {name: layer(states) for name, layer in zip(self.names, self.layers, strict=True)}


def are_spans(outputs: Mapping[str, Spec]) -> bool:
    """Whether every output is a begin and an end for each token; ValueError where only some are."""
    found = {name: spec.kind == "sequence" and spec.shape[1:] == (2,) for name, spec in outputs.items()}
    if len(set(found.values())) > 1:
        raise ValueError(f"spans of a text ({', '.join(n for n, is_one in found.items() if is_one)}) are learned alone")
    return all(found.values())
