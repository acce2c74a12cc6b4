"""The order, conflicts and missing extras of a whole recipe, before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from luodi.core import catalog, device, limits
from luodi.core.errors import BadRequest, LuodiError, Refused
from luodi.core.run import CACHE
from luodi.core.step import Step

if TYPE_CHECKING:
    from pathlib import Path

    from luodi.core.bundle import Bundle
    from luodi.core.recipe import Recipe
    from luodi.core.task import Task
    from luodi.core.thing import ModelConfig

_MAKERS = {
    "rows": "give the recipe data:",
    "split": "put split before it",
    "model": "put train before it, or start from a bundle (from: PATH)",
    "float": "put it before the step that ended it, or start from the float bundle",
    "loss": "this task has no loss",
    "world": "this task cannot be played",
    "forms": "put export before it",
}


def first_facts(task: Task, has_data: bool, stored: frozenset[str] = frozenset()) -> frozenset[str]:
    """What holds before the first step."""
    return stored | task.gives | ({"rows"} if has_data else frozenset())


def problem(step: Step, have: frozenset[str], task: Task, config: ModelConfig | None, where: str,
            ended: dict[str, str] | None = None) -> str | None:  # fmt: skip
    """Why this step cannot run on a bundle with these facts, or None."""
    facts = step.facts(have)
    order = list(_MAKERS)  # what is lacking first is said first: without a model there is no float model either
    for fact in sorted(facts.needs - have, key=lambda fact: order.index(fact) if fact in order else len(order)):
        if ended and fact in ended:
            return f"{where} needs {fact!r}, which {ended[fact]} ended; {_MAKERS.get(fact, '')}".rstrip("; ")
        so_far = f"so far: {', '.join(sorted(have)) or 'nothing'}"
        return f"{where} needs {fact!r} ({so_far}); {_MAKERS.get(fact, '')}".rstrip("; ")
    for fact in sorted(facts.excludes & have):
        return f"{where} must not come after {fact!r}"
    reason = step.objection(task, config)
    return f"{where} is not possible here: {reason}" if reason else None


def problems(recipe: Recipe, task: Task, config: ModelConfig | None, stored: frozenset[str] = frozenset(),
             labels: Sequence[str] = ()) -> list[str]:  # fmt: skip
    """Every problem of the recipe's steps, in order; empty: it can be run. `labels` name the steps."""
    have = first_facts(task, recipe.data is not None or "rows" in stored, stored)
    ended: dict[str, str] = {}
    found: list[str] = []
    chosen = device.choose(recipe.device)
    for number, step in enumerate(recipe.steps, 1):
        assert isinstance(step, Step)
        where = labels[number - 1] if labels else f"step {number} {catalog.name_of(type(step))}"
        wrong = problem(step, have, task, config, where, ended)
        found += [wrong] if wrong else []
        lacking = step.lacks(chosen)
        found += [f"{where} cannot work on {chosen}: {lacking}"] if lacking else []
        facts = step.facts(have)
        ended.update(dict.fromkeys(facts.ends & have, where))
        have = (have - facts.ends) | facts.gives
    for metric in recipe.limits.drop:
        try:
            limits.full_name(metric, list(task.metrics()))
        except LuodiError as error:
            found.append(str(error))
    for extra in missing_extras(recipe):
        found.append(f"the extra {extra!r} is not installed: pip install 'luodi[{extra}]'")
    return found


def foreseen(
    steps: Sequence[Step], task: Task, config: ModelConfig | None, cache: Path
) -> tuple[Task, ModelConfig | None] | None:
    """Task and model config as all these steps will have left them; None: a step has to fetch something first."""
    for step in steps:
        found = step.foresee(task, config, cache)
        if found is None:
            return None
        task, config = found
    return task, config


def build_problem(start: Bundle, steps: Sequence[Step] = (), cache: Path = CACHE) -> str | None:
    """Why the model cannot be built for these columns, found on the meta device with a task fitted on a few rows."""
    if start.model is not None or start.data is None:
        return None
    import torch

    rows = start.data.splits["all"]
    try:
        found = foreseen(steps, start.task, start.config, cache)
        if found is None or found[1] is None:
            return None
        task, config = found[0], found[1]
        fitted = task.fit(rows.take(range(0, len(rows), max(len(rows) // 512, 1))))
        with torch.device("meta"):
            fitted.build(config)
    except BadRequest as error:
        return None if any(step.mends for step in steps) else f"the model cannot be built: {error}"
    except (LuodiError, ValueError) as error:
        return f"the model cannot be built: {error}"
    return None


def missing_extras(recipe: Recipe) -> list[str]:
    """Extras that the recipe's things name and that are not installed."""
    wanted: dict[str, str] = {}
    things: list[Any] = [recipe.task, recipe.data, recipe.model, *recipe.steps]
    for thing in things:
        if hasattr(type(thing), "packages"):
            wanted.update(thing.packages())
    return catalog.missing(wanted)


def refuse(step: Step, have: frozenset[str], task: Task, config: ModelConfig | None, number: int) -> None:
    """Raises Refused if the step cannot run here."""
    where = f"step {number} {catalog.name_of(type(step))}"
    wrong = problem(step, have, task, config, where)
    if wrong:
        raise Refused(wrong)
