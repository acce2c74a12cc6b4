"""One file from which a killed training goes on."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from luodi.core.thing import Json

if TYPE_CHECKING:
    from torch import Tensor

MOST = 0.02  # share of the time that writing checkpoints may take at the ends of epochs


@dataclass(frozen=True)
class Saved:
    """What a checkpoint held."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Json]


class Checkpoint:
    """Tensors and plain facts in one safetensors file, written aside and renamed: a kill leaves the old or the new one.

    `key` says which training it belongs to (name -> text); a file with another key is never read into this one.
    """

    def __init__(self, folder: Path, key: Mapping[str, str], seconds: float) -> None:
        self.folder, self.key, self.seconds = folder, dict(key), seconds
        self.path = folder / "state.safetensors"
        self.written = time.monotonic()
        self.took = 0.0

    def load(self) -> Saved | str | None:
        """What was saved; None without a file; a sentence if it belongs to another training."""
        from safetensors import safe_open

        if not self.path.is_file():
            return None
        with safe_open(self.path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            odd = sorted(
                name for name in self.key.keys() | facts["key"].keys() if self.key.get(name) != facts["key"].get(name)
            )
            if odd:
                return f"the checkpoint in {self.folder} is of another training (other {', '.join(odd)}): starting over"
            return Saved({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118

    def due(self, *, epoch_ends: bool) -> bool:
        """Whether to write now: `seconds` have gone by, or an epoch ends and writing is cheap enough."""
        gone = time.monotonic() - self.written
        return gone >= self.seconds or (epoch_ends and gone * MOST >= self.took)

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Json]) -> None:
        """Replaces the file."""
        from safetensors.torch import save_file

        start = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".part")
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, aside, metadata={"facts": json.dumps({**facts, "key": self.key})})
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.replace(self.path)
        self.written = time.monotonic()
        self.took = self.written - start

    def remove(self) -> None:
        """Ends the checkpoint: the training is complete."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
