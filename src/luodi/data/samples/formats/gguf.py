"""Files of llama.cpp, GGUF version 3: named values and tensors, the latter in blocks of few bits."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from luodi.data.samples.formats.blocks import Floats, weights

STRING, ARRAY = 8, 9
NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}


@dataclass(frozen=True)
class GGUF:
    """Values by name, and where each tensor is: its shape, type and first byte."""

    raw: bytes
    values: Mapping[str, Any]
    tensors: Mapping[str, tuple[tuple[int, ...], int, int]]

    def array(self, name: str) -> Floats:
        """A tensor multiplied out, rows first as in PyTorch."""
        shape, kind, place = self.tensors[name]
        return weights(kind, self.raw, place, shape)


def read(raw: bytes) -> GGUF:
    """The content of the file; raises ValueError for another one."""
    magic, version, tensors, values = struct.unpack_from("<4sIQQ", raw)
    if magic != b"GGUF" or version != 3:
        raise ValueError("not a GGUF file of version 3")
    reader = _Reader(raw, 24)
    named = {reader.text(): reader.value(reader.number("<u4")) for _ in range(values)}
    places = {}
    for _ in range(tensors):
        name, axes = reader.text(), reader.number("<u4")
        shape = tuple(reader.number("<u8") for _ in range(axes))[::-1]  # the file has the innermost first
        places[name] = shape, reader.number("<u4"), reader.number("<u8")
    aligned = named.get("general.alignment", 32)
    begin = math.ceil(reader.at / aligned) * aligned
    return GGUF(raw, named, {name: (shape, kind, begin + at) for name, (shape, kind, at) in places.items()})


class _Reader:
    """Values one after another."""

    def __init__(self, raw: bytes, at: int) -> None:
        self.raw, self.at = raw, at

    def number(self, kind: str) -> Any:
        return self.numbers(kind, 1)[0]

    def numbers(self, kind: str, count: int) -> list[Any]:
        found = np.frombuffer(self.raw, kind, count, self.at)
        self.at += found.nbytes
        return found.tolist()

    def text(self) -> str:
        size = self.number("<u8")
        self.at += size
        return self.raw[self.at - size : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.number(NUMBERS[kind])
        inner, count = self.number("<u4"), self.number("<u8")
        if inner in NUMBERS:
            return self.numbers(NUMBERS[inner], count)
        return [self.value(inner) for _ in range(count)]
