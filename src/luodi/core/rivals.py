"""Other recipes on the same rows, which a recipe asks to be compared with: itself without a step, and its rivals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from luodi.core import catalog, check, records, statistics, store, words
from luodi.core.evidence import RIVALS, Evidence, Measure, plain
from luodi.core.folder import RunFolder
from luodi.core.limits import Limits
from luodi.core.recipe import Recipe
from luodi.core.run import ASIDE
from luodi.core.step import Step
from luodi.core.thing import make
from luodi.core.work import Place, Work

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.task import Exam

SAID = "against the recipe without it: "


@dataclass(frozen=True)
class Other:
    """Another recipe: `without` a step of that name, or `against` a rival of that name."""

    way: Literal["without", "against"]
    name: str
    recipe: Recipe
    labels: tuple[str, ...]  # how a refusal names each step

    @property
    def told(self) -> str:
        """What is run, as a line of progress."""
        return f"the recipe again, without {self.name}" if self.way == "without" else f"its rival {self.name}"


def others(recipe: Recipe) -> list[Other]:
    """Every other recipe that this one asks for."""
    return [_without(recipe, name) for name in recipe.measure.without] + [
        _against(recipe, name) for name in recipe.measure.against
    ]


def _without(recipe: Recipe, name: str) -> Other:
    """The recipe with no step of this name."""
    steps = tuple(step for step in recipe.steps if catalog.name_of(type(step)) != name)
    labels = tuple(
        f"without {name} (measure.without): step {number} {catalog.name_of(type(step))}"
        for number, step in enumerate(steps, 1)
    )
    return Other("without", name, recipe.model_copy(update={"steps": steps}), labels)


def _against(recipe: Recipe, name: str) -> Other:
    """The recipe's steps on rows, then the rival's; its limits and comparisons are the recipe's own matter."""
    rival, where = recipe.measure.against[name], f"measure.against.{name}"
    shared = tuple(step for step in recipe.steps if _is_of_rows(step))
    changes = {
        "task": rival.task or recipe.task, "model": rival.model or recipe.model, "steps": (*shared, *rival.steps),
        "limits": Limits(), "measure": recipe.measure.model_copy(update={"without": (), "against": {}}),
    }  # fmt: skip
    labels = [f"{where}: the recipe's step {catalog.name_of(type(step))}" for step in shared]
    labels += [f"{where}.steps.{at} {catalog.name_of(type(step))}" for at, step in enumerate(rival.steps)]
    return Other("against", name, recipe.model_copy(update=changes), tuple(labels))


def _is_of_rows(step: Step) -> bool:
    """Whether a step works on the rows alone: it neither wants a model nor leaves one."""
    facts = step.facts(frozenset())
    touched = facts.needs | facts.gives | facts.ends
    return bool(facts.needs & {"rows", "split"}) and not touched & {"model", "float", "fitted", "forms"}


def problems(recipe: Recipe, start: Bundle, said: Sequence[str], *, known: bool) -> list[str]:
    """Why one of the other recipes cannot be run, as far as it was not `said` of the recipe itself; of a rival's model
    too, once the rows are `known`."""
    found: list[str] = []
    for other in others(recipe):
        begun = started(other, start)
        more = check.problems(other.recipe, begun.task, begun.config, begun.facts, other.labels)
        built = check.build_problem(begun, other.recipe.steps) if known and other.way == "against" else None
        more += [f"measure.against.{other.name}: {built}"] if built else []
        found += [one for one in more if one not in (*said, *found)]
    return found


def started(other: Other, start: Bundle) -> Bundle:
    """The bundle that the recipe starts from, with the rival's task and model."""
    if other.recipe.start is not None:
        return start
    task: Any = other.recipe.task
    return replace(start, task=task, config=other.recipe.model)


def work_of(work: Work, other: Other, start: Bundle) -> Work:
    """The run of another recipe: the same folder, so that equal steps are not done twice; events of its own."""
    folder = RunFolder(work.folder.path, work.folder.listener, stream=f"events.{other.way}-{other.name}.jsonl")
    run = replace(work.run, log=folder.log)
    return replace(work, recipe=other.recipe, folder=folder, run=run, task=start.task, config=start.config)


def noted(work: Work, whole: Place, ends: list[tuple[Other, Place]]) -> Place:
    """The end of the recipe; its evidence also says what a step was worth, and how it does against rivals. Kept in the
    bundle."""
    evidence = tuple(_bare(one) for one in whole.evidence)
    for other, end in ends:
        found = effect(work, whole, end)
        if other.way == "without":
            evidence = tuple(_told(work, one, found) if one.name == other.name else one for one in evidence)
        else:
            folds = in_folds(work, whole, end)
            evidence = (*evidence[:-1], _faced(evidence[-1], other.name, end.evidence, found, folds))
    if evidence != whole.evidence:
        store.add(whole.path, evidence)
    return whole.with_evidence(evidence)


def effect(work: Work, whole: Place, other: Place) -> dict[str, Measure] | str:
    """Metric -> its value at the end of the recipe, with the paired change; or why there is nothing to compare."""
    mine, theirs = whole.evidence[-1], other.evidence[-1]
    if not mine.records or not theirs.records:
        return "not comparable, no answers were scored"
    if mine.rows != theirs.rows:
        return "not comparable, other rows were held out"
    folder = work.folder.path / "records"
    found = _paired(work, whole, other, records.read(folder / mine.records), records.read(folder / theirs.records))
    return found if found is not None else "not comparable, it is scored by other metrics"


def in_folds(work: Work, whole: Place, other: Place) -> dict[str, Measure] | None:
    """The same of every row that `folds` asked a model about which had not learned from it; None if not both did."""
    mine, theirs = _asked(work, whole), _asked(work, other)
    if mine is None or theirs is None or sorted(mine.ids) != sorted(theirs.ids):
        return None
    return _paired(work, whole, other, mine, theirs)


def _asked(work: Work, place: Place) -> Exam | None:
    for one in place.evidence:
        path = work.folder.step(one.records.partition(".")[0]) / ASIDE / records.FOLDS
        if "folds" in one.notes and path.is_file():
            return records.read(path)
    return None


def _paired(work: Work, whole: Place, other: Place, mine: Exam, theirs: Exam) -> dict[str, Measure] | None:
    """None where the two have no main metric in common."""
    new, old = records.shared(mine, theirs)
    task, past = (_task(place) for place in (whole, other))
    if next(iter(task.metrics())) not in past.metrics():
        return None
    better = dict(task.metrics())
    return statistics.bootstrap(
        lambda rows: task.score(new.take(rows)), lambda rows: past.score(old.take(rows)), len(new),
        work.budget.resamples, better,
    )  # fmt: skip


def _task(place: Place) -> Any:
    """The fitted task of a saved bundle."""
    return make("tasks", store.peek(place.path)["task"])


def _told(work: Work, one: Evidence, found: dict[str, Measure] | str) -> Evidence:
    kept = tuple(text for text in one.words if not text.startswith(SAID))
    if isinstance(found, str):
        return one.model_copy(update={"words": (*kept, SAID + found), "notes": {**one.notes, "effect": found}})
    better = dict(work.task.metrics())
    main = next(iter(better))
    figures = _figures(found)
    said = SAID + words.quality(main, found[main], better)
    return one.model_copy(update={"words": (*kept, said), "notes": {**one.notes, "effect": figures}})


def _faced(one: Evidence, name: str, theirs: tuple[Evidence, ...], found: dict[str, Measure] | str,
           folds: dict[str, Measure] | None) -> Evidence:  # fmt: skip
    """The last evidence with a rival in its notes: its steps, its own figures, and the difference to it."""
    end = theirs[-1]
    said = [found if isinstance(found, str) else words.against(name, *next(iter(found.items())))]
    kept: dict[str, Any] = {"steps": [past.name for past in theirs], "difference": _figures(found)}
    if folds:
        main, measure = next(iter(folds.items()))
        said.append(f"in folds, {measure.count:,} rows: {words.against(name, main, measure)}")
        kept["folds"] = _figures(folds)
    row = end.model_copy(update={"words": tuple(said), "notes": {}, "name": name, "measures": _alone(end)})
    kept["evidence"] = plain(row)
    return one.model_copy(update={"notes": {**one.notes, RIVALS: {**one.notes.get(RIVALS, {}), name: kept}}})


def _figures(found: dict[str, Measure] | str) -> Any:
    return found if isinstance(found, str) else {metric: plain(measure) for metric, measure in found.items()}


def _alone(one: Evidence) -> dict[str, Measure]:
    """Its values without the changes against the rival's own step before."""
    return {name: value.model_copy(update={"change": None, "verdict": None}) for name, value in one.measures.items()}


def _bare(one: Evidence) -> Evidence:
    """Without rivals of an earlier run."""
    return one.model_copy(update={"notes": {key: value for key, value in one.notes.items() if key != RIVALS}})
