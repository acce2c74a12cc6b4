"""One input tells a network that reads another what to look for."""

from __future__ import annotations

from torch import Tensor, nn


class Modulation(nn.Module):
    """Feature-wise linear modulation (FiLM, arXiv 1709.07871): each channel of a map is scaled and shifted.

    Takes a map (batch, channels, height, width) and a vector (batch, width), gives a map. At first it changes nothing,
    so a pretrained network begins with its own features.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 2 * channels)
        if not self.layer.weight.is_meta:
            nn.init.zeros_(self.layer.weight)
            nn.init.zeros_(self.layer.bias)

    def forward(self, features: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.layer(vector)[:, :, None, None].chunk(2, dim=1)
        return features * (1 + scale) + shift
