"""Weights in blocks of few bits, as ggml stores them: a scale for each block, here multiplied out to float32.

The layouts are those of ggml's `block_q4_0` and its kin; `q` is an unsigned number of 4, 5 or 6 bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def float32(blocks: Bytes) -> Floats:
    """(count, 4) -> (count, 1), unchanged."""
    return blocks.view("<f4")


def float16(blocks: Bytes) -> Floats:
    """(count, 2) -> (count, 1)."""
    return blocks.view("<f2").astype(np.float32)


def q4_0(blocks: Bytes) -> Floats:
    """(count, 18) -> (count, 32): scale * (q - 8); low halves of the bytes first, then the high ones."""
    return _scale(blocks, 0) * (_halves(blocks[:, 2:]).astype(np.float32) - 8)


def q5_0(blocks: Bytes) -> Floats:
    """(count, 22) -> (count, 32): scale * (q - 16); the fifth bits are four bytes of their own."""
    fifth = np.unpackbits(blocks[:, 2:6], axis=1, bitorder="little")
    return _scale(blocks, 0) * ((_halves(blocks[:, 6:]) | fifth << 4).astype(np.float32) - 16)


def q8_0(blocks: Bytes) -> Floats:
    """(count, 34) -> (count, 32): scale * a signed byte."""
    return _scale(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def q4_k(blocks: Bytes) -> Floats:
    """(count, 144) -> (count, 256): for each 32 a scale and a least value of 6 bits, on two float16 of the block."""
    packed = blocks[:, 4:16]
    low, middle, high = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6) << 4], 1).astype(np.float32)
    least = np.concatenate([middle & 63, (high >> 4) | (middle >> 6) << 4], 1).astype(np.float32)
    numbers = _halves(blocks[:, 16:].reshape(-1, 32)).reshape(-1, 8, 32).astype(np.float32)
    steps, floors = _scale(blocks, 0) * scales, _scale(blocks, 2) * least
    return (steps[:, :, None] * numbers - floors[:, :, None]).reshape(-1, 256)


def q6_k(blocks: Bytes) -> Floats:
    """(count, 210) -> (count, 256): for each 16 a signed byte as scale, on one float16 of the block; q - 32."""
    low = _halves(blocks[:, :128].reshape(-1, 64)).reshape(-1, 2, 4, 32)
    pairs = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    numbers = (low | pairs << 4).astype(np.float32) - 32
    steps = _scale(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return (steps[:, :, None] * numbers.reshape(-1, 16, 16)).reshape(-1, 256)


def _halves(packed: Bytes) -> Bytes:
    """(count, n) -> (count, 2 n): the low four bits of each byte, then the high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _scale(blocks: Bytes, at: int) -> Floats:
    """(count, 1): the float16 that stands at this byte of each block."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


# Number of the type in a GGUF file -> bytes of a block, weights of a block, reader.
KINDS: dict[int, tuple[int, int, Callable[[Bytes], Floats]]] = {
    0: (4, 1, float32),
    1: (2, 1, float16),
    2: (18, 32, q4_0),
    6: (22, 32, q5_0),
    8: (34, 32, q8_0),
    12: (144, 256, q4_k),
    14: (210, 256, q6_k),
}


def weights(kind: int, raw: bytes, at: int, shape: tuple[int, ...]) -> Floats:
    """An array of that shape from the bytes that begin at `at`; raises KeyError for a type that is not read here."""
    width, count, read = KINDS[kind]
    blocks = int(np.prod(shape)) // count
    return read(np.frombuffer(raw, np.uint8, blocks * width, at).reshape(blocks, width)).reshape(shape)
