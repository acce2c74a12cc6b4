"""Counts of n-grams, weighed by rarity, and one linear layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.bags import MOST, bags_of, counted, ngrams_of, solved
from luodi.models.layers.ends import flat_width
from luodi.models.layers.words import texts_of


class TfIdf(nn.Module):
    """TF-IDF over hashed n-grams of tokens (Sparck Jones 1972), then one linear layer a target; solved, not trained.

    A text is its n-grams: how often each occurs, times log((1 + texts) / (1 + texts that hold it)) + 1, of length 1 in
    all. `ngrams` are the lengths, `features` the buckets that n-grams are hashed into (a power of two, at most 2^19);
    `sublinear` takes 1 + log(count) for the count. `c` is the strength of the data against that of the L2 penalty, as
    in scikit-learn. The step `solve` learns both; weights of n-grams that no training row holds stay 0. Of several
    texts every one has its own n-grams.
    """

    idf: Tensor  # (features,)

    def __init__(
        self,
        inputs: dict[str, Spec],
        outputs: dict[str, Spec],
        *,
        ngrams: tuple[int, ...] = (1, 2),
        features: int = 262_144,
        sublinear: bool = True,
        c: float = 3.0,
    ) -> None:
        super().__init__()
        if not ngrams or min(ngrams) < 1 or not c > 0:
            raise ValueError(f"tfidf: ngrams are at least 1, c is above 0, got {ngrams}, {c}")
        if not 2 <= features <= MOST or features.bit_count() != 1:
            raise ValueError(f"tfidf: features is a power of two, at most {MOST}, got {features}")
        self.names = texts_of(inputs, "tfidf")
        if odd := [name for name, spec in outputs.items() if spec.kind not in ("category", "number")]:
            raise ValueError(f"tfidf learns categories and numbers, got {outputs[odd[0]].kind} for {odd[0]}")
        self.ngrams, self.features, self.sublinear, self.c = tuple(ngrams), features, sublinear, c
        self.targets = sorted(outputs)
        self.register_buffer("idf", torch.ones(features))
        self.layers = nn.ModuleList(nn.Linear(features, flat_width(name, outputs[name])) for name in self.targets)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        places, frequencies = self.frequencies(batch)
        values = self.weighed(places, frequencies)
        found = {}
        for name, layer in zip(self.targets, self.layers, strict=True):
            weight: Any = layer.weight
            columns = weight.index_select(1, places.flatten()).unflatten(1, places.shape)
            found[name] = (columns * values).sum(2).t() + layer.bias
        return found

    def frequencies(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The distinct buckets of each row, int64 (batch, places), and how often it holds each, 0 beyond the last."""
        found = [
            ngrams_of(batch[name], batch[f"{name}_mask"], self.ngrams, self.features, 104_729 * place)
            for place, name in enumerate(self.names)
        ]
        places, counts = counted(torch.cat(found, dim=1), self.features)
        counts = counts.to(self.idf.dtype)
        return places, torch.where(counts > 0, 1 + counts.clamp(min=1).log(), 0.0) if self.sublinear else counts

    def weighed(self, places: Tensor, frequencies: Tensor) -> Tensor:
        """What `frequencies` gave, times rarity, each row of length 1."""
        values = frequencies * self.idf.index_select(0, places.flatten()).unflatten(0, places.shape)
        return values / values.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)

    @torch.no_grad()
    def solve(self, batches: Iterable[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]) -> dict[str, Any]:
        """Learns rarities and layers from all batches of (inputs, truth) at once; what it counted."""
        found, truths = [], []
        for inputs, truth in batches:
            found.append([one.cpu() for one in self.frequencies(inputs)])
            truths.append({name: one.cpu() for name, one in truth.items()})
        rows, held = sum(len(places) for places, _ in found), torch.zeros(self.features, dtype=torch.float64)
        for places, frequencies in found:
            held += torch.bincount(places[frequencies > 0], minlength=self.features)
        self.idf.copy_(((1 + rows) / (1 + held)).log() + 1)
        here = self.idf.device
        values = [self.weighed(places.to(here), one.to(here)).cpu() for places, one in found]
        bags = bags_of([places for places, _ in found], values)
        for name, layer in zip(self.targets, self.layers, strict=True):
            assert isinstance(layer, nn.Linear)
            truth = torch.cat([one[name] for one in truths])
            with torch.enable_grad():
                weight, bias = solved(bags, self.features, truth, layer.out_features, self.c)
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        return {"rows": rows, "ngrams": int((held > 0).sum()), "features": self.features}
