"""A small convolutional network."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.channels_last import ChannelsLast
from luodi.models.layers.ends import Gather, Heads

GRID = 7  # cells a side, at most about twice that, which the last feature map is averaged to before the linear layer


class ConvNet(nn.Module):
    """A small convolutional network for images: convolution, norm, pooling and rectifier in each block.

    `widths` are the blocks' channels; each block halves height and width. Other inputs join after the blocks. Raises
    ValueError when no input is an image or an image is too small.
    """

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        widths: tuple[int, ...] = (32, 64),
        hidden: int = 64,
        dropout: float = 0.2,
        norm: Literal["batch", "group", "none"] = "batch",
    ) -> None:
        super().__init__()
        images = {name: inputs[name] for name in sorted(inputs) if inputs[name].kind == "image"}
        if not images:
            raise ValueError(f"convnet needs an image input, got {_kinds(inputs)}; use mlp for tables")
        if not widths or min(*widths, hidden) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"convnet: widths {widths} and hidden {hidden} are at least 1, dropout {dropout} in [0, 1)"
            )
        self.names = list(images)
        self.trunks = nn.ModuleList(_trunk(name, spec, widths, norm) for name, spec in images.items())
        others = {name: spec for name, spec in inputs.items() if name not in images}
        self.others = Gather(others) if others else None
        width = sum(_cells(spec, len(widths)) * widths[-1] for spec in images.values())
        self.hidden = nn.Linear(width + (self.others.width if self.others else 0), hidden)
        self.rectifier = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.heads = Heads(hidden, outputs)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        columns = [trunk(batch[name]) for name, trunk in zip(self.names, self.trunks, strict=True)]
        if self.others is not None:
            columns.append(self.others(batch))
        vector = columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)
        return self.heads(self.dropout(self.rectifier(self.hidden(vector))))


def _trunk(name: str, spec: Spec, widths: tuple[int, ...], norm: str) -> nn.Sequential:
    channels, height, width = (int(side) for side in spec.shape)
    if min(height, width) >> len(widths) < 1:
        raise ValueError(f"convnet: {name} of {height} x {width} pixels is too small for {len(widths)} halvings")
    layers: list[nn.Module] = []
    for before, after in pairwise((channels, *widths)):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=norm == "none"))
        if len(layers) == 1:
            layers.append(ChannelsLast())  # not before: an image of one channel has both layouts at once
        if norm != "none":
            layers.append(nn.BatchNorm2d(after) if norm == "batch" else nn.GroupNorm(min(8, after), after))
        # The maximum and the rectifier may change places, and the rectifier is cheaper on a quarter of the pixels.
        layers += [nn.MaxPool2d(2), nn.ReLU()]
    window = _window(spec, len(widths))
    if window != (1, 1):
        layers.append(nn.AvgPool2d(window))
    return nn.Sequential(*layers, nn.Flatten())


def _window(spec: Spec, halvings: int) -> tuple[int, int]:
    """The averaging that keeps the linear layer small for large images."""
    height, width = (int(side) >> halvings for side in spec.shape[1:])
    return max(height // GRID, 1), max(width // GRID, 1)


def _cells(spec: Spec, halvings: int) -> int:
    height, width = (int(side) >> halvings for side in spec.shape[1:])
    down, across = _window(spec, halvings)
    return (height // down) * (width // across)


def _kinds(inputs: dict[str, Spec]) -> str:
    return ", ".join(f"{name} ({spec.kind})" for name, spec in inputs.items())
