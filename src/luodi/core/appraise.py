"""The evidence of a step: its saved bundle measured in children, against the bundle before it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from luodi.core import atomic, catalog, keys, measure, records, statistics, store, words
from luodi.core.evidence import Change, Evidence, Measure, plain
from luodi.core.thing import make
from luodi.core.weights import touched
from luodi.core.work import Place, Work, answers, held_out

WEIGHINGS = 3  # children that weigh one bundle, fewer where they take half the budget
SERVERS = 2  # server processes that are weighed, one where it takes half the budget


def evidence_of(work: Work, before: Place, after: Place, last: bool) -> Place:
    """The place with the evidence of its step: found beside its bundle if it was taken in the same way, else taken."""
    assert after.home is not None
    note = after.home / "measured.json"
    wanted = _measuring_key(work, before)
    if note.is_file() and atomic.read_json(note) == wanted:
        found = atomic.read_json(store.located(after.path) / "evidence" / "evidence.json")
        return after.with_evidence(tuple(Evidence.model_validate(one) for one in found))
    started = time.perf_counter()
    one = _take(work, before, after, last)
    one = one.model_copy(update={"measuring": time.perf_counter() - started})
    evidence = (*before.evidence, one)
    store.add(after.path, evidence)
    atomic.write_json(note, wanted)
    figures = {name: round(m.value, 6) for name, m in one.measures.items()}
    work.folder.log("measured", {"form": one.form, "figures": figures, "seconds": round(one.measuring, 3)})
    return after.with_evidence(evidence)


def _measuring_key(work: Work, before: Place) -> dict[str, Any]:
    """What the evidence depends on besides the bundle itself."""
    sources = keys.sources_of([catalog.ROOT / "core" / "appraise.py"])
    past = before.evidence[-1] if before.evidence else None
    return {
        "budget": work.budget.cost(), "threads": work.recipe.threads.serve, "sources": sources,
        "before": plain(past) if past else None,
    }  # fmt: skip


def _take(work: Work, before: Place, after: Place, last: bool) -> Evidence:
    said, head = after.said(), store.peek(after.path)
    one = Evidence(
        step=said["step"], name=said["name"], number=said["number"], form="", notes=said["notes"],
        seconds=said["seconds"], rehearsal=work.run.rehearse, words=words.rows_told(said["notes"]),
        machine=measure.machine(work.recipe.threads.serve, work.run.device),
    )  # fmt: skip
    if not answers(head):
        return one
    form, past = head["serving"], (before.evidence[-1] if before.evidence and before.evidence[-1].form else None)
    file = f"{after.key}.{form}.parquet"
    result = _assess(work, before if past else None, after, form, file)
    measures = measure.as_measures(result["measures"])
    measures |= _weighed(work, after, head, form, past, last)
    share = None
    if form == "torch" and past is not None and past.form == "torch":
        share = touched(before.path / "weights.safetensors", after.path / "weights.safetensors")
    task: Any = make("tasks", head["task"])
    better = dict(task.metrics())
    return one.model_copy(update={
        "form": form, "measures": measures, "headline": task.headline(), "touched": share, "rows": result["rows"],
        "records": file if result["rows"] else "", "machine": {**one.machine, "busy": result["busy"]},
        "words": one.words + words.told(measures, next(iter(better), None), better, share, "model"),
    })  # fmt: skip


def _assess(work: Work, before: Place | None, after: Place, form: str, file: str) -> dict[str, Any]:
    """Latency of both bundles in turn, and the quality of the later one, in one child."""
    rows = held_out(work, after)
    folder = work.folder.path / "records"
    past = before.evidence[-1] if before is not None else None
    return work.nursery.call(
        "luodi.core.measure:assess",
        bundle=str(after.path), form=form,
        before=str(before.path) if before is not None else None, before_form=past.form if past else None,
        rows=str(rows) if rows else None, records_path=str(folder / file),
        before_records=str(folder / past.records) if past and past.records else None,
        before_rows=past.rows if past else "",
        budget=work.budget.cost(), threads=work.recipe.threads.serve, device=work.run.device,
        trust=list(work.trust),
    )  # fmt: skip


def _weighed(work: Work, after: Place, head: dict[str, Any], form: str, past: Evidence | None,
             last: bool) -> dict[str, Measure]:  # fmt: skip
    """Size on disk, memory that the bundle adds, and where the runtime changes, the whole server process."""
    old = past.measures if past else {}
    runtime: Any = make("runtimes", head["forms"][form]["kind"]) if form != "torch" else None
    library = type(runtime).library if runtime is not None else "torch"
    size_before = old["size_mb"].value if "size_mb" in old else None
    found = {"size_mb": statistics.exact(measure.size_mb(store.located(after.path), form), size_before)}
    weighed: list[float] = []
    start = time.perf_counter()
    while not weighed or (len(weighed) < WEIGHINGS and time.perf_counter() - start < work.budget.seconds / 2):
        weighed.append(work.nursery.call(
            "luodi.core.measure:weigh", bundle=str(after.path), form=form, threads=work.recipe.threads.serve,
            device=work.run.device, trust=list(work.trust), library=library,
        ))  # fmt: skip
        if work.run.rehearse:
            break
    found["memory_mb"] = statistics.repeated(weighed, old.get("memory_mb"))
    serve_is_there = not catalog.missing({"fastapi": "serve", "uvicorn": "serve"})
    if serve_is_there and not work.run.rehearse and (last or past is None or past.form != form):
        whole: list[float | None] = []
        start = time.perf_counter()
        while not whole or (len(whole) < SERVERS and time.perf_counter() - start < work.budget.seconds / 2):
            whole.append(measure.weigh_server(after.path, form, work.trust))
        if None not in whole:
            found["process_mb"] = statistics.repeated([mb for mb in whole if mb], old.get("process_mb"))
    return found


def losses(work: Work, evidence: tuple[Evidence, ...]) -> dict[str, Change]:
    """Metric -> how much was lost (positive: worse) from the first bundle with a model to the last, paired on the same
    rows; empty where they were not scored on the same rows."""
    scored = [one for one in evidence if one.records]
    if not scored or scored[0].rows != scored[-1].rows:
        return {}
    task: Any = make("tasks", store.peek(work.folder.path / "bundle")["task"])
    folder = work.folder.path / "records"
    new, old = records.shared(records.read(folder / scored[-1].records), records.read(folder / scored[0].records))
    better = dict(task.metrics())
    found = statistics.bootstrap(
        lambda i: task.score(new.take(i)), lambda i: task.score(old.take(i)), len(new), work.budget.resamples, better
    )
    return {name: statistics.lost(one.change, better.get(name)) for name, one in found.items() if one.change}


def remove_unused(work: Work, evidence: tuple[Evidence, ...], rows: Path | None) -> None:
    """Records and rows of earlier runs that no evidence names any more."""
    named = {one.records for one in evidence}
    for path in (work.folder.path / "records").glob("*.parquet"):
        if path.name not in named:
            path.unlink()
    for path in (work.folder.path / "rows").glob("*.arrow"):
        if rows is not None and path not in (rows, rows.with_name("test.arrow")):
            path.unlink()
