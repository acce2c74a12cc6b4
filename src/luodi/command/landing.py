"""`luodi land`: limits in, steps out, for a bundle that is there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luodi.command.running import run_and_show
from luodi.core import store
from luodi.core.errors import LuodiError
from luodi.core.recipe import Recipe, apply_setting


def land_bundle(
    bundle: Path, limits: str, seconds: float, settings: Sequence[str], out: Path, cache: Path,
    trust: tuple[str, ...], *, json: bool,
) -> int:  # fmt: skip
    """Runs a recipe of one step on a bundle; returns the exit code: 0, or 3 where nothing is within the limits."""
    recipe = recipe_of(bundle, limits, seconds, settings)
    return run_and_show(recipe, out, cache, trust, rehearse=False, strict=False, json=json)


def recipe_of(bundle: Path, limits: str, seconds: float, settings: Sequence[str]) -> Recipe:
    """`from: BUNDLE`, the step `land`, and the limits; named after the bundle's run."""
    place = Path(bundle)
    store.peek(place)  # says at once what is no bundle
    stem = place.resolve().parent.name if place.name == "bundle" else place.resolve().name
    name = re.sub(r"[^\w.-]", "-", stem) + "-landed"
    value: dict[str, Any] = {"name": name, "from": str(place), "steps": [{"land": {"seconds": seconds}}]}
    for one in filter(None, (part.strip() for part in limits.split(","))):
        key, equals, number = one.partition("=")
        if not equals:
            raise LuodiError(f"--limits {one}: expected NAME=NUMBER, as in p50_ms=5,size_mb=1,drop.accuracy=0.01")
        metric = key.removeprefix("drop.")
        apply_setting(value, f'limits.drop."{metric}"={number}' if metric != key else f"limits.{key}={number}")
    for setting in settings:
        apply_setting(value, setting)
    return Recipe.of(value, where="luodi land")
