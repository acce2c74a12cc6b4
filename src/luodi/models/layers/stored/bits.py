"""Integers of 2 to 8 bits as a stream of bytes: eight of them take as many bytes as each has bits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def bytes_of(count: int, bits: int) -> int:
    """How many bytes `count` integers take."""
    return -(-count // 8) * bits


def packed(values: Tensor, bits: int) -> Tensor:
    """Integers 0..2^bits - 1 (..., n) as uint8 (..., bytes): the i-th of eight begins at bit i x bits, lowest first."""
    eights = functional.pad(values.to(torch.int32), (0, -values.shape[-1] % 8)).unflatten(-1, (-1, 8))
    stream = torch.zeros(*eights.shape[:-1], bits, dtype=torch.int32, device=values.device)
    for place in range(8):
        byte, shift = divmod(place * bits, 8)
        word = eights[..., place] << shift
        stream[..., byte] |= word & 255
        if shift + bits > 8:
            stream[..., byte + 1] |= word >> 8
    return stream.flatten(-2).to(torch.uint8)


def unpacked(stream: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` integers of each row, as float32.

    In float32, where numbers below 65,536 and powers of two are exact: every runtime has these operations.
    """
    if bits == 8:
        return stream[..., :count].float()
    bytes_ = stream.unflatten(-1, (-1, bits)).float()
    first = [place * bits // 8 for place in range(8)]
    words = bytes_[..., first]
    if 8 % bits:  # some lie across two bytes
        words = words + 256 * bytes_[..., [min(byte + 1, bits - 1) for byte in first]]
    shift = torch.tensor([2.0 ** -(place * bits % 8) for place in range(8)], device=stream.device)
    shifted = (words * shift).floor()
    values = shifted - 2**bits * (shifted * 2.0**-bits).floor()
    return values.flatten(-2)[..., :count]
