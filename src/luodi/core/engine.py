"""The runner: a loop over the steps of a recipe, each kept, measured, and not done twice."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from luodi.core import atomic, catalog, check, device, keys, limits, rivals, store
from luodi.core.apply import apply, open_rows, reopen
from luodi.core.appraise import evidence_of, losses, remove_unused
from luodi.core.bundle import Bundle
from luodi.core.child import PRELOADED, Nursery
from luodi.core.errors import LuodiError, Refused
from luodi.core.evidence import Evidence, plain
from luodi.core.folder import Listener, RunFolder, quiet
from luodi.core.recipe import Recipe
from luodi.core.run import ASIDE, CACHE, Run
from luodi.core.step import Step
from luodi.core.task import Task
from luodi.core.thing import dump, make, own_names
from luodi.core.work import Place, Work, held_out, is_kept


@dataclass(frozen=True)
class Result:
    """What a run gave."""

    folder: Path
    evidence: tuple[Evidence, ...]
    verdicts: tuple[limits.Verdict, ...]
    done: int  # steps that were run
    kept: int  # steps that were found done
    trust: tuple[str, ...] = ()  # import paths that opening the bundle needs

    @property
    def bundle(self) -> Path:
        """The last step's bundle."""
        return self.folder / "bundle"


def run(
    recipe: Recipe, *, out: Path = Path("runs"), cache: Path = CACHE, listener: Listener = quiet,
    rehearse: bool = False, trust: tuple[str, ...] = (),
) -> Result:  # fmt: skip
    """Runs a recipe in `out/<name>`; a step whose key is unchanged is not done again. Raises Refused before work."""
    trust = (
        *trust,
        *own_names([recipe.task, recipe.data, recipe.model, recipe.steps, recipe.measure]),
    )  # who names it trusts it
    if isinstance(recipe.task, Task):
        refuse_all(recipe, Bundle(task=recipe.task, config=recipe.model), known=False)  # before anything is fetched
    chosen = device.choose(recipe.device)
    threads = recipe.threads.train or device.cores()
    folder = RunFolder(Path(out) / (recipe.name + (".rehearsal" if rehearse else "")), listener)
    with folder.locked(), Nursery((*PRELOADED, *_slow_to_import(recipe))) as nursery:
        base = Run(
            folder.path, chosen, recipe.seed, threads, cache=cache, home=folder.path, rehearse=rehearse, log=folder.log
        )
        start = first(recipe, base, cache, trust)
        refuse_all(recipe, start, cache=cache)
        work = Work(recipe, folder, cache, base, nursery, trust, start.task, start.config)
        atomic.write_text(folder.path / "recipe.yaml", recipe.yaml(short=False))
        facts = {"recipe": recipe.name, "device": chosen, "threads": threads, "steps": recipe.step_names()}
        folder.log("start", {**facts, "rehearsal": rehearse})
        place, used, done = _steps(work, start)
        place, others = _worth(work, place, used)
        return _finish(work, place, used, done, others)


def _slow_to_import(recipe: Recipe) -> tuple[str, ...]:
    """What every child that opens a bundle would import for seconds: it is imported once, before they are forked."""
    steps = [*recipe.steps, *(step for rival in recipe.measure.against.values() for step in rival.steps)]
    models = [recipe.model, *(rival.model for rival in recipe.measure.against.values())]
    wanted = {package for one in (*steps, *models) if one is not None for package in one.packages()}
    return ("transformers.modeling_utils",) if "transformers" in wanted else ()


def refuse_all(recipe: Recipe, start: Bundle, *, known: bool = True, cache: Path = CACHE) -> None:
    """Raises Refused with every problem of order, conflict, limits or missing extras, or of the model once the rows
    are `known`."""
    found = check.problems(recipe, start.task, start.config, start.facts)
    built = check.build_problem(start, recipe.steps, cache) if known else None
    found += [built] if built else []
    found += rivals.problems(recipe, start, found, known=known)
    if found:
        raise Refused("the recipe cannot be run:\n" + "\n".join(f"  {one}" for one in found))


def first(recipe: Recipe, base: Run, cache: Path, trust: tuple[str, ...]) -> Bundle:
    """The bundle before the first step: the recipe's task and model, or the bundle it starts from, with its rows."""
    rows = open_rows(recipe.data, cache, rehearse=base.rehearse) if recipe.data is not None else None
    if recipe.start is None:
        assert isinstance(recipe.task, Task)
        return Bundle(task=recipe.task, config=recipe.model, data=rows, facts=frozenset({"rows"} if rows else set()))
    bundle = Bundle.load(Path(recipe.start), trust=trust, device=base.device)
    if rows is not None:
        return replace(bundle, data=rows, facts=bundle.facts | {"rows"}, evidence=())
    if not recipe.rows:
        return replace(bundle.without_data(), evidence=())
    try:
        return replace(reopen(bundle, cache, base, trust), evidence=())
    except LuodiError as error:
        raise LuodiError(
            f"the rows that {recipe.start} was made from cannot be opened: {error}\n"
            "say `data:`, or rows: false (--set rows=false) to go on without them: time, size and memory are measured, "
            "quality is not, and steps that need rows are refused"
        ) from error


def _steps(work: Work, start: Bundle) -> tuple[Place, list[str], int]:
    """Where the steps lead, the keys of all that were used, and how many were run."""
    origin = start.data.origin if start.data is not None else None
    place = Place("", origin.fingerprint if origin else "", None, start)
    used: list[str] = []
    done = 0
    if work.recipe.start is not None:
        place, fresh = _kept_start(work, start, place.digest)
        used.append(place.key)
    counts: dict[str, int] = {}
    for number, step in enumerate(work.recipe.steps, 1):
        name = catalog.name_of(type(step))
        scope = (name, counts.get(name, 0))  # not the number: a step put before it must not reseed it
        counts[name] = scope[1] + 1
        work.folder.about = {"step": number, "name": name}
        key = _key(work, place, step, scope)
        fresh = not is_kept(work.folder.step(key))
        state = "run" if fresh else "kept"
        work.folder.log("step", {"state": state, "key": key, "of": len(work.recipe.steps)})
        before = place
        if fresh:
            place = _do(work, before, step, scope, key, number)
        else:
            home = work.folder.step(key)
            place = Place(key, store.peek(home / "bundle")["digest"], home, None)
        done += fresh
        used.append(key)
        place = evidence_of(work, before, place, last=number == len(work.recipe.steps))
    work.folder.about = {}
    return place, used, done


def _worth(work: Work, place: Place, used: list[str]) -> tuple[Place, tuple[Evidence, ...]]:
    """The place with how it compares to the other recipes that were asked for, and the evidence of these."""
    ends: list[tuple[rivals.Other, Place]] = []
    for other in rivals.others(work.recipe):
        work.folder.log("note", {"text": other.told})
        start = first(other.recipe, work.run, work.cache, work.trust)
        end, more, _ = _steps(rivals.work_of(work, other, start), start)
        used += [key for key in more if key not in used]
        ends.append((other, end))
    return rivals.noted(work, place, ends), tuple(one for _, end in ends for one in end.evidence)


def _key(work: Work, place: Place, step: Step, scope: tuple[str, int]) -> str:
    """The key of a step here: parent, step, task, model, seed, scope, sources, libraries, device, threads."""
    fields = {
        "seed": work.run.seed, "scope": scope, "device": work.run.device, "threads": work.run.threads,
        "rehearse": work.run.rehearse,
    }  # fmt: skip
    return keys.key_of(step, [work.task, work.config], (place.key, place.digest), fields)[0]


def _kept_start(work: Work, start: Bundle, fingerprint: str) -> tuple[Place, bool]:
    """The bundle that a recipe starts from, as the kept step 0: what every later row is compared with."""
    assert work.recipe.start is not None
    source = store.located(Path(work.recipe.start))
    digest = store.peek(source)["digest"]
    fields = {"rehearse": work.run.rehearse, "rows": fingerprint, "device": work.run.device}
    key = keys.key_of(work.task, [], ("start", digest), fields)[0]
    home = work.folder.step(key)
    work.folder.about = {"step": 0, "name": "start"}
    fresh = not is_kept(home)
    work.folder.log("step", {"state": "run" if fresh else "kept", "key": key})
    if fresh:
        start.save(home / "bundle")
        note = {"key": key, "name": "start", "number": 0, "step": None, "notes": {}, "seconds": 0.0}
        atomic.write_json(home / "step.json", {**note, "from": str(work.recipe.start)})
    place = Place(key, digest, home, store.settle(start, home / "bundle"))
    return evidence_of(work, Place("", "", None, None), place, last=False), fresh


def _do(work: Work, before: Place, step: Step, scope: tuple[str, int], key: str, number: int) -> Place:
    """Runs a step and keeps its bundle; the measuring process starts up meanwhile."""
    work.nursery.start()
    home = work.folder.step(key)
    parent = before.opened(work)
    inside = replace(work.run, scope=scope, out=home / "work")
    inside.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    try:
        after = apply(step, parent, inside, number)
    except Refused:
        raise
    except LuodiError as error:
        error.args = (f"step {number} {scope[0]}: {error}",)
        raise
    seconds = time.perf_counter() - started
    after = replace(after, evidence=before.evidence)
    after.save(home / "bundle")
    note = {"key": key, "name": scope[0], "number": number, "step": dump(step)}
    atomic.write_json(home / "step.json", {**note, "notes": dict(after.notes), "seconds": seconds})
    if (inside.out / ASIDE).is_dir():
        (inside.out / ASIDE).replace(home / ASIDE)
    shutil.rmtree(inside.out)
    work.folder.log("saved", {"seconds": round(seconds, 3)})
    return Place(key, store.peek(home / "bundle")["digest"], home, store.settle(after, home / "bundle"))


def _finish(work: Work, place: Place, used: list[str], done: int, others: tuple[Evidence, ...]) -> Result:
    folder = work.folder
    if place.home is None:
        raise LuodiError("the recipe has no steps")
    folder.publish(store.located(place.path))
    rows = held_out(work, place)
    if rows is not None:
        test = rows.with_name("test.arrow")
        test.unlink(missing_ok=True)
        atomic.link_or_copy(rows, test)
    named = [one for one in place.evidence if one.form]
    lost = losses(work, place.evidence) if work.recipe.limits.drop else {}
    last = named[-1] if named else place.evidence[-1]  # without figures every limit is "not measured"
    verdicts = tuple(limits.judge(work.recipe.limits, last, lost))
    atomic.write_json(folder.path / "limits.json", [plain(one) for one in verdicts])
    _write_found(work, place.evidence)
    folder.sweep(set(used) if work.recipe.keep == "all" else {place.key})
    remove_unused(work, place.evidence + others, rows)
    kept = len(work.recipe.steps) - done
    folder.log("end", {"done": done, "kept": kept})
    return Result(folder.path, place.evidence, verdicts, done, kept, work.trust)


def _write_found(work: Work, evidence: tuple[Evidence, ...]) -> None:
    """found.yaml: the recipe with the steps that a step has found (its note `instead`) in that step's place."""
    path = work.folder.path / "found.yaml"
    found = {one.number: one.notes["instead"] for one in evidence if "instead" in one.notes}
    steps: list[Step] = []
    for number, step in enumerate(work.recipe.steps, 1):
        steps += [make("steps", one) for one in found[number]] if number in found else [step]  # ty: ignore
    if found:
        atomic.write_text(path, work.recipe.model_copy(update={"steps": tuple(steps)}).yaml())
    else:
        path.unlink(missing_ok=True)
