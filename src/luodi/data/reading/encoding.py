"""Which encoding a text file is in."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from luodi.core.errors import LuodiError

PIECE = 1 << 20
MARKS = (  # the longer one first: UTF-32's little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
LINES = 2000  # lines with bytes above ASCII that an encoding is told from


def encoding_of(path: Path) -> str:
    """The encoding by its mark, else UTF-8 if the whole file is, else the likeliest by its letters."""
    with path.open("rb") as file:
        start = file.read(4096)
    for mark, name in MARKS:
        if start.startswith(mark):
            return name
    if wide := _wide(start):
        return wide
    return "utf-8" if _is_utf8(path) else _likeliest(path)


def _wide(start: bytes) -> str | None:
    """UTF-16 without a mark: commas, digits and line ends have a zero beside them, which other encodings never have."""
    pairs = max(len(start) // 2, 1)
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if max(even, odd) < 0.02 * pairs or min(even, odd) > max(even, odd) / 4:
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                decoder.decode(piece)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _likeliest(path: Path) -> str:
    import charset_normalizer

    sample = b"".join(islice(_telling(path), LINES))
    found = [match.encoding for match in charset_normalizer.from_bytes(sample)]
    if not found:
        raise LuodiError(f"{path}: cannot tell its encoding; name it, as in `encoding: gb18030` or `encoding: cp1252`")
    # Few accents fit several Western code pages; cp1252 is by far the most used, and Latin-1 is a part of it.
    return "cp1252" if "cp1252" in found and found[0].startswith(("cp125", "iso8859", "latin")) else found[0]


def _telling(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from (line for line in file if not line.isascii())
