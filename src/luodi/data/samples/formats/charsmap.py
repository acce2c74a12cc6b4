"""A map of characters as SentencePiece keeps it, which a tokenizer's normaliser `Precompiled` reads: a double array.

The trie of all keys, as bytes, lies in one array of 32-bit units (J. Aoe, 1989; the packing is that of darts-clone):
the child of the node at `p` by byte `c` is at `p ^ offset(p) ^ c` and holds `c`; the value of a key that ends at `p` is
at `p ^ offset(p)`, with the highest bit set.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

LEAF, VALUE = 1 << 8, 1 << 31


@dataclass
class _Node:
    """A place in the trie: the bytes that lead on, and the value of the key that ends here."""

    children: dict[int, _Node] = field(default_factory=dict)
    value: int | None = None


def charsmap(replaced: Mapping[str, str]) -> bytes:
    """The map in SentencePiece's form: the size of the double array, the array, the replacements ended by zeros."""
    root, texts = _Node(), b""
    for key, text in sorted(replaced.items()):
        node = root
        for byte in key.encode():
            node = node.children.setdefault(byte, _Node())
        node.value = len(texts)
        texts += text.encode() + b"\0"
    units = _packed(root)
    return struct.pack("<I", 4 * len(units)) + units.astype("<u4").tobytes() + texts


def _packed(root: _Node) -> np.ndarray:
    """The double array, each node's children at the first place where all of them fit."""
    units = np.zeros(1 << 10, np.uint32)
    free = np.ones(len(units), bool)
    free[0] = False
    bases: set[int] = {0}
    waiting = [(0, root)]
    while waiting:
        place, node = waiting.pop()
        labels = np.array(sorted(node.children) if node.value is None else [0, *sorted(node.children)])
        base = _base(free, labels, bases)
        if base >= len(units) - 256:  # an offset changes the lowest byte: one block of 256 more is always enough
            units, free = np.concatenate([units, np.zeros_like(units)]), np.concatenate([free, np.ones_like(free)])
        bases.add(base)
        free[base ^ labels] = False
        units[place] |= (place ^ base) << 10 | (LEAF if node.value is not None else 0)
        if node.value is not None:
            units[base] = VALUE | node.value
        for byte, child in node.children.items():
            units[base ^ byte] = byte
            waiting.append((base ^ byte, child))
    return units[: (int(np.flatnonzero(~free)[-1]) | 255) + 1]


def _base(free: np.ndarray, labels: np.ndarray, taken: set[int]) -> int:
    """The least base that no node has, at which the place of every label is free."""
    for place in np.flatnonzero(free):
        base = int(place ^ labels[0])
        if base not in taken and free[base ^ labels].all():
            return base
    raise AssertionError("the last block is always free")
