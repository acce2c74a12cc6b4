"""Fields of a third party: a text as counts of its letters, a sound as its samples."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from luodi.core.errors import BadRequest
from luodi.core.field import Field
from luodi.core.spec import Spec

SAMPLES = 512


class Letters(Field):
    """How often each of a few characters occurs."""

    kind: ClassVar[str] = "text"

    known: str = "abcdefgh好坏"

    def specs(self):
        return {"": Spec(kind="number", shape=(len(self.known),))}

    def read(self, wire):
        if not isinstance(wire, str):
            raise BadRequest("", f"expected a text, got {type(wire).__name__}")
        return wire

    def write(self, value):
        return value

    def encode(self, values):
        return {"": np.asarray([[value.count(one) for one in self.known] for value in values], np.float32)}

    def example(self, count, seed):
        dice = np.random.Generator(np.random.PCG64(seed))
        return ["".join(dice.choice(list(self.known), 9)) for _ in range(count)]

    def wire_schema(self):
        return {"type": "string", "description": "A text.", "examples": ["abc"]}


class Clip(Field):
    """Samples of a short sound."""

    kind: ClassVar[str] = "sound"

    def specs(self):
        return {"": Spec(kind="number", shape=(SAMPLES,))}

    def read(self, wire):
        return np.asarray(wire, np.float32)

    def write(self, value):
        return value.tolist()

    def encode(self, values):
        return {"": np.stack(values).astype(np.float32)}

    def example(self, count, seed):
        return list(np.random.Generator(np.random.PCG64(seed)).normal(size=(count, SAMPLES)).astype(np.float32))

    def wire_schema(self):
        return {"type": "array", "items": {"type": "number"}, "description": "Samples.", "examples": [[0.0] * SAMPLES]}
