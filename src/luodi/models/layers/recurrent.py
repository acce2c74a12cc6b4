"""Bidirectional recurrence over padded texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Recurrent(nn.Module):
    """Stacked bidirectional LSTM layers; equal to torch's over packed texts, and exportable with a free length.

    Takes (batch, length, width) and a mask (batch, length) whose ones come first; gives (batch, length, 2 x hidden).
    The backward direction reads each text from its last token, not from its padding.
    """

    def __init__(self, width: int, hidden: int, layers: int) -> None:
        super().__init__()
        widths = [width, *[2 * hidden] * (layers - 1)]
        self.ahead = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in widths)
        self.back = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in widths)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        turned = _turned(mask)
        for ahead, back in zip(self.ahead, self.back, strict=True):
            reverse = _taken(back(_taken(states, turned))[0], turned)
            states = torch.cat([ahead(states)[0], reverse], dim=2)
        return states


def _turned(mask: Tensor) -> Tensor:
    """The places of each text in reverse order, its padding where it was."""
    places = torch.arange(mask.shape[1], device=mask.device).unsqueeze(0)
    last = mask.sum(1, keepdim=True) - 1
    return torch.where(places <= last, last - places, places)


def _taken(states: Tensor, places: Tensor) -> Tensor:
    return states.gather(1, places.unsqueeze(-1).expand(-1, -1, states.shape[2]))
