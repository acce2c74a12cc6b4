"""Texts that are nearly the same: MinHash signatures find candidates, the shared pieces decide.

A text's pieces are its runs of three letters or digits, in any script, without case, spaces and signs. Two texts are
nearly the same if they share at least `least` of all their pieces (Jaccard). Signatures: Broder 1997, 128 minima.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from luodi.data.likeness.pairs import NONE, all_pairs, buckets

LENGTH = 3  # letters of a piece
MINIMA, BAND = 128, 4  # 32 bands of 4: a pair that shares 0.8 is missed once in ten million
LEAST = 0.8


@dataclass(frozen=True)
class Texts:
    """Texts of one column: the hashes of their pieces, sorted, and their signatures (count, 128) uint32."""

    pieces: tuple[np.ndarray, ...]
    signatures: np.ndarray
    least: float = LEAST

    @classmethod
    def of(cls, texts: Iterable[str], least: float = LEAST) -> Texts:
        """From the texts as they are."""
        pieces = tuple(pieces_of(text) for text in texts)
        made = [signature(one) for one in pieces]
        return cls(pieces, np.stack(made) if made else np.zeros((0, MINIMA), np.uint32), least)

    def pairs(self) -> np.ndarray:
        """(pairs, 2) int64 of texts that are nearly the same, the smaller number first."""
        found = [NONE]
        for start in range(0, MINIMA, BAND):
            keys = np.ascontiguousarray(self.signatures[:, start : start + BAND]).view("V16").ravel()
            _, numbers = np.unique(keys, return_inverse=True)
            found += [all_pairs(bucket) for bucket in buckets(numbers)]
        pairs = np.unique(np.concatenate(found), axis=0)
        # Three deviations of an estimate from 128 minima: almost nothing is lost, and most of the rest is spared.
        shared = np.concatenate([NONE[:, 0] > 0, *(self._guess(part) for part in np.array_split(pairs, 16))])
        pairs = pairs[shared >= self.least - 3 * np.sqrt(self.least * (1 - self.least) / MINIMA)]
        return pairs[self.alike(pairs)]

    def _guess(self, pairs: np.ndarray) -> np.ndarray:
        return (self.signatures[pairs[:, 0]] == self.signatures[pairs[:, 1]]).mean(axis=1)

    def alike(self, pairs: np.ndarray) -> np.ndarray:
        """Which of these pairs are nearly the same, by their pieces."""
        return np.fromiter(
            (jaccard(self.pieces[a], self.pieces[b]) >= self.least for a, b in pairs.tolist()), bool, len(pairs)
        )


def pieces_of(text: str) -> np.ndarray:
    """The hashes of a text's pieces, each once, sorted; a text of one or two letters is one piece."""
    plain = "".join(one for one in unicodedata.normalize("NFKC", text).casefold() if one.isalnum()) or text.strip()
    letters = np.frombuffer(plain.encode("utf-32-le"), np.uint32).astype(np.uint64)
    if len(letters) < LENGTH:
        letters = np.concatenate([letters, np.zeros(LENGTH - len(letters), np.uint64)])
    runs = np.lib.stride_tricks.sliding_window_view(letters, LENGTH)
    whole = np.zeros(len(runs), np.uint64)
    for column in runs.T:
        whole = _mixed(whole + column + np.uint64(0x9E3779B97F4A7C15))
    return np.unique(whole)


def signature(pieces: np.ndarray) -> np.ndarray:
    """(128,) uint32: the smallest hash of the pieces under 128 orders."""
    orders = np.arange(1, MINIMA + 1, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)
    return (_mixed(pieces[:, None] ^ orders[None]) >> np.uint64(32)).astype(np.uint32).min(axis=0)


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """The share of all pieces of two texts that both have."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def _mixed(value: np.ndarray) -> np.ndarray:
    """Every bit of the result depends on every bit of the value (the finaliser of splitmix64, Steele 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
