"""What a text costs a model that foretells each token from those before it, in training and in an exam."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import exp, log
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from luodi.core.spec import Arrays

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("loss", "right", "tokens", "bytes")  # columns of an exam
BETTER: dict[str, Literal["higher", "lower"]] = {
    "loss": "lower", "perplexity": "lower", "bits_per_byte": "lower", "accuracy": "higher",
}  # fmt: skip
AT_ONCE = 2**26  # logits of one forward where no gradient is asked for: 268 MB in float32
LEFT_OUT = -100  # no token's id
KEPT = 2**24  # numbers of golden logits that are kept; of a large vocabulary, those of a few places


def losses(logits: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(summed losses, tokens) of each row, from logits (rows, time, vocabulary); the first token is given."""
    from torch.nn import functional

    # The truth is moved, not the logits: cutting their last place off would copy them all.
    there = functional.pad(mask[:, 1:], (0, 1)).to(logits.dtype)
    truth = functional.pad(ids[:, 1:], (0, 1)).masked_fill(there == 0, LEFT_OUT)
    found = functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), ignore_index=LEFT_OUT, reduction="none")
    return found.view(there.shape).sum(1), there.sum(1)


def pieces(arrays: Mapping[str, Any], vocabulary: int) -> Iterator[dict[str, Any]]:
    """The rows of a batch in pieces whose logits are at most AT_ONCE numbers, a row at least."""
    rows, length = next(iter(arrays.values())).shape[:2]
    count = rows_at_once(length, vocabulary)
    for start in range(0, rows, count):
        yield {name: array[start : start + count] for name, array in arrays.items()}


def rows_at_once(length: int, vocabulary: int) -> int:
    """How many rows of so many tokens a forward takes."""
    return max(AT_ONCE // max(length * vocabulary, 1), 1)


def scored(logits: np.ndarray, ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(summed losses, tokens foretold, tokens) of each row; the first token of a text is given."""
    logits, truth, there = logits[:, :-1], ids[:, 1:], mask[:, 1:].astype(np.float64)
    best = logits.max(axis=2, keepdims=True) if logits.shape[1] else logits
    sums = np.log(np.exp(logits - best).sum(axis=2, dtype=np.float64)) + best[..., 0]
    chosen = np.take_along_axis(logits, truth[..., None], axis=2)[..., 0]
    right = (logits.argmax(axis=2) == truth) if logits.shape[1] else there
    return ((sums - chosen) * there).sum(1), (right * there).sum(1), there.sum(1)


def values(columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Loss, perplexity, bits per byte and accuracy of the rows' columns `PARTS`."""
    sums = {part: float(columns[part].sum()) for part in PARTS}
    tokens = sums["tokens"] or float("nan")
    loss = sums["loss"] / tokens
    return {
        "loss": loss,
        "perplexity": exp(loss) if loss < 700 else float("inf"),
        "bits_per_byte": sums["loss"] / log(2) / (sums["bytes"] or float("nan")),
        "accuracy": sums["right"] / tokens,
    }


def kept(outputs: Arrays, name: str) -> Arrays:
    """The outputs, of a large vocabulary's logits `name` only a few places."""
    logits = outputs[name]
    most = max(2, KEPT // max(logits.shape[0] * logits.shape[2], 1))
    if logits.shape[1] <= most:
        return outputs
    places = np.linspace(0, logits.shape[1] - 1, most).astype(np.int64)
    return {**outputs, name: logits[:, places]}
