"""Bags of features: which ones a row holds and how often, and linear layers solved for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# Runtimes may compute with integers as float32 (OpenVINO does), which is exact below 2^24: every product stays below.
# Together the factors keep neighbouring pairs of small ids about as far apart as buckets allow, for any power of two.
FACTORS = (21, 31)
MOST = 2**19  # buckets
STEP = 7919  # between n-grams of one length and of the next


class Bags(NamedTuple):
    """Rows of features one after the other, float64: those of row i start at `starts[i]`."""

    columns: Tensor  # int64 (entries,)
    values: Tensor  # float64 (entries,)
    starts: Tensor  # int64 (rows,)


def ngrams_of(ids: Tensor, mask: Tensor, lengths: Sequence[int], buckets: int, seed: int) -> Tensor:
    """The bucket of every run of so many tokens, int64 (batch, length x lengths); `buckets` where padding begins."""
    longest, length = max(lengths), ids.shape[1]
    ids, mask = (functional.pad(one, (0, longest - 1)) for one in (ids, mask))
    place = torch.full_like(ids[:, :length], seed % buckets)
    there = torch.ones_like(place)
    found = []
    for size in range(1, longest + 1):
        token = ids[:, size - 1 : size - 1 + length]
        place = (place * FACTORS[0] % buckets * FACTORS[1] + token) % buckets
        there = there * mask[:, size - 1 : size - 1 + length]
        if size in lengths:
            found.append(torch.where(there > 0, (place + size * STEP) % buckets, buckets))
    return torch.cat(found, dim=1)


def counted(places: Tensor, buckets: int) -> tuple[Tensor, Tensor]:
    """Distinct buckets of each row, int64 (batch, places), and how often each occurs; 0 times where there are no more.

    By sorting: equal ones lie side by side, and where a run begins tells how long the one before it was.
    """
    batch, width = places.shape
    ordered = ascending(places)
    begins = torch.cat([torch.ones_like(ordered[:, :1]), (ordered[:, 1:] != ordered[:, :-1]).to(places.dtype)], dim=1)
    at = torch.arange(width, device=places.device).expand(batch, width)
    past = at[:, -1:] + 1  # the width as a tensor: the exporter's arithmetic knows no free size as a number
    starts = ascending(torch.where(begins > 0, at, past))
    ends = torch.cat([starts[:, 1:], past], dim=1)
    found = ordered.gather(1, torch.minimum(starts, past - 1))
    there = (starts < past) & (found < buckets)
    return torch.where(there, found, 0), torch.where(there, ends - starts, 0)


def ascending(rows: Tensor) -> Tensor:
    """Each row sorted: as `topk`, because the exporter to ONNX does not know `sort`."""
    return rows.topk(rows.shape[1], dim=1, largest=False).values


def bags_of(columns: Sequence[Tensor], values: Sequence[Tensor]) -> Bags:
    """Batches of (batch, places) as one: entries of value 0 are left out."""
    kept = [
        (one[value != 0], value[value != 0], (value != 0).sum(1)) for one, value in zip(columns, values, strict=True)
    ]
    sizes = torch.cat([size for _, _, size in kept])
    return Bags(
        torch.cat([one for one, _, _ in kept]), torch.cat([value for _, value, _ in kept]).double(),
        sizes.cumsum(0) - sizes,
    )  # fmt: skip


def solved(bags: Bags, width: int, truth: Tensor, outputs: int, c: float) -> tuple[Tensor, Tensor]:
    """Weight (outputs, width) and bias (outputs,) that make c x summed loss + half the squared weights least.

    int64 truth (rows,): logistic regression, of two labels by one weight vector, half of it with each sign. Other
    truth (rows, outputs): squared error, half of it. L-BFGS in float64 (Liu and Nocedal 1989); columns that no row
    holds stay 0.
    """
    used, places = torch.unique(bags.columns, return_inverse=True)
    labels = not truth.is_floating_point()
    logits = 1 if labels and outputs == 2 else outputs
    weight = torch.zeros(len(used), logits, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(logits, dtype=torch.float64, requires_grad=True)
    update = torch.optim.LBFGS(
        [weight, bias], max_iter=1000, history_size=10, tolerance_grad=1e-6, tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )  # fmt: skip
    truth = truth if labels else truth.double()

    def objective() -> Tensor:
        update.zero_grad()
        scores = bias + functional.embedding_bag(
            places, weight, bags.starts, mode="sum", per_sample_weights=bags.values
        )
        # Divided by c x rows: the tolerances then mean the same for every number of rows.
        loss = _losses(scores, truth, outputs) / len(truth) + weight.square().sum() / (2 * c * len(truth))
        loss.backward()
        return loss

    update.step(objective)
    whole = torch.zeros(width, logits, dtype=torch.float64)
    whole[used] = weight.detach()
    bias = bias.detach()
    if labels and outputs == 2:
        whole, bias = torch.cat([-whole, whole], dim=1) / 2, torch.cat([-bias, bias]) / 2
    return whole.t().contiguous(), bias


def _losses(scores: Tensor, truth: Tensor, outputs: int) -> Tensor:
    if truth.is_floating_point():
        return (scores - truth).square().sum() / 2
    if outputs == 2:
        return functional.binary_cross_entropy_with_logits(scores[:, 0], truth.double(), reduction="sum")
    return functional.cross_entropy(scores, truth, reduction="sum")
