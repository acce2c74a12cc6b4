"""One block of a Transformer: attention, attention to another sequence if there is one, and a layer for each token."""

from __future__ import annotations

from math import sqrt
from typing import Literal

from torch import Tensor, nn

from luodi.models.layers.attention import Attention, CrossAttention, Pair
from luodi.models.layers.feed_forward import Activation, FeedForward, usual_hidden
from luodi.models.layers.positions import Turn

Norm = Literal["layer", "rms"]
SPREAD = 0.02  # standard deviation of first weights, as in GPT-2


class TransformerBlock(nn.Module):
    """Attention and a feed-forward layer, each added to what came in.

    The norm stands before each of them (`first`, as in GPT-2) or after the sum (as in arXiv 1706.03762). `cross` looks
    at a memory between the two. Takes and gives (batch, time, width); the second thing given are the keys and values
    of the tokens. `hidden` 0 is the usual width inside.
    """

    def __init__(
        self, width: int, heads: int, kv_heads: int | None = None, *, causal: bool, cross: bool = False,
        first: bool = True, norm: Norm = "layer", epsilon: float = 1e-5, hidden: int = 0, gated: bool = False,
        activation: Activation = "gelu", dropout: float = 0.0, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.first = first
        self.attention_norm = normed(width, norm, epsilon, bias)
        self.attention = Attention(width, heads, kv_heads, causal=causal, bias=bias, dropout=dropout)
        if cross:
            self.cross_norm = normed(width, norm, epsilon, bias)
            self.cross = CrossAttention(width, heads, kv_heads, bias=bias, dropout=dropout)
        self.feed_norm = normed(width, norm, epsilon, bias)
        inside = hidden or usual_hidden(width, gated)
        self.feed = FeedForward(width, inside, gated=gated, activation=activation, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, turn: Turn | None = None, mask: Tensor | None = None, past: Pair | None = None,
        held: Tensor | None = None, memory: Pair | None = None, memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, Pair]:  # fmt: skip
        found, pair = self.attention(self.attention_norm(x) if self.first else x, turn, mask, past, held)
        x = x + self.dropout(found)
        x = x if self.first else self.attention_norm(x)
        if memory is not None:
            found = self.cross(self.cross_norm(x) if self.first else x, memory, memory_mask)
            x = x + self.dropout(found)
            x = x if self.first else self.cross_norm(x)
        x = x + self.dropout(self.feed(self.feed_norm(x) if self.first else x))
        return (x if self.first else self.feed_norm(x)), pair


def normed(width: int, norm: Norm, epsilon: float, bias: bool) -> nn.Module:
    """Layer norm, or the root mean square alone (arXiv 1910.07467), which has no bias."""
    return nn.LayerNorm(width, epsilon, bias=bias) if norm == "layer" else nn.RMSNorm(width, epsilon)


def begin(model: nn.Module, blocks: int) -> None:
    """First weights as in GPT-2: normal of 0.02, biases 0; what is added to a residual path, of which `blocks` blocks
    make two sums each, is smaller by the square root of their number."""
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear | nn.Embedding) or layer.weight.is_meta:
            continue
        added = name.endswith((".out", ".feed.down"))
        nn.init.normal_(layer.weight, std=SPREAD / sqrt(2 * blocks) if added else SPREAD)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
