"""The Arrow file of a source: made once in the cache, memory-mapped afterwards."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from luodi.core.errors import LuodiError
from luodi.core.rows import Rows

FORMAT = 1  # raised when a reader gives other cells for the same file: old Arrow files are then not used
LARGE = 1 << 30  # a plain binary column holds 2 GiB at most, and `take` may need it whole


def key_of(*parts: object) -> str:
    """The name of a cache entry: 32 hex digits of what the rows are made from."""
    return hashlib.sha256(repr((FORMAT, parts)).encode()).hexdigest()[:32]


def file_sha(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kept(cache: Path, key: str, make: Callable[[], pa.Table]) -> Rows:
    """The rows of a cache entry; `make` gives the table the first time. Safe with several processes at once."""
    path = cache / "tables" / f"{key}.arrow"
    if not path.is_file():
        write(make(), path)
    try:
        return Rows.open(path)
    except pa.ArrowInvalid as error:
        raise LuodiError(f"the cache file {path} is damaged ({error}); remove it, it is made again") from error


def is_kept(cache: Path, key: str) -> bool:
    """Whether the cache entry is there already."""
    return (cache / "tables" / f"{key}.arrow").is_file()


def write(table: pa.Table, path: Path) -> None:
    """Writes an Arrow file with the rows' identities, aside under a name of its own and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = Rows(table)
    # One record batch: Rows joins the chunks of a table, which would copy the memory map into memory.
    whole = table.append_column("__id__", pa.array(rows.ids.tolist(), pa.string())).combine_chunks()
    # Rows.save writes to `<name>.part`, which two processes would share; here each has its own file.
    aside = path.with_name(f"{path.stem}.{secrets.token_hex(8)}.part")
    try:
        with aside.open("xb") as sink, pa.ipc.new_file(sink, whole.schema) as writer:
            writer.write_table(whole)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def bytes_type(total: int) -> pa.DataType:
    """The Arrow type of a column with that many bytes in all."""
    return pa.binary() if total < LARGE else pa.large_binary()
