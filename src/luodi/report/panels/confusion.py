"""Which labels are taken for which."""

from __future__ import annotations

from html import escape
from typing import ClassVar

import numpy as np

from luodi.report.answers import Answers
from luodi.report.panel import by_target
from luodi.report.units import three
from luodi.report.view import View

MOST = 24  # labels shown; of more, those with the most mistakes


class Confusion:
    """The confusion matrix: truth down, answer across; a cell with mistakes shows their examples."""

    title: ClassVar[str] = "Confusion"
    order: ClassVar[int] = 50

    def wanted(self, view: View) -> bool:
        return any(answers.labelled for answers in view.final.values())

    def html(self, view: View) -> str:
        return by_target(view.final, lambda answers: answers.labelled, _target)


def _target(answers: Answers) -> str:
    counts = answers.confusion()
    wrong = counts - np.diag(np.diag(counts))
    shown = np.arange(len(answers.labels))
    if len(shown) > MOST:
        shown = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:MOST])
    cut = (
        f" The {MOST} of {len(answers.labels)} labels with the most mistakes."
        if len(shown) < len(answers.labels)
        else ""
    )
    note = f"Truth down, answer across, {len(answers):,} examples. Choose a red cell to see its examples.{cut}"
    head = "".join(f"<th scope='col' title='{_text(answers, k)}'>{_text(answers, k)}</th>" for k in shown)
    rows = "".join(
        f"<tr><th scope='row' title='{_text(answers, t)}'>{_text(answers, t)}</th>"
        + "".join(_cell(answers, counts, int(t), int(a)) for a in shown) + "</tr>"
        for t in shown
    )  # fmt: skip
    return (
        f"<p class='note'>{note}</p><div class='beside'><div class='matrix'>"
        f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"{_labels(answers, counts)}</div>"
    )


def _cell(answers: Answers, counts: np.ndarray, truth: int, answer: int) -> str:
    count, total = int(counts[truth, answer]), max(int(counts[truth].sum()), 1)
    said = f"truth {_text(answers, truth)}, answered {_text(answers, answer)}: {count}"
    if not count:
        return f"<td><button tabindex='-1' title='{said}'>·</button></td>"
    if truth == answer:
        share = count / total
        kind = "right deep" if share > 0.6 else "right"
        style = f"--share:{100 * share:.0f}%"
        return f"<td class='{kind}' style='{style}'><button tabindex='-1' title='{said}'>{count}</button></td>"
    share = min(1.0, 8 * count / total)  # mistakes are few: an eighth of a row wrong is full red
    data = f"data-target='{escape(answers.target, quote=True)}' data-truth='{_text(answers, truth)}'"
    kind = "wrong deep" if share > 0.6 else "wrong"
    return (
        f"<td class='{kind}' style='--share:{100 * share:.0f}%'>"
        f"<button {data} data-answer='{_text(answers, answer)}' title='{said}'>{count}</button></td>"
    )


def _labels(answers: Answers, counts: np.ndarray) -> str:
    """How often each label is found, and how often an answer with it is right; the hardest first."""
    lines = []
    for k in range(len(answers.labels)):
        hit, asked, given = int(counts[k, k]), int(counts[k].sum()), int(counts[:, k].sum())
        if asked:
            lines.append((hit / asked, k, hit, asked, given))
    body = "".join(
        f"<tr><th scope='row'>{_text(answers, k)}</th><td>{three(found)}</td>"
        f"<td>{three(hit / given) if given else '–'}</td><td>{asked:,}</td></tr>"
        for found, k, hit, asked, given in sorted(lines)[:10]
    )
    return (
        "<div><table><thead><tr><th scope='col'>hardest labels</th><th scope='col'>found (recall)</th>"
        "<th scope='col'>right when said (precision)</th><th scope='col'>rows</th></tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _text(answers: Answers, label: int) -> str:
    return escape(answers.labels[label], quote=True)
