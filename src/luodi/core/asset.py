"""What a thing has learned and is too large for JSON: a tokenizer, a table of vectors. Known by its content's hash."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from luodi.core.errors import Damaged


class Asset(BaseModel):
    """A file by its SHA-256: the JSON holds the hash, a bundle keeps the file in `assets/`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # a file's name too: a bundle from a stranger names no other file
    _held: bytes | None = PrivateAttr(None)
    _path: Path | None = PrivateAttr(None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Asset) and self.sha256 == other.sha256  # wherever either of them lies

    def __hash__(self) -> int:
        return hash(self.sha256)

    @classmethod
    def of(cls, content: bytes) -> Asset:
        """The asset of this content, held in memory until a bundle is saved."""
        asset = cls(sha256=sha256(content).hexdigest())
        asset._held = content
        return asset

    def content(self) -> bytes:
        """All bytes; raises Damaged if the file is not what its hash says."""
        if self._held is not None:
            return self._held
        if self._path is None:
            raise Damaged(f"an asset with the SHA-256 {self.sha256[:12]} is named, and its file is nowhere")
        found = self._path.read_bytes()
        if sha256(found).hexdigest() != self.sha256:
            raise Damaged(f"{self._path} was changed after it was written (its SHA-256 differs from its name)")
        return found

    def keep(self, folder: Path) -> None:
        """Writes the file into a folder, named by its hash."""
        folder.mkdir(exist_ok=True)
        (folder / self.sha256).write_bytes(self.content())

    def found(self, folder: Path) -> None:
        """Says in which folder the file lies; it is read when it is needed."""
        if self._held is None:
            self._path = folder / self.sha256


def assets_of(thing: Any) -> list[Asset]:
    """Every asset of a thing and of the things inside it."""
    if isinstance(thing, Asset):
        return [thing]
    if isinstance(thing, Mapping):
        return [asset for inner in thing.values() for asset in assets_of(inner)]
    if isinstance(thing, list | tuple):
        return [asset for inner in thing for asset in assets_of(inner)]
    if isinstance(thing, BaseModel):
        return [asset for name in type(thing).model_fields for asset in assets_of(getattr(thing, name))]
    return []
