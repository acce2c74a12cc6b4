"""What a named tensor is: the only thing that fields and models know of each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

Arrays = Mapping[str, np.ndarray]  # named arrays, the first axis is the batch


class Spec(BaseModel):
    """Kind, shape without the batch axis (a name marks a free axis), size (classes, ids or channels), dtype.

    Of free axes: `pad` fills them up to the longest row of a batch, `most` is how long they may be (0: not known).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["image", "tokens", "number", "category", "sequence", "audio", "state", "mask"]
    shape: tuple[int | str, ...] = ()
    size: int = 0
    dtype: str = "float32"
    pad: int = 0
    most: int = 0


class Signature(BaseModel):
    """The named arrays of a form, and which state input each state output extends (`{"past": "new"}`).

    `reading`: what is done once for all steps. Its outputs are inputs here, in the place of what it reads; a mask that
    it reads is looked at in every step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    inputs: dict[str, Spec]
    outputs: dict[str, Spec]
    state: dict[str, str] = {}
    reading: Signature | None = None
