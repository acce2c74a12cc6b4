"""What a column seems to be, from its values: which field reads it, or why none should."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["number", "category", "image", "skip"]

FEW = 20  # whole numbers of at most so many values are labels when they are learned
MANY = 1000  # labels of a column that is read as a category
LONG = 60  # letters of an average cell: written text, not labels
FILES = re.compile(r".*\.(png|jpe?g|bmp|gif|webp|tiff?)", re.IGNORECASE)


@dataclass(frozen=True)
class Column:
    """One column: the field for it, how many cells are missing, and a remark for the reader."""

    name: str
    kind: Kind
    missing: int = 0
    remark: str = ""
    counts: tuple[tuple[str, int], ...] = ()  # of labels, the most frequent first


def as_input(name: str, cells: Sequence[Any]) -> Column:
    """The field that reads a column, or `skip` with the reason."""
    present = [cell for cell in cells if cell is not None]
    missing = len(cells) - len(present)
    remark = _useless(present)
    if remark:
        return Column(name, "skip", missing, remark)
    if isinstance(present[0], bytes):
        return _picture(name, present, missing)
    if isinstance(present[0], int | float):
        return _number(name, present, missing)
    return _labels(name, present, missing)


def _useless(present: Sequence[Any]) -> str:
    if not present:
        return "every cell is empty"
    if isinstance(present[0], list | dict):
        return "lists: no field here reads them"
    if all(cell == present[0] for cell in present):
        return f"the same value everywhere: {_shown(present[0])}"
    return ""


def _picture(name: str, present: Sequence[bytes], missing: int) -> Column:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(present[0])) as image:
            image.load()
    except (OSError, ValueError, SyntaxError) as error:
        return Column(name, "skip", missing, f"bytes that are no image: {str(error).split(' <')[0]}")
    return Column(name, "skip", missing, "some images are missing") if missing else Column(name, "image")


def _number(name: str, present: Sequence[float], missing: int) -> Column:
    if not all(math.isfinite(cell) for cell in present):
        return Column(name, "skip", missing, "holds infinite numbers")
    values = set(present)
    whole = all(float(cell).is_integer() for cell in values)
    if whole and len(values) == len(present) > FEW and max(values) - min(values) == len(present) - 1:
        return Column(name, "skip", missing, "numbers the rows one by one")
    if len(values) == len(present) > FEW and whole and re.search(r"(?i:(^|[ _-])(id|no|nr|key)$)|[a-z]I[dD]$", name):
        return Column(name, "skip", missing, "another number in every row, and its name says that it identifies them")
    remark = f"only {len(values)} values: `category` if they are codes" if whole and 2 < len(values) <= 10 else ""
    return Column(name, "number", missing, remark)


def _labels(name: str, present: Sequence[Any], missing: int) -> Column:
    cells = [str(cell) for cell in present]
    counts = Counter(cells).most_common()
    if all(FILES.fullmatch(cell) for cell in cells[:1000]):
        return Column(name, "skip", missing, "names of image files: put them into class folders and init that folder")
    if len(counts) > max(FEW, 0.5 * len(cells)):
        return Column(name, "skip", missing, "another value in almost every row: a name, a date or an identifier")
    if sum(map(len, cells)) > LONG * len(cells):
        return Column(name, "skip", missing, "written text: no field here reads it")
    if len(counts) > MANY:
        return Column(name, "skip", missing, f"{len(counts)} different values: too many for a category")
    return Column(name, "category", missing, f"{len(counts)} values", tuple(counts))


def as_target(name: str, cells: Sequence[Any]) -> Column:
    """How a column can be learned: few whole numbers or text are labels, other numbers are numbers."""
    present = [cell for cell in cells if cell is not None]
    missing = len(cells) - len(present)
    remark = _useless(present)
    if remark or isinstance(present[0], bytes):
        return Column(name, "skip", missing, remark or "bytes cannot be learned")
    values = set(present)
    if isinstance(present[0], int | float):
        whole = all(math.isfinite(cell) and float(cell).is_integer() for cell in values)
        if not whole or len(values) > min(FEW, max(2, len(present) // 5)):
            finite = all(math.isfinite(cell) for cell in values)
            return Column(name, "number" if finite else "skip", missing, "" if finite else "holds infinite numbers")
    counts = Counter(_shown(cell) for cell in present).most_common()
    if len(counts) > max(2, len(present) // 3):
        return Column(name, "skip", missing, f"{len(counts)} different values in {len(present)} rows: nothing to learn")
    return Column(name, "category", missing, "", tuple(counts))


def tells(cells: Sequence[Any], truths: Sequence[Any]) -> bool:
    """Whether each value of a column stands for exactly one label and each label for one value: the answer itself."""
    pairs = set(zip(map(_shown, cells), map(_shown, truths), strict=True))
    return len(pairs) == len({pair[0] for pair in pairs}) == len({pair[1] for pair in pairs})


def shares(counts: Iterable[tuple[str, int]], most: int = 10) -> str:
    """Labels with their counts and shares: `yes 120 (60%), no 80 (40%)`."""
    every = list(counts)
    total = sum(count for _, count in every)
    shown = ", ".join(f"{label} {count} ({count / total:.0%})" for label, count in every[:most])
    return shown + (f", and {len(every) - most} more" if len(every) > most else "")


def _shown(cell: Any) -> str:
    """A label as the category field writes it: 3.0 is 3."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
