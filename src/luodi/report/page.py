"""report.html and report.json of a run folder: every panel that has something to show, opened offline."""

from __future__ import annotations

import shutil
from html import escape
from pathlib import Path
from typing import Any

from luodi.core import atomic, catalog
from luodi.core.errors import LuodiError
from luodi.report.panel import Panel
from luodi.report.units import data
from luodi.report.view import View

HERE = Path(__file__).parent
# The page asks for nothing: its script is beside it, its pictures are inside it.
POLICY = "default-src 'none'; script-src 'self' 'unsafe-inline' file:; style-src 'unsafe-inline'; img-src data:"
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'%3E"
    "%3Crect width='24' height='24' rx='6' fill='%23b23a2e'/%3E%3Ctext x='12' y='17' font-size='14' "
    "text-anchor='middle' fill='white'%3E%E8%90%BD%3C/text%3E%3C/svg%3E"
)


def build(run_folder: Path) -> Path:
    """Writes report.html, report.json and plotly.min.js into the run folder; gives back report.html's path."""
    if not Path(run_folder).is_dir():
        raise LuodiError(f"{run_folder} is no folder of a run; `luodi list runs` shows what there is")
    view = View(Path(run_folder))
    _plotly(view.folder / "plotly.min.js")
    atomic.write_json(view.folder / "report.json", report(view))
    return atomic.write_text(view.folder / "report.html", page(view))


def panels() -> list[tuple[str, Panel]]:
    """Every panel of the catalog with its name, in the order they are shown."""
    found: list[tuple[str, Panel]] = [(name, catalog.load("panels", name)()) for name in catalog.entries("panels")]
    return sorted(found, key=lambda item: (item[1].order, item[0]))


def page(view: View) -> str:
    """The whole page as HTML."""
    shown = [(name, panel) for name, panel in panels() if panel.wanted(view)]
    links = "".join(f"<a href='#{name}'>{name}</a>" for name, _ in shown if name != "summary")
    body = "".join(
        f"<section class='panel' id='{name}'><h2>{escape(panel.title)}</h2>{panel.html(view)}</section>"
        for name, panel in shown
    )
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(view.name)} · luodi report</title><link rel="icon" href="{ICON}"><style>{style}</style>
<script src="plotly.min.js"></script><script>{script}</script></head>
<body><div class="bar"><nav>
<a class="mark" href="#summary"><span class="seal" lang="zh">落</span>luodi</a>{links}</nav></div>
<main>{body}<noscript><p>Charts need JavaScript; every number is also in report.json.</p></noscript></main>
<footer>luodi 落地 · made offline from this run's own files · <a href="report.json">report.json</a></footer>
</body></html>
"""


def report(view: View) -> dict[str, Any]:
    """Everything the page shows, for machines."""
    evidence = [data(one) for one in view.evidence]
    return {
        "name": view.name,
        "rehearsal": view.rehearsal,
        "evidence": evidence,
        "table": view.table.json(),
        "limits": view.limits,
        "recipe": view.recipe,
        "machine": view.evidence[-1].machine if view.evidence else {},
        "learning": {
            f"{one['number']} {one['name']}": one["notes"]["history"] for one in evidence if "history" in one["notes"]
        },
        "answers": {target: answers.json() for target, answers in view.final.items()},
        "lineage": {key: view.head.get(key) for key in ("luodi", "digest", "origin", "edits", "forms", "serving")},
    }


def _plotly(path: Path) -> None:
    """Plotly's script, copied once from the installed package."""
    package = catalog.require("plotly", "report")
    source = Path(package.__file__).parent / "package_data" / "plotly.min.js"
    if not path.is_file() or path.stat().st_size != source.stat().st_size:
        shutil.copyfile(source, path)
