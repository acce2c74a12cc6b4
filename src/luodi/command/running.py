"""`luodi run`: the recipe, what is shown meanwhile, the table, the report and the limits."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Sequence
from pathlib import Path

from luodi.command.terminal import Terminal
from luodi.core.bundle import Bundle
from luodi.core.engine import Result
from luodi.core.engine import run as run_engine
from luodi.core.evidence import plain
from luodi.core.recipe import Recipe


def run_recipe(
    path: Path, settings: Sequence[str], out: Path, cache: Path, trust: tuple[str, ...], *,
    rehearse: bool, strict: bool, json: bool,
) -> int:  # fmt: skip
    """Runs a recipe file and prints its table; returns the exit code: 0, or 3 if a limit is not met."""
    recipe = Recipe.read(path, settings)
    return run_and_show(recipe, out, cache, trust, rehearse=rehearse, strict=strict, json=json)


def run_and_show(
    recipe: Recipe, out: Path, cache: Path, trust: tuple[str, ...], *, rehearse: bool, strict: bool, json: bool
) -> int:
    """Runs a recipe and prints its table; returns the exit code: 0, or 3 if a limit is not met."""
    with Terminal(quiet=json) as terminal:
        result = run_engine(recipe, out=out, cache=cache, listener=terminal, rehearse=rehearse, trust=trust)
    page = finish(result, result.trust)
    if json:
        print(jsonlib.dumps(_machine_readable(result)))
    else:
        _print_table(result, page)
    return exit_code(result, strict=strict, rehearse=rehearse)


def finish(result: Result, trust: tuple[str, ...]) -> Path:
    """Writes the card into the bundle and the report beside it; returns the page."""
    from luodi.core import store
    from luodi.report.card import card
    from luodi.report.page import build

    bundle = Bundle.load(result.bundle, form="serving", check=False, trust=trust)
    store.add(result.bundle, card=card(bundle, result.folder.name))
    return build(result.folder)


def exit_code(result: Result, *, strict: bool, rehearse: bool) -> int:
    """3 when a limit is missed or was not measured, if strict, undecided, or a step says that it could not keep to what
    it was to. A rehearsal decides nothing."""
    bad = {"missed", "not measured"} | ({"undecided"} if strict else set())
    unmet = any("unmet" in one.notes for one in result.evidence)
    return 3 if not rehearse and (unmet or any(one.state in bad for one in result.verdicts)) else 0


def _machine_readable(result: Result) -> dict[str, object]:
    return {
        "run": str(result.folder),
        "bundle": str(result.bundle),
        "evidence": [plain(one) for one in result.evidence],
        "limits": [plain(one) for one in result.verdicts],
        "done": result.done,
        "kept": result.kept,
    }


def _print_table(result: Result, page: Path) -> None:
    from luodi.report.table import print_table

    print_table(list(result.evidence))
    for one in result.verdicts:
        print(f"limit {one.state}: {one.words}", file=sys.stdout if one.state == "met" else sys.stderr)
    for one in result.evidence:
        if "unmet" in one.notes:
            print(f"{one.name}: {one.notes['unmet']}", file=sys.stderr)
    if result.kept and not result.done:
        print(f"\nnothing to do: all {result.kept} steps were kept from an earlier run")
    found = result.folder / "found.yaml"
    print(f"\nreport  {page}\nserve   luodi serve {result.bundle}")
    if found.is_file():
        print(f"again   luodi run {found}   (the steps that were found, without the search)")
