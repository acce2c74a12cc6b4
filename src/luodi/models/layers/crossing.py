"""Two sequences that look at each other."""

from __future__ import annotations

from torch import Tensor, nn

from luodi.models.layers.attention import CrossAttention
from luodi.models.layers.feed_forward import FeedForward, usual_hidden


class Crossing(nn.Module):
    """Co-attention (ViLBERT, arXiv 1908.02265): each sequence takes its keys and values from the other one, then each
    goes through a layer of its own.

    Takes cells (batch, cells, width), tokens (batch, time, width) and a mask (batch, time), true at real tokens; gives
    both, each with what it has found added.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.cell_norm, self.token_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_tokens = CrossAttention(width, heads)
        self.to_cells = CrossAttention(width, heads)
        hidden = usual_hidden(width, False)
        self.cell_feed = nn.Sequential(nn.LayerNorm(width), FeedForward(width, hidden))
        self.token_feed = nn.Sequential(nn.LayerNorm(width), FeedForward(width, hidden))
        self.dropout = nn.Dropout(dropout)

    def forward(self, cells: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        seen, read = self.cell_norm(cells), self.token_norm(tokens)
        told = self.to_tokens(seen, self.to_tokens.read(read), mask)
        shown = self.to_cells(read, self.to_cells.read(seen))
        cells, tokens = cells + self.dropout(told), tokens + self.dropout(shown)
        return cells + self.dropout(self.cell_feed(cells)), tokens + self.dropout(self.token_feed(tokens))
