"""The examples it gets wrong, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, ClassVar

import numpy as np

from luodi.report.answers import Answers
from luodi.report.panel import by_target, pairs
from luodi.report.picture import data_url, is_picture
from luodi.report.units import three
from luodi.report.view import View

FIRST, MOST = 24, 160  # cards shown at once, cards kept in the page


class Mistakes:
    """Wrong answers, the surest first: the example, its truth, the answer, and since which step it is wrong."""

    title: ClassVar[str] = "Examples it gets wrong"
    order: ClassVar[int] = 80

    def wanted(self, view: View) -> bool:
        return any(len(answers.mistakes()) for answers in view.final.values())

    def html(self, view: View) -> str:
        return by_target(
            view.final, lambda answers: len(answers.mistakes()) > 0, lambda answers: _target(view, answers)
        )


def _target(view: View, answers: Answers) -> str:
    wrong = answers.mistakes()
    since = _since(view, answers) if answers.categorical else {}
    kept = wrong[: MOST if answers.categorical else FIRST]
    pictures = any(is_picture(cell) for cell in view.example(str(answers.ids[wrong[0]])).values())
    cards = "".join(_card(view, answers, int(row), place, since) for place, row in enumerate(kept))
    more = (
        f"<p><br><button class='plain' data-act='more'>show all {len(kept)}</button></p>" if len(kept) > FIRST else ""
    )
    name = escape(answers.target, quote=True)
    return (
        f"<div><p class='note'>{_note(answers, len(wrong), len(kept))}</p>"
        "<div class='filter' hidden><span></span><button class='plain' data-act='all' "
        f"data-target='{name}'>show all again</button></div>"
        f"<div class='gallery{'' if pictures else ' wide'}' data-target='{name}'>{cards}</div>{more}</div>"
    )


def _note(answers: Answers, wrong: int, kept: int) -> str:
    if not answers.categorical:
        return f"The {kept} answers furthest from the truth."
    cut = f" The {kept} surest are here." if kept < wrong else ""
    order = " The surest mistakes come first." if answers.scored else ""
    return f"{wrong:,} of {len(answers):,} answers are wrong.{order}{cut}"


def _since(view: View, answers: Answers) -> dict[str, str]:
    """Identity -> the step since which an answer is wrong, for those that the first model had right."""
    found: dict[str, str] = {}
    for one in view.measured:
        earlier = view.answers(one).get(answers.target)
        if earlier is None:
            continue
        for identity, right in zip(map(str, earlier.ids), earlier.right, strict=True):
            if right:
                found[identity] = ""
            elif found.get(identity) == "":
                found[identity] = f"{one.name} {one.form}" if one.form != "torch" else one.name
    return found


def _card(view: View, answers: Answers, row: int, place: int, since: Mapping[str, str]) -> str:
    identity = str(answers.ids[row])
    example = view.example(identity)
    columns = [name for name in view.inputs if name in example] or [n for n in example if n != answers.target]
    truth, answer = str(answers.truth[row]), str(answers.value[row])
    shown = _example({name: example[name] for name in columns})
    later = place >= FIRST
    data = (
        f"data-truth='{escape(truth, quote=True)}' data-answer='{escape(answer, quote=True)}' data-later='{int(later)}'"
    )
    late = f"<div class='since'>wrong since {escape(since[identity])}</div>" if since.get(identity) else ""
    return (
        f"<div class='mistake' {data} title='{escape(identity, quote=True)}'{' hidden' if later else ''}>{shown}"
        f"{_said(answers, row, truth, answer)}{late}</div>"
    )


def _said(answers: Answers, row: int, truth: str, answer: str) -> str:
    if not answers.categorical:
        off = float(answers.value[row] - answers.truth[row])
        return (
            f"<div class='verdict'>said {three(float(answers.value[row]))}, is {three(float(answers.truth[row]))}</div>"
            f"<div class='since'>{three(abs(off))} too {'high' if off > 0 else 'low'}</div>"
        )
    sure = ""
    if answers.scored:
        share = float(answers.confidence[row])
        part = f"{100 * share:.0f}%"
        sure = f"<div class='sure'><i style='width:{part}'></i></div><span class='note'>{part} sure</span>"
    return f"<div class='verdict'>said {escape(answer)}, is {escape(truth)}</div>{sure}"


def _example(example: Mapping[str, Any]) -> str:
    """A picture where there is one, else the row's first columns."""
    for name, cell in example.items():
        if is_picture(cell):
            url, small = data_url(cell)
            return f"<img alt='{escape(name, quote=True)}' class='{'small' if small else ''}' src='{url}'>"
    plain = {name: three(cell) if isinstance(cell, float | np.floating) else cell for name, cell in example.items()}
    return pairs({name: cell for name, cell in list(plain.items())[:6] if not isinstance(cell, bytes)})
