"""Which token comes next: the request's own rules, a function of the logits, the seed and the place alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Bounded


class Sampling(BaseModel):
    """How a text goes on. Temperature 0 takes the likeliest token; the others narrow what is drawn from, in this order:
    repetition (arXiv 1909.05858), temperature, top_k, top_p (arXiv 1904.09751), min_p (arXiv 2407.01082)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_tokens: Annotated[int, Bounded(ge=0, le=65_536)] = 64  # 0: nothing is written, the text is only read
    temperature: Annotated[float, Bounded(ge=0, le=10)] = 0.0
    top_k: Annotated[int, Bounded(ge=0)] = 0  # 0: all
    top_p: Annotated[float, Bounded(gt=0, le=1)] = 1.0
    min_p: Annotated[float, Bounded(ge=0, le=1)] = 0.0  # of the likeliest token's probability
    repetition: Annotated[float, Bounded(gt=0, le=10)] = 1.0  # above 1: tokens that are there already become rarer
    seed: Annotated[int, Bounded(ge=0, lt=2**63)] = 0
    stop: Annotated[tuple[Annotated[str, Bounded(min_length=1, max_length=200)], ...], Bounded(max_length=16)] = ()


def chosen(logits: np.ndarray, rules: Sampling, seen: Collection[int], place: int) -> int:
    """The next token's id from logits (vocabulary,); `seen` are the tokens so far, `place` how many were drawn."""
    if rules.repetition != 1.0 and seen:
        logits = logits.copy()
        at = np.fromiter(set(seen), np.int64)
        logits[at] = np.where(logits[at] > 0, logits[at] / rules.repetition, logits[at] * rules.repetition)
    if rules.temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / rules.temperature
    order, shares = _shares(scaled, rules.top_k)
    if rules.top_p < 1:
        # The smallest set whose probabilities sum to top_p: a token stays if those before it do not reach it.
        kept = int(np.searchsorted(np.cumsum(shares), rules.top_p * (1 - 1e-12), side="left")) + 1
        order, shares = order[:kept], shares[:kept]
    if rules.min_p > 0:
        kept = int((shares >= rules.min_p * shares[0]).sum())
        order, shares = order[:kept], shares[:kept]
    edges = np.cumsum(shares)
    drawn = int(np.searchsorted(edges, draw(rules.seed, place) * edges[-1], side="right"))
    return int(order[min(drawn, len(order) - 1)])


def without(logits: np.ndarray, never: Collection[int]) -> np.ndarray:
    """Logits (rows, vocabulary) of which these tokens cannot be chosen."""
    if not never:
        return logits
    found = logits.copy()
    found[:, list(never)] = -np.inf
    return found


def draw(seed: int, place: int) -> float:
    """A number in [0, 1) of this seed and place: it does not depend on who else is answered at the same time."""
    return int.from_bytes(sha256(f"{seed}:{place}".encode()).digest()[:7], "big") / 2.0**56


def _shares(scaled: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, probabilities), the likeliest first; ties in the order of their ids."""
    if 0 < top_k < len(scaled):
        least = np.partition(scaled, -top_k)[-top_k]
        at = np.flatnonzero(scaled >= least)
        order = at[np.argsort(-scaled[at], kind="stable")][:top_k]
    else:
        order = np.argsort(-scaled, kind="stable")
    powers = np.exp(scaled[order] - scaled[order[0]])
    return order, powers / powers.sum()


def whole_part(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """(what of a text may be shown, whether a stop string ended it): half a character and the beginning of a stop
    string are held back."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    if found:
        return text[: min(found)], True
    shown = text.rstrip("\N{REPLACEMENT CHARACTER}") if text.endswith("\N{REPLACEMENT CHARACTER}") else text
    longest = max((len(stop) for stop in stops), default=1) - 1
    for size in range(min(longest, len(shown)), 0, -1):
        if any(stop.startswith(shown[-size:]) for stop in stops):
            return shown[:-size], False
    return shown, False
