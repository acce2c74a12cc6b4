"""What there is, read from the sources: imports neither torch nor pydantic."""

from __future__ import annotations

import ast
import json as jsonlib
import re
from pathlib import Path
from typing import Any

from luodi.core import catalog
from luodi.core.errors import LuodiError, nearest

SIGNS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "length at least"}
ANNOTATED = re.compile(r"Annotated\[([^\[\]]+), ((?:Field|Slot)\([^()]*\))\]")
BOUND = re.compile(r"(ge|gt|le|lt|min_length)=([^,)]+)")


def listed(what: str, runs: Path, *, json: bool = False) -> str:
    """All slots, or the entries of one, the recipes here, or the runs with their main figures and sizes."""
    if what == "runs":
        return _runs(runs, json=json)
    if what == "recipes":
        found = sorted(str(path) for path in Path().glob("recipes/*.yaml"))
        return jsonlib.dumps(found) if json else "\n".join(found) or "no recipes/*.yaml here; luodi init writes one"
    if what and what not in catalog.SLOTS:
        raise LuodiError(f"nothing to list is called {what!r}; {nearest(what, [*catalog.SLOTS, 'runs', 'recipes'])}")
    slots = [what] if what else [slot for slot in catalog.SLOTS if slot != "panels"]
    if json:
        rows = {slot: {e.name: e.summary for e in catalog.entries(slot).values()} for slot in slots}
        return jsonlib.dumps(rows, ensure_ascii=False, indent=1)
    blocks = []
    for slot in slots:
        known = catalog.entries(slot)
        width = max((len(name) for name in known), default=0)
        blocks.append("\n".join([slot, *(f"  {e.name:<{width}}  {e.summary}" for e in known.values())]))
    return "\n\n".join(blocks)


def shown(name: str, *, json: bool = False) -> str:
    """What a named thing does, and its fields with types, defaults and comments."""
    found = [catalog.entries(slot)[name] for slot in catalog.SLOTS if name in catalog.entries(slot)]
    if not found:
        every = [entry for slot in catalog.SLOTS for entry in catalog.entries(slot)]
        raise LuodiError(f"nothing is named {name!r}; {nearest(name, every)}")
    facts = [_facts(entry) for entry in found]
    return jsonlib.dumps(facts, ensure_ascii=False, indent=1) if json else "\n\n".join(map(_text, facts))


def _facts(entry: catalog.Entry) -> dict[str, Any]:
    node = catalog.class_node(entry.path)
    fields = _arguments(node, entry.path) if entry.slot == "models" else _fields(node, entry.path)
    return {"slot": entry.slot, "name": entry.name, "about": ast.get_docstring(node) or "", "fields": fields}


def _fields(node: ast.ClassDef, path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            kind = ast.unparse(item.annotation)
            if "ClassVar" in kind or item.target.id.startswith("_"):
                continue
            found.append(_field(item.target.id, kind, item.value, lines, item.end_lineno or item.lineno))
    return found


def _arguments(node: ast.ClassDef, path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    init = next(item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__")
    pairs = zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
    return [_field(a.arg, ast.unparse(a.annotation or ast.Constant("")), d, lines, a.lineno) for a, d in pairs]


def _field(name: str, kind: str, default: ast.expr | None, lines: list[str], line: int) -> dict[str, str]:
    text = lines[line - 1]
    comment = text.partition("  # ")[2] if "  # " in text else ""
    value = ast.unparse(default) if default is not None else "required"
    kind, bounds = _plain(kind)
    if isinstance(default, ast.Call) and default.args:  # Field(0.1, ge=0, lt=1)
        bounds += [f"{SIGNS[k.arg]} {ast.unparse(k.value)}" for k in default.keywords if k.arg in SIGNS]
        value = ast.unparse(default.args[0])
    comment = "; ".join(part for part in (comment, ", ".join(bounds)) if part)
    return {"name": name, "type": kind, "default": "required" if value == "..." else value, "about": comment}


def _plain(kind: str) -> tuple[str, list[str]]:
    """A field's type as its reader writes it, and its bounds: `Annotated[int, Field(ge=1)]` is int, at least 1."""
    bounds: list[str] = []

    def simpler(found: re.Match[str]) -> str:
        bounds.extend(f"{SIGNS[key]} {value}" for key, value in BOUND.findall(found[2]))
        slot = re.match(r"Slot\('(\w+)'\)", found[2])
        return f"one of {slot[1]}" if slot else found[1]

    while (shorter := ANNOTATED.sub(simpler, kind)) != kind:
        kind = shorter
    return kind, bounds


def _text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['name']}  ({facts['slot']})", "", facts["about"]]
    if facts["fields"]:
        width = max(len(field["name"]) for field in facts["fields"])
        lines += ["", "fields"]
        for field in facts["fields"]:
            about = f"  # {field['about']}" if field["about"] else ""
            lines.append(f"  {field['name']:<{width}}  {field['type']} = {field['default']}{about}")
    return "\n".join(lines)


def _runs(folder: Path, *, json: bool) -> str:
    """Runs with their last evidence: main figures and size on disk."""
    found = []
    for path in sorted(folder.glob("*/recipe.yaml")):
        home = path.parent
        size = len_files(home)
        row: dict[str, Any] = {"run": home.name, "mb": round(size / 1e6, 2), "state": "unfinished"}
        file = home / "bundle" / "evidence" / "evidence.json"
        if file.is_file():
            last = jsonlib.loads(file.read_text(encoding="utf-8"))[-1]
            figures = {name: m["value"] for name, m in last["measures"].items()}
            row |= {"state": "done", "form": last["form"], "figures": figures}
        found.append(row)
    if json:
        return jsonlib.dumps(found)
    lines = []
    for row in found:
        figures = row.get("figures", {})
        quality = next((f"{n} {v:.4g}" for n, v in figures.items() if "." in n), "")
        rest = [f"{n} {figures[n]:.4g}" for n in ("p50_ms", "size_mb", "memory_mb") if n in figures]
        lines.append("  ".join([f"{row['run']:<24}", f"{row['state']:<10}", f"{row['mb']:>8} MB", quality, *rest]))
    return "\n".join(line.rstrip() for line in lines) or f"no runs in {folder}; luodi run RECIPE makes one"


def len_files(folder: Path) -> int:
    """Bytes of the files in a folder, a hard-linked one counted once."""
    files = {(p.stat().st_ino, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}
    return sum(size for _, size in files)
