"""One step on one bundle: refused before work, or done, with its facts, its lineage and its golden requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from luodi.core import check, parity
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError, ParityError
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.source import Data, Origin, Source
from luodi.core.step import Step
from luodi.core.thing import Trust, dump, make, own_hashes

REHEARSED_ROWS = 64


def apply(step: Step, bundle: Bundle, run: Run, number: int = 1) -> Bundle:
    """The bundle after a step. Raises Refused before work, and ParityError if answers that should stay do not."""
    have = bundle.facts | bundle.task.gives
    check.refuse(step, have, bundle.task, bundle.config, number)
    facts = step.facts(have)
    before = bundle.golden
    after = step(replace(bundle, notes={}), run)
    after = replace(after, facts=(after.facts - facts.ends - bundle.task.gives) | facts.gives)
    if not after.forms:
        after = replace(after, facts=after.facts - {"forms"})
    changed = after.data is not None and bundle.data is not None and after.data is not bundle.data
    if changed and after.data.origin is bundle.data.origin:  # else the step has said itself how its rows come back
        after = replace(after, data=recorded(after.data, step, run))
    if after.model is None and not after.forms:
        return after
    after = parity.record(after)
    if step.keeps == "answers" and before is not None and after.golden is not None:
        for name in before.outputs.keys() & after.golden.outputs.keys():
            found = parity.drift(after.golden.outputs[name], before.outputs[name])
            if not found <= parity.torch_tolerance(after):
                raise ParityError(f"this step must keep the answers, but the {name} form drifts by {found:.2g}")
    return after


def recorded(data: Data, step: Step, run: Run) -> Data:
    """The data, remembering that this step made them: opening them again replays it."""
    if data.origin is None:
        return data
    said = {"step": dump(step), "seed": run.seed, "scope": list(run.scope)}
    steps, own = (*data.origin.steps, said), {**data.origin.own, **own_hashes(step)}
    return Data(data.splits, replace(data.origin, steps=steps, own=own))


def open_rows(source: Source, cache: Path, *, rehearse: bool = False) -> Data:
    """A source's rows, all in one split; a rehearsal keeps 64, evenly spaced."""
    rows = source.open(cache)
    if not len(rows):
        raise LuodiError(f"the data source {dump(source, short=True)} has no rows")
    most = REHEARSED_ROWS if rehearse and len(rows) > REHEARSED_ROWS else None
    origin = Origin(dump(source), rows.fingerprint, (), most, own_hashes(source))
    return Data({"all": _thinned(rows, most)}, origin)


def _thinned(rows: Rows, most: int | None) -> Rows:
    return rows if most is None else rows.take(np.linspace(0, len(rows) - 1, most).astype(np.int64))


def reopen(bundle: Bundle, cache: Path, run: Run, trust: tuple[str, ...] = ()) -> Bundle:
    """A loaded bundle with the rows it was made from: the source opened again, its data steps replayed.

    Raises LuodiError if the source has other rows now, or if either is code that was not trusted by name.
    """
    if bundle.data is None or bundle.data.origin is None:
        return bundle
    origin = bundle.data.origin
    trusted = Trust(trust, origin.own)
    source = make("sources", origin.source, trusted)
    assert isinstance(source, Source)
    rows = source.open(cache)
    if rows.fingerprint != origin.fingerprint:
        raise LuodiError(
            f"the data source {dump(source, short=True)} has other rows than when the bundle was made "
            f"({len(rows):,} rows, fingerprint {rows.fingerprint[:12]}, then {origin.fingerprint[:12]}); "
            "give the recipe data: to say what to use now"
        )
    fresh = replace(bundle, data=Data({"all": _thinned(rows, origin.most)}, replace(origin, steps=())))
    facts = {"rows"}
    for said in origin.steps:
        step = make("steps", said["step"], trusted)
        assert isinstance(step, Step)
        again = step(fresh, replace(run, seed=said["seed"], scope=tuple(said["scope"])))
        assert again.data is not None
        fresh = replace(fresh, data=again.data)
        facts |= step.facts(frozenset(facts)).gives
    assert fresh.data is not None
    return replace(bundle, data=Data(fresh.data.splits, origin), facts=bundle.facts | facts)
