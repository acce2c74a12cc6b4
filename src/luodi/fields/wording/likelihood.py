"""Perplexity and bits per byte: what a model's text costs, per token and per byte of it.

A perplexity hangs on the tokens it is counted in; bits per byte compare models of any vocabulary (arXiv 2101.00027).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def counts(nats: np.ndarray, tokens: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """(rows, 3) float64: the summed negative log-likelihood in nats, tokens that it is of, UTF-8 bytes of those tokens.

    `nats` and `tokens` (rows,). `texts` holds what was predicted: without a prompt, without what was cut off.
    """
    # A lone half of a pair (Python takes it, UTF-8 does not) is as long as any other code unit of its plane.
    sizes = [len(text.encode("utf-8", "surrogatepass")) for text in texts]
    return np.stack([np.asarray(nats, np.float64), np.asarray(tokens, np.float64), np.asarray(sizes, np.float64)], 1)


def perplexity(total: np.ndarray) -> float:
    """exp of the mean nats per token, 1 or more, of summed counts; NaN without tokens, infinite where it overflows."""
    with np.errstate(over="ignore"):
        return float(np.exp(total[0] / total[1])) if total[1] else float("nan")


def bits_per_byte(total: np.ndarray) -> float:
    """Bits that a byte of the text costs, of summed counts; NaN without bytes."""
    return float(total[0] / np.log(2) / total[2]) if total[2] else float("nan")
