"""The recipe that made all this."""

from __future__ import annotations

import re
from html import escape
from typing import ClassVar

from luodi.report.view import View

TOKEN = re.compile(
    r"(?P<comment>(?:^|(?<=\s))#.*$)"
    r"|(?P<key>[^\s:#{}\[\],\"'-][^:#{}\[\],]*(?=:(?:\s|$)))"
    r"|(?P<digit>(?<![\w.])[-+]?\d[\d.]*(?:e[-+]?\d+)?(?![\w.]))"
    r"|(?P<text>\"[^\"]*\"|'[^']*'|[^\s:#{}\[\],-][^\s:#{}\[\],]*)",
    re.IGNORECASE,
)


class Recipe:
    """The resolved recipe as it ran: run it again to get the same bundle."""

    title: ClassVar[str] = "Recipe"
    order: ClassVar[int] = 110

    def wanted(self, view: View) -> bool:
        return bool(view.recipe_text)

    def html(self, view: View) -> str:
        lines = "\n".join(_line(line) for line in view.recipe_text.rstrip().split("\n"))
        return f"<p class='note'>Every field, as it was resolved.</p><pre>{lines}</pre>"


def _line(line: str) -> str:
    """One line of YAML with light marks; every piece of it is escaped."""
    shown, end = [], 0
    for token in TOKEN.finditer(line):
        shown.append(escape(line[end : token.start()]))
        shown.append(f"<span class='{token.lastgroup}'>{escape(token.group())}</span>")
        end = token.end()
    return "".join(shown) + escape(line[end:])
