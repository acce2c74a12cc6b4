"""Markdown that data cannot break out of."""

from __future__ import annotations

from collections.abc import Sequence


def cell(text: object) -> str:
    """Text that stays in its table cell: no tags, no columns, no lines of its own."""
    flat = " ".join(str(text).split())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; every cell is escaped."""
    lines = [list(headings), ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(cell(text) for text in line) + " |\n" for line in lines)


def code(text: str) -> str:
    """Text as code, whatever it holds."""
    flat = " ".join(text.split())
    fence = "`" * (max((len(run) for run in "".join(c if c == "`" else " " for c in flat).split()), default=0) + 1)
    return f"{fence} {flat} {fence}" if "`" in flat else f"`{flat}`"
