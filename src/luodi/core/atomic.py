"""Files and folders written aside and renamed: a kill at any moment leaves the old one or the new one, whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> Path:
    """Writes a file aside, flushes it to the disk and renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    return aside.replace(path)


def write_json(path: Path, value: Any) -> Path:
    """Writes JSON aside and renames it."""
    return write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """The JSON in a file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_folder(path: Path, fill: Callable[[Path], None]) -> Path:
    """`fill` writes a fresh folder aside; it then takes the place of `path`.

    A folder cannot be renamed onto a full one: the old one goes to `<name>.old`, the new one comes in, the old one is
    removed. `present` finds the folder in every state that a kill can leave.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside, old = path.with_name(path.name + ".part"), path.with_name(path.name + ".old")
    mended(path)
    if old.exists():
        shutil.rmtree(old)
    if aside.exists():
        shutil.rmtree(aside)
    aside.mkdir()
    fill(aside)
    for one in (*aside.rglob("*"), aside):
        _flush(one)
    if path.exists():
        path.rename(old)
    aside.rename(path)
    _flush(path.parent)
    if old.exists():
        shutil.rmtree(old)
    return path


def mended(path: Path) -> Path:
    """The folder's path, the folder put back if a kill left it aside: only for its one writer."""
    old = path.with_name(path.name + ".old")
    if old.exists() and not path.exists():
        old.rename(path)
    return path


def remove_folder(path: Path) -> None:
    """Removes a folder that must not be found half there after a kill."""
    gone = path.with_name(path.name + ".gone")
    if gone.exists():
        shutil.rmtree(gone)
    path.rename(gone)
    shutil.rmtree(gone)


def present(path: Path) -> Path | None:
    """Where a folder written by `write_folder` is now: itself, its old version after a kill, or None."""
    if path.exists():
        return path
    old = path.with_name(path.name + ".old")
    return old if old.exists() else None


def file_sha(path: Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    whole = sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            whole.update(piece)
    return whole.hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system allows it, else a copy. Bundle files are never written in place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
