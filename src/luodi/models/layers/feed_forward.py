"""The part of a Transformer block that looks at each token alone."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["gelu", "gelu_tanh", "relu"]


class FeedForward(nn.Module):
    """Two linear layers with an activation between; or gated, silu(a) * b of one wider layer (arXiv 2002.05202)."""

    def __init__(
        self, width: int, hidden: int, *, gated: bool = False, activation: Activation = "gelu", bias: bool = True
    ) -> None:
        super().__init__()
        self.gated, self.activation = gated, activation
        self.up = nn.Linear(width, 2 * hidden if gated else hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.up(x)
        if self.gated:
            gate, value = wide.chunk(2, dim=-1)
            return self.down(functional.silu(gate) * value)
        if self.activation == "relu":
            return self.down(functional.relu(wide))
        return self.down(functional.gelu(wide, approximate="tanh" if self.activation == "gelu_tanh" else "none"))


def usual_hidden(width: int, gated: bool) -> int:
    """Four times the width; gated two thirds of that, up to a multiple of 32, so that both have as many weights."""
    return -(-8 * width // 3 // 32) * 32 if gated else 4 * width
