"""The only door for effects: folder, device, seed, threads, rank, log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Generator

CACHE = Path.home() / ".cache" / "luodi"  # where what was fetched is kept, if nobody says otherwise


ASIDE = "aside"  # a folder in `run.out`: what a step leaves there to be looked at is kept beside its bundle


def silent(event: str, facts: Mapping[str, Any]) -> None:
    """A log that keeps nothing: for a step called alone in a script."""


@dataclass(frozen=True)
class Run:
    """Where a step works and what it may use. Dice are functions of (seed, scope, names): no state, nothing to save."""

    out: Path
    device: str = "cpu"
    seed: int = 0
    threads: int = 1
    rank: int = 0
    world: int = 1
    scope: tuple[str | int, ...] = ()
    cache: Path = CACHE
    rehearse: bool = False
    home: Path | None = None  # the run's folder, which stays when a step is done; None: `out`
    log: Callable[[str, Mapping[str, Any]], None] = silent  # events: "epoch", "progress", "note"... into the one stream

    def at(self, *names: str | int) -> Run:
        """A run inside this run: its own dice and its own folder."""
        return replace(self, scope=(*self.scope, *names), out=self.out.joinpath(*map(str, names)))

    def seed_for(self, *names: str | int) -> int:
        """A 63-bit seed from (seed, scope, names)."""
        text = repr((self.seed, self.scope, names)).encode()
        return int.from_bytes(sha256(text).digest()[:8], "big") >> 1

    def generator(self, *names: str | int) -> Generator:
        """A fresh torch generator for these names."""
        import torch

        return torch.Generator().manual_seed(self.seed_for(*names))

    def dice(self, *names: str | int) -> np.random.Generator:
        """A fresh NumPy generator for these names."""
        return np.random.Generator(np.random.PCG64(self.seed_for(*names)))
