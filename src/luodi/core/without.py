"""What a step was worth: the end of a recipe against its end without that step, on the same held-out rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from luodi.core import catalog, records, statistics, store, words
from luodi.core.evidence import Evidence, Measure, plain
from luodi.core.folder import RunFolder
from luodi.core.recipe import Recipe
from luodi.core.thing import make
from luodi.core.work import Place, Work

SAID = "against the recipe without it: "


def recipe_without(recipe: Recipe, name: str) -> Recipe:
    """The recipe with no step of this name."""
    return recipe.model_copy(
        update={"steps": tuple(step for step in recipe.steps if catalog.name_of(type(step)) != name)}
    )


def work_without(work: Work, name: str) -> Work:
    """The run of the shorter recipe: the same folder, so that equal steps are not done twice; events of its own."""
    folder = RunFolder(work.folder.path, work.folder.listener, stream=f"events.without-{name}.jsonl")
    return replace(work, recipe=recipe_without(work.recipe, name), folder=folder, run=replace(work.run, log=folder.log))


def noted(work: Work, whole: Place, shorter: Place, name: str) -> Place:
    """The end of the recipe; the evidence of the named steps also says what they were worth. Kept in the bundle."""
    found = effect(work, whole, shorter)
    evidence = tuple(_told(work, one, found) if one.name == name else one for one in whole.evidence)
    if evidence != whole.evidence:
        store.add(whole.path, evidence)
    return whole.with_evidence(evidence)


def effect(work: Work, whole: Place, shorter: Place) -> dict[str, Measure] | str:
    """Metric -> its value at the end of the recipe, with the paired change; or why there is nothing to compare."""
    mine, theirs = whole.evidence[-1], shorter.evidence[-1]
    if not mine.records or not theirs.records:
        return "not comparable, no answers were scored"
    if mine.rows != theirs.rows:
        return "not comparable, other rows were held out"
    folder = work.folder.path / "records"
    new, old = records.shared(records.read(folder / mine.records), records.read(folder / theirs.records))
    task: Any = make("tasks", store.peek(whole.path)["task"])
    better = dict(task.metrics())
    return statistics.bootstrap(
        lambda rows: task.score(new.take(rows)), lambda rows: task.score(old.take(rows)), len(new),
        work.budget.resamples, better,
    )  # fmt: skip


def _told(work: Work, one: Evidence, found: dict[str, Measure] | str) -> Evidence:
    kept = tuple(text for text in one.words if not text.startswith(SAID))
    if isinstance(found, str):
        return one.model_copy(update={"words": (*kept, SAID + found), "notes": {**one.notes, "effect": found}})
    better = dict(work.task.metrics())
    main = next(iter(better))
    figures = {name: plain(measure) for name, measure in found.items()}
    said = SAID + words.quality(main, found[main], better)
    return one.model_copy(update={"words": (*kept, said), "notes": {**one.notes, "effect": figures}})
