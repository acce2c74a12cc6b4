"""Answers by shared words: no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.span_heads import are_spans
from luodi.models.layers.words import texts_of

REACHES = (2.0, 4.0, 8.0, 16.0, 32.0)
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # of all tokens in contexts: those rarer than the rest may be answers
SURE = 10.0  # the logit of what is answered; all others are 0


class Overlap(nn.Module):
    """Answers with the run of rare words that stands nearest to words of the question: no network.

    Each token of the context that is in the question too shines on its neighbours with its rarity, up to `reach`
    tokens away, linearly less; the brightest token that is rare enough and not in the question is the answer, with
    its neighbours of that kind. The step `solve` counts rarities, log(texts / texts that hold it) / log(texts), and
    takes the reach and the least rarity that answer most training rows exactly.
    """

    rarity: Tensor  # (size,), 0..1
    reach: Tensor  # ()
    least: Tensor  # ()

    def __init__(self, inputs: dict[str, Spec], outputs: dict[str, Spec]) -> None:
        super().__init__()
        names = texts_of(inputs, "overlap")
        if len(names) != 1 or f"{names[0]}_part" not in inputs or not are_spans(outputs) or len(outputs) != 1:
            raise ValueError(f"overlap answers questions from a text: two texts as one row of tokens, got {names}")
        self.text, (self.target,) = names[0], outputs
        self.register_buffer("rarity", torch.ones(inputs[self.text].size))
        self.register_buffer("reach", torch.tensor(REACHES[0]))
        self.register_buffer("least", torch.tensor(0.5))

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        rare, alike = self._read(batch)
        found = self._answered(rare, alike, self.reach, self.least)
        places = torch.arange(rare.shape[1], device=rare.device)
        return {self.target: (places[None, :, None] == found[:, None, :]).to(rare.dtype) * SURE}

    def _read(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Rarity of the context's tokens, 0 elsewhere, and that of those that the question has; (batch, length)."""
        ids, part = batch[self.text], batch[f"{self.text}_part"] > 0
        asked = (batch[f"{self.text}_mask"] > 0) & ~part
        rare = self.rarity.index_select(0, ids.flatten()).unflatten(0, ids.shape) * part
        both = ((ids[:, :, None] == ids[:, None, :]) & asked[:, None, :]).any(2)
        return rare, rare * both

    def _answered(self, rare: Tensor, alike: Tensor, reach: Tensor, least: Tensor) -> Tensor:
        """The first and the last place of each answer, int64 (batch, 2); both 0 if nothing can be one."""
        places = torch.arange(rare.shape[1], device=rare.device)
        away = (places[:, None] - places[None, :]).abs().to(rare.dtype)
        light = alike @ (1 - away / (reach + 1)).clamp(min=0)
        fits = (rare >= least) & (rare > 0) & (alike == 0)
        best = torch.where(fits, light + 1e-3, 0.0).argmax(1, keepdim=True)
        before = torch.where(~fits & (places <= best), places, 0).amax(1)
        after = torch.where(~fits & (places >= best), places, rare.shape[1]).amin(1)
        best = best[:, 0]
        return torch.stack([torch.minimum(before + 1, best), torch.maximum(after - 1, best)], dim=1)

    @torch.no_grad()
    def solve(self, batches: Iterable[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]) -> dict[str, Any]:
        """Counts rarities, then tries every reach and rarity on all batches of (inputs, truth)."""
        held = torch.zeros_like(self.rarity)
        seen = torch.zeros_like(self.rarity)
        rows = 0
        for inputs, _ in batches:
            for ids, part in zip(inputs[self.text], inputs[f"{self.text}_part"], strict=True):
                own, counts = ids[part > 0].unique(return_counts=True)
                held[own] += 1
                seen[own] += counts
                rows += 1
        whole = torch.tensor(float(max(rows, 2)), device=held.device).log()
        self.rarity.copy_(1 - held.clamp(min=1).log() / whole)
        order = self.rarity.argsort()
        shares = seen[order].cumsum(0) / seen.sum().clamp(min=1)
        leasts = [self.rarity[order[int((shares < share).sum().clamp(max=len(order) - 1))]] for share in SHARES]
        right = torch.zeros(len(REACHES), len(leasts))
        for inputs, truth in batches:
            rare, alike = self._read(inputs)
            for at, reach in enumerate(REACHES):
                for to, least in enumerate(leasts):
                    found = self._answered(rare, alike, torch.full_like(self.reach, reach), least)
                    right[at, to] += (found == truth[self.target]).all(1).sum().cpu()
        at, to = divmod(int(right.argmax()), len(leasts))
        self.reach.fill_(REACHES[at])
        self.least.copy_(leasts[to])
        return {"rows": rows, "right": int(right.max()), "reach": REACHES[at], "least_rarity": float(self.least)}
