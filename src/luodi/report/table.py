"""The one table: a row a step and form, as terminal text, HTML, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from luodi.core.evidence import Evidence, Measure, faced
from luodi.report.markdown import grid
from luodi.report.units import Column, bounds, column_of, data, share, signed, three

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SIGNS = {"better": "▲", "worse": "▼", "same": "=", "undecided": "?"}
STYLES = {"better": "green", "worse": "red", "same": "", "undecided": "bright_black"}
LEGEND = "against the step before, same rows, interleaved calls:  ▲ better  ▼ worse  = same  ? undecided"
RIVALS = "\nagainst NAME: another recipe scored on the same held-out rows, timed at another moment"
WORDS = 28  # columns that words need beside the numbers; with less they stand below


@dataclass(frozen=True)
class Line:
    """One row: the step and form, a measure (or none) a column, and what the step changed, in words."""

    number: int
    step: str
    form: str
    measures: Mapping[str, Measure]
    words: tuple[str, ...]
    rehearsal: bool
    rival: bool = False  # no step: another recipe, which the last step is compared with

    @property
    def label(self) -> str:
        return f"{self.mark} {self.step}"

    @property
    def mark(self) -> str:
        """What stands before the name."""
        return "against" if self.rival else str(self.number)


@dataclass(frozen=True)
class Table:
    """Columns and lines, laid out by one method a medium."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]

    @property
    def rehearsal(self) -> bool:
        return any(line.rehearsal for line in self.lines)

    @property
    def legend(self) -> str:
        """What the signs mean, and where there are rivals, what they are."""
        return LEGEND + RIVALS * any(line.rival for line in self.lines)

    def json(self) -> list[dict[str, Any]]:
        """One plain mapping a line, every column's measure in full."""
        return [
            {
                "number": line.number, "step": line.step, "form": line.form, "words": list(line.words),
                "rehearsal": line.rehearsal, "rival": line.rival,
                "measures": {c.name: data(line.measures.get(c.name)) for c in self.columns},
            }
            for line in self.lines
        ]  # fmt: skip

    def markdown(self) -> str:
        """A table for pages that hold no colour; cells are escaped."""
        headings = ["step", "form", *(column.heading for column in self.columns), "what it changed"]
        rows = []
        for line in self.lines:
            cells = [_cell(line.measures.get(column.name)) for column in self.columns]
            rows.append([line.label, line.form or "-", *cells, "; ".join(line.words) or "-"])
        note = "\n\nA rehearsal: a few rows and updates; no number here says how good anything is." * self.rehearsal
        return f"{grid(headings, rows)}\n{self.legend}{note}\n"

    def html(self) -> str:
        """A `<table>`; everything that comes from data is escaped."""
        headings = ["step", "form", *(column.heading for column in self.columns), "what it changed"]
        head = "".join(f"<th scope='col'>{escape(heading)}</th>" for heading in headings)
        body = "".join(self._html_line(line) for line in self.lines)
        return f"<table class='evidence'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _html_line(self, line: Line) -> str:
        cells = "".join(_html_cell(column, line.measures.get(column.name)) for column in self.columns)
        words = "".join(f"<li>{escape(word)}</li>" for word in line.words)
        chip = "<span class='chip rehearsal'>rehearsal</span>" if line.rehearsal else ""
        return (
            f"<tr><th scope='row'><span class='number'>{line.mark}</span> {escape(line.step)}{chip}</th>"
            f"<td data-title='form'>{escape(line.form) or '–'}</td>{cells}"
            f"<td class='words' data-title='what it changed'><ul>{words}</ul></td></tr>"
        )

    def text(self, width: int = 120) -> str:
        """The terminal's layout without colour."""
        import io

        from rich.console import Console

        out = io.StringIO()
        self.print(Console(file=out, width=width, color_system=None, legacy_windows=False))
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"

    def print(self, console: Console) -> None:
        """Prints the table as wide as the console is: words in a column, below the table, or line by line."""
        from rich.text import Text

        numbers = console.measure(self._grid(words=False), options=console.options.update(width=999)).maximum
        if console.width < numbers:
            for line in self.lines:
                console.print(self._block(line))
        elif console.width < numbers + WORDS:
            console.print(self._grid(words=False))
            for line in self.lines:
                _bullets(console, line)
        else:
            console.print(self._grid(words=True))
        console.print(Text(self.legend, style="dim"))
        if self.rehearsal:
            console.print(Text("A rehearsal: no number here says how good anything is.", style="bold yellow"))

    def _grid(self, *, words: bool) -> RenderableType:
        from rich import box
        from rich.table import Table as Grid
        from rich.text import Text

        shown = Grid(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), expand=words)
        shown.add_column("step", no_wrap=True)
        shown.add_column("form", no_wrap=True)
        for column in self.columns:
            shown.add_column(f"{column.short}\n{column.unit}".rstrip(), justify="right", no_wrap=True)
        if words:
            shown.add_column("what it changed", ratio=1, min_width=WORDS - 4)
        for line in self.lines:
            cells: list[Any] = [_coloured(column, line.measures.get(column.name)) for column in self.columns]
            said = [Text("; ".join(line.words) or "-")] if words else []
            shown.add_row(Text(line.label), Text(line.form or "-"), *cells, *said)
        return shown

    def _block(self, line: Line) -> RenderableType:
        from rich.text import Text

        text = Text(f"{line.label}  {line.form}".rstrip(), style="bold")
        for column in self.columns:
            if measure := line.measures.get(column.name):
                text.append(f"\n  {column.title}: ", style="not bold")
                text.append_text(_coloured(column, measure, column.unit))
        for word in line.words:
            text.append(f"\n  {word}", style="not bold")
        return text


def table_of(evidence: Sequence[Evidence], measures: Sequence[str] | None = None) -> Table:
    """The table of some evidence and of the rivals that its end holds; `measures` names its columns, by default the
    main metrics, p50, size and memory."""
    known = list(dict.fromkeys(name for row in evidence for name in row.measures))
    main = metrics(known)[: max((row.headline for row in evidence), default=1)]
    chosen = measures or [*main, *(name for name in ("p50_ms", "size_mb", "memory_mb") if name in known)]
    lines = [Line(e.number, e.name, e.form, e.measures, e.words, e.rehearsal) for e in evidence]
    lines += [Line(e.number, e.name, e.form, e.measures, e.words, e.rehearsal, rival=True) for e in faced(evidence)]
    return Table(tuple(column_of(name, known) for name in chosen), tuple(lines))


def print_table(
    evidence: Sequence[Evidence], console: Console | None = None, measures: Sequence[str] | None = None
) -> None:
    """Prints the table; plain text, 120 columns wide, when the output is not a terminal."""
    from rich.console import Console as Screen

    console = console or Screen()
    if not console.is_terminal:
        console.file.write(table_of(evidence, measures).text())
        return
    table_of(evidence, measures).print(console)


def metrics(names: Iterable[str]) -> list[str]:
    """The task's own metrics among measure names, the main one first."""
    return [name for name in names if "." in name]


def _cell(measure: Measure | None) -> str:
    if measure is None:
        return "-"
    sign = SIGNS[measure.verdict] if measure.verdict else ""
    return " ".join(part for part in (three(measure.value), bounds(measure), sign) if part)


def _coloured(column: Column, measure: Measure | None, unit: str = "") -> Any:
    from rich.text import Text

    if measure is None:
        return Text("-  ", style="dim")
    text = Text(f"{three(measure.value)} {unit}".rstrip(), style="not bold")
    if interval := (bounds(measure) if column.metric else ""):
        text.append(f" {interval}", style="dim")
    text.append(f" {SIGNS[measure.verdict]}" if measure.verdict else "  ", style=STYLES[measure.verdict or "same"])
    return text


def _html_cell(column: Column, measure: Measure | None) -> str:
    title = f"data-title='{escape(column.heading, quote=True)}'"
    if measure is None:
        return f"<td class='value none' {title}>–</td>"
    interval = f"<span class='interval'>{bounds(measure)}</span>" if column.metric else ""
    change = ""
    if measure.change is not None and measure.verdict == "same":
        change = f"<span class='change same'>{SIGNS['same']} same</span>"
    elif measure.change is not None and measure.verdict:
        amount = share(measure) if not column.metric else ""
        said = f"{amount or signed(measure.change.value)} {SIGNS[measure.verdict]} {measure.verdict}"
        hover = f"change {signed(measure.change.value)} [{signed(measure.change.low)}, {signed(measure.change.high)}]"
        change = f"<span class='change {measure.verdict}' title='{hover}, {measure.count:,} counted'>{said}</span>"
    return f"<td class='value' {title}><b>{three(measure.value)}</b>{interval}{change}</td>"


def _bullets(console: Console, line: Line) -> None:
    from rich.padding import Padding
    from rich.text import Text

    if line.words:
        console.print(Text(f"{line.label} {line.form}".rstrip(), style="bold"))
        for word in line.words:
            console.print(Padding(Text(word), (0, 0, 0, 2)))
