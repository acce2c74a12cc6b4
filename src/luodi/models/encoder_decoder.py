"""A Transformer that reads one text and writes another."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.attention import Pair, checked_heads
from luodi.models.layers.int8_embedding import tied_product
from luodi.models.layers.placed import Placed, turning_width
from luodi.models.layers.positions import places_of, rotation
from luodi.models.layers.reading import Reading
from luodi.models.layers.transformer_block import TransformerBlock, begin, normed


class EncoderDecoder(nn.Module):
    """A Transformer that reads a source in both directions and writes a target after it (arXiv 1706.03762).

    Inputs are two tokens (batch, time) int64: the target, named as the output, and the source with its mask (1 at real
    tokens) if it is padded; logits (batch, time, vocabulary). `past` and `start` hold target tokens as in `gpt`.
    `memory` (batch, layers, 2, kv_heads, source, head width), which `read` and a forward without a target make, stands
    for the source: it is read once for all steps; the mask is given still. `first` puts norms before their layers, else
    after the sums. Raises ValueError for other inputs.
    """

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        layers: int = 2,
        width: int = 128,
        heads: int = 4,
        kv_heads: int | None = None,
        context: int = 256,
        positions: Literal["learned", "rotary", "sinusoidal"] = "sinusoidal",
        norm: Literal["layer", "rms"] = "layer",
        first: bool = True,
        gated: bool = False,
        dropout: float = 0.1,
        tied: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.source, self.target = _languages(inputs, outputs)
        self.mask = f"{self.source}_mask" if f"{self.source}_mask" in inputs else None
        if min(layers, context) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"encoder_decoder: layers {layers} and context {context} are at least 1, dropout {dropout} in [0, 1)"
            )
        longest = max(inputs[name].most for name in (self.source, self.target))
        if positions == "learned" and longest > context:
            raise ValueError(
                f"encoder_decoder: learned positions reach to context {context}, texts to {longest} tokens"
            )
        _, kept = checked_heads(width, heads, kv_heads)
        self.turning, self.tied, size = turning_width(width, heads, positions), tied, outputs[self.target].size
        self.encoder = Reading(
            inputs[self.source].size, layers=layers, width=width, heads=heads, kv_heads=kv_heads, context=context,
            positions=positions, norm=norm, first=first, gated=gated, dropout=dropout, bias=bias,
        )  # fmt: skip
        self.placed = Placed(size, width, positions, context, dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width, heads, kv_heads, causal=True, cross=True, first=first, norm=norm, gated=gated, dropout=dropout,
                bias=bias,
            )
            for _ in range(layers)
        )  # fmt: skip
        self.norm = normed(width, norm, 1e-5, bias) if first else nn.Identity()
        if not tied:
            self.heads = nn.Linear(width, size, bias=False)
        self.shape, self.read_axis = (layers, 2, kept, "held", width // heads), inputs[self.source].shape[0]
        begin(self, layers)
        self._begin()

    @property
    def states(self) -> dict[str, tuple[Spec, str]]:
        """State input -> (its spec, the output that is appended to it along "held")."""
        return {"past": (Spec(kind="state", shape=self.shape), "new")}

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs that are read once for all steps."""
        return (self.source, *([self.mask] if self.mask else []))

    @property
    def memories(self) -> dict[str, Spec]:
        """What `read` makes of the source and the forward takes in its place, the same at every step."""
        shape = tuple(self.read_axis if side == "held" else side for side in self.shape)
        return {"memory": Spec(kind="state", shape=shape)}

    def read(self, **batch: Tensor) -> dict[str, Tensor]:
        """{"memory": keys and values of the source for each block of the decoder}."""
        pairs = [part for pair in self._pairs(batch) for part in pair]
        return {"memory": torch.stack(pairs, dim=1).unflatten(1, (len(self.blocks), 2))}

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        if self.target not in batch:
            return self.read(**batch)
        tokens, past, start = batch[self.target], batch.get("past"), batch.get("start")
        if past is not None and past.shape[4] == 0:
            past, start = None, None  # nothing is held: the fused way
        places = places_of(tokens, start if past is not None else None)
        x = self.placed(tokens, places)
        turn = rotation(places, self.turning, 10000.0) if self.turning else None
        mask, pairs = self._mask(batch), []
        for place, (block, memory) in enumerate(zip(self.blocks, self._pairs(batch), strict=True)):
            held = None if past is None else (past[:, place, 0], past[:, place, 1])
            x, pair = block(x, turn, past=held, held=start, memory=memory, memory_mask=mask)
            pairs.extend(pair)
        x = self.norm(x)
        answers = {self.target: tied_product(x, self.placed.tokens) if self.tied else self.heads(x)}
        if "past" in batch:
            answers["new"] = torch.stack(pairs, dim=1).unflatten(1, (len(self.blocks), 2))
        return answers

    def _pairs(self, batch: dict[str, Tensor]) -> list[Pair]:
        """Keys and values of the source for each block: as given, or read now."""
        if "memory" in batch:
            return [(layer[:, 0], layer[:, 1]) for layer in batch["memory"].unbind(1)]
        encoded = self.encoder(batch[self.source], self._mask(batch))
        return [cast(TransformerBlock, block).cross.read(encoded) for block in self.blocks]

    def _begin(self) -> None:
        """First weights as large as the width wants them (Glorot and Bengio 2010). With GPT-2's 0.02 what comes from
        the source is so little that it takes hundreds of updates until it is looked at."""
        for layer in self.modules():
            if isinstance(layer, Placed):
                layer.begin()
            elif isinstance(layer, nn.Linear) and not layer.weight.is_meta:
                nn.init.xavier_uniform_(layer.weight)

    def _mask(self, batch: dict[str, Tensor]) -> Tensor | None:
        return None if self.mask is None else batch[self.mask] > 0


def _languages(inputs: dict[str, Spec], outputs: dict[str, Spec]) -> tuple[str, str]:
    """(source, target); ValueError unless two texts come in, of which one is written."""
    texts = [name for name, spec in inputs.items() if spec.kind == "tokens"]
    others = {name: spec.kind for name, spec in inputs.items() if name not in texts}
    told = ", ".join(f"{name} ({spec.kind})" for name, spec in inputs.items()) or "none"
    if len(texts) != 2 or list(outputs) not in ([texts[0]], [texts[1]]):
        raise ValueError(f"encoder_decoder takes two tokens and writes one of them, got {told} and {list(outputs)}")
    (target,) = outputs
    (source,) = set(texts) - {target}
    if any(kind != "mask" or name not in (f"{source}_mask", f"{target}_mask") for name, kind in others.items()):
        raise ValueError(f"encoder_decoder takes {source}, {target} and their masks, got {told}")
    size = inputs[target].size
    if outputs[target].kind != "tokens" or outputs[target].size != size or outputs[target].shape[-1:] != (size,):
        raise ValueError(f"encoder_decoder answers {target} as tokens ('length', {size}), got {outputs[target].shape}")
    return source, target
