"""`luodi plan`: order, conflicts, missing extras, time and memory; nothing is fetched, written or allocated."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from luodi.core import atomic, catalog, check, device, rivals, store
from luodi.core.bundle import Bundle
from luodi.core.errors import BadRequest, LuodiError
from luodi.core.outlook import Outlook, outlook
from luodi.core.recipe import Recipe
from luodi.core.source import Source
from luodi.core.step import Step
from luodi.core.task import Task
from luodi.core.thing import Trust, dump, make
from luodi.data.sample import Sample


def plan_recipe(
    path: Path, settings: Sequence[str], out: Path, cache: Path, trust: tuple[str, ...], *, json: bool
) -> int:
    """Prints the plan; returns 0, or 2 if the recipe cannot be run."""
    recipe = Recipe.read(path, settings)
    facts = _facts(recipe, out, cache, trust)
    print(jsonlib.dumps(facts, ensure_ascii=False, indent=1) if json else _text(facts))
    return 2 if facts["problems"] else 0


def _facts(recipe: Recipe, out: Path, cache: Path, trust: tuple[str, ...]) -> dict[str, Any]:
    start = _start(recipe, trust)
    problems = check.problems(recipe, start.task, start.config, start.facts)
    problems += rivals.problems(recipe, start, problems, known=False)
    past = _past(out / recipe.name)
    steps, view, wrong, unknown = _steps(recipe, start, cache, past)
    others = []
    for other in rivals.others(recipe):
        if other.way == "against":
            more, _, found, _ = _steps(other.recipe, rivals.started(other, start), cache, past)
            wrong += [f"measure.against.{other.name}: {one}" for one in found]
            others.append({"way": other.way, "name": other.name, "steps": more})
    return {
        "recipe": recipe.name, "device": device.choose(recipe.device),
        "threads": recipe.threads.train or device.cores(), "steps": steps, "others": others,
        "model": {"parameters": view.parameters, "flops": view.flops} if view else None,
        "unknown": unknown, "problems": problems + wrong,
    }  # fmt: skip


def _start(recipe: Recipe, trust: tuple[str, ...]) -> Bundle:
    """What the first step will be given, without its rows."""
    if recipe.start is None:
        return Bundle(task=cast(Any, recipe.task), config=recipe.model)
    head = store.peek(Path(recipe.start))
    trusted = Trust(trust, head["own"])
    task = cast(Any, make("tasks", head["task"], trusted))
    config = cast(Any, make("models", head["config"], trusted)) if head["config"] else None
    stored = frozenset(head["facts"]) | ({"rows", "split"} if head["origin"] else set())
    return Bundle(task=task, config=config, facts=stored)


def _steps(
    recipe: Recipe, start: Bundle, cache: Path, past: dict[str, float]
) -> tuple[list[dict[str, Any]], Outlook | None, list[str], str]:
    """Every step with its forecast; the outlook; the problem that building shows; why there is no outlook."""
    view, unknown = _outlook(recipe, start.task, start.config, cache, recipe.threads.train or device.cores())
    view, wrong = (None, [view]) if isinstance(view, str) else (view, [])
    steps = []
    for number, step in enumerate(recipe.steps, 1):
        assert isinstance(step, Step)
        forecast = step.forecast(view) if view is not None else None
        steps.append({
            "number": number, "name": catalog.name_of(type(step)), "step": dump(step, short=True),
            "forecast": asdict(forecast) if forecast else None,
            "last_time_seconds": past.get(jsonlib.dumps(dump(step), sort_keys=True)),
            "cautions": step.cautions(device.choose(recipe.device)),
        })  # fmt: skip
    return steps, view, wrong, unknown


def _outlook(recipe: Recipe, task: Task, config: Any, cache: Path, threads: int) -> tuple[Outlook | str | None, str]:
    """(the outlook, or the problem that building shows), and why it is not known."""
    if recipe.data is None:
        return None, "there is no data to count"
    assert isinstance(recipe.data, Source)
    rows = recipe.data.kept(cache)
    if rows is None:
        return None, "the data are not in the cache yet, so time and memory are not known"
    kept, test = next(((s.validation, s.test) for s in recipe.steps if hasattr(s, "validation")), (0.0, 0.0))
    try:
        found = check.foreseen(recipe.steps, task, config, cache)
        if found is None:
            return None, "the weights are not in the cache yet, so time and memory are not known"
        task, config = found
        if config is None:
            return None, "there is no model to count"
        fitted = task.fit(rows.take(range(0, len(rows), max(len(rows) // 512, 1))))
        shares = {"train": _sampled(recipe, 1 - kept - test, len(rows)), "validation": kept}
        return outlook(fitted, config, rows, threads, **shares, device=device.choose(recipe.device)), ""
    except BadRequest as error:
        if any(step.mends for step in recipe.steps):
            return None, f"time and memory are not known before the rows are clean ({error})"
        return f"the model cannot be built: {error}", ""
    except (LuodiError, ValueError) as error:
        return f"the model cannot be built: {error}", ""


def _sampled(recipe: Recipe, train: float, rows: int) -> float:
    """Which share of all rows is trained on, after steps that take fewer."""
    for step in recipe.steps:
        if isinstance(step, Sample) and (step.count or step.share):
            whole = rows if step.on == "all" else rows * train
            train *= min(step.count / max(whole, 1) if step.count else step.share or 1.0, 1.0)
    return train


def _past(folder: Path) -> dict[str, float]:
    """Step with all its fields -> seconds it took in the run that is here."""
    notes = [atomic.read_json(path) for path in (folder / "steps").glob("*/step.json")]
    return {jsonlib.dumps(note["step"], sort_keys=True): note["seconds"] for note in notes}


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else "less than 1"


def _text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['recipe']}: device {facts['device']}, {facts['threads']} threads"]
    if facts["model"]:
        flops = facts["model"]["flops"] / 1e6
        lines.append(f"model: {facts['model']['parameters']:,} parameters, {flops:,.2f} MFLOP a forward")
    lines += _told(facts["steps"])
    for other in facts["others"]:
        lines += [f"against {other['name']}, on the same rows:", *_told(other["steps"])]
    lines += [facts["unknown"]] if facts["unknown"] else []
    lines += ["", "cannot be run:", *(f"  {one}" for one in facts["problems"])] if facts["problems"] else ["can be run"]
    return "\n".join(lines)


def _told(steps: Sequence[dict[str, Any]]) -> list[str]:
    """A line a step: what it took, what it will take; below it what else there is to say."""
    lines = []
    for step in steps:
        about = []
        if step["last_time_seconds"] is not None:
            about.append(f"{step['last_time_seconds']:.1f} s last time")
        if step["forecast"]:
            cost = step["forecast"]
            about.append(f"about {_round(cost['seconds'])} s and {_round(cost['memory_mb'])} MB")
        lines.append(f"  {step['number']}. {step['name']:<12} {', '.join(about)}".rstrip())
        lines += [f"     {step['forecast']['told']}"] if step["forecast"] and step["forecast"]["told"] else []
        lines += [f"     {caution}" for caution in step["cautions"]]
    return lines
