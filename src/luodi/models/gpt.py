"""A language model from scratch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.attention import checked_heads
from luodi.models.layers.feed_forward import usual_hidden
from luodi.models.layers.int8_embedding import tied_product
from luodi.models.layers.placed import Placed, turning_width
from luodi.models.layers.positions import places_of, rotation
from luodi.models.layers.transformer_block import TransformerBlock, begin, normed
from luodi.models.layers.words import language_of


class GPT(nn.Module):
    """A decoder-only Transformer that says what comes next, in the manner of GPT-2 or of Llama.

    One input of tokens (batch, time) int64, and logits (batch, time, vocabulary) under the same name; a mask beside it
    is not needed, since what is padded comes last. `kv_heads` below `heads` shares keys and values, `gated` is SwiGLU
    and has no `activation`; `hidden` 0 is 4 times the width, gated 8/3. GPT-2 has gelu_tanh, which takes longer.
    `tied` uses the table of tokens for the logits too. With `past` (batch, layers, 2, kv_heads, held, head width), of
    which the first `start` (batch,) of each row are real, the tokens come after these, and `new` holds their own keys
    and values. `last` (batch,) asks for the logits of one place of each row alone. Raises ValueError for other inputs.
    """

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        layers: int = 4,
        width: int = 128,
        heads: int = 4,
        kv_heads: int | None = None,
        context: int = 256,
        positions: Literal["learned", "rotary", "sinusoidal"] = "learned",
        norm: Literal["layer", "rms"] = "layer",
        gated: bool = False,
        activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu",
        dropout: float = 0.0,
        tied: bool = True,
        bias: bool = False,
        hidden: int = 0,
        theta: float = 10000.0,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.name, size = language_of(inputs, outputs, "gpt")
        if min(layers, context) < 1 or not 0 <= dropout < 1 or hidden < 0:
            raise ValueError(f"gpt: layers {layers} and context {context} are at least 1, dropout {dropout} in [0, 1)")
        _, kept = checked_heads(width, heads, kv_heads)
        self.turning, self.context = turning_width(width, heads, positions), context
        self.theta, self.tied = theta, tied
        self.placed = Placed(size, width, positions, context, dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width, heads, kv_heads, causal=True, norm=norm, epsilon=epsilon, hidden=hidden, gated=gated,
                activation=activation, dropout=dropout, bias=bias,
            )
            for _ in range(layers)
        )  # fmt: skip
        self.norm = normed(width, norm, epsilon, bias)
        if not tied:
            self.heads = nn.Linear(width, size, bias=False)
        self.shape = (layers, 2, kept, "held", width // heads)
        self.figures = {
            "layers": layers, "width": width, "heads": heads, "kv_heads": kept, "context": context,
            "positions": positions, "norm": norm, "gated": gated, "activation": activation, "dropout": dropout,
            "tied": tied, "bias": bias, "hidden": hidden or usual_hidden(width, gated), "theta": theta,
            "epsilon": epsilon,
        }  # fmt: skip
        begin(self, layers)

    @property
    def states(self) -> dict[str, tuple[Spec, str]]:
        """State input -> (its spec, the output that is appended to it along "held")."""
        return {"past": (Spec(kind="state", shape=self.shape), "new")}

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        tokens, past, start = batch[self.name], batch.get("past"), batch.get("start")
        if past is not None and past.shape[4] == 0:
            past, start = None, None  # nothing is held: the fused way
        places = places_of(tokens, start if past is not None else None)
        x = self.placed(tokens, places)
        turn = rotation(places, self.turning, self.theta) if self.turning else None
        pairs = []
        for place, block in enumerate(self.blocks):
            held = None if past is None else (past[:, place, 0], past[:, place, 1])
            x, pair = block(x, turn, past=held, held=start)
            pairs.extend(pair)
        x = self.norm(x if "last" not in batch else x[torch.arange(len(x), device=x.device), batch["last"]][:, None])
        answers = {self.name: tied_product(x, self.placed.tokens) if self.tied else self.heads(x)}
        if "past" in batch:
            answers["new"] = torch.stack(pairs, dim=1).unflatten(1, (len(self.blocks), 2))
        return answers
