"""Chains made and measured, each once: what is there after a kill is not done again."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from luodi.core import atomic, catalog, measure, statistics, store
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.child import Nursery
from luodi.core.errors import LuodiError
from luodi.core.evidence import Change, Measure, plain
from luodi.core.limits import TIMES, Limits
from luodi.core.run import Run
from luodi.core.step import NOT_STORED
from luodi.core.thing import dump, make, own_names
from luodi.tune.landing.space import Chain

GLANCE = {"seconds": 2.0, "calls": 400, "resamples": 200}  # what measuring one chain may cost
LONGER = {"seconds": 5.0, "calls": 1000, "resamples": 400}  # and what measuring one of the last few may cost
WEIGHINGS = 2


class Trial(BaseModel):
    """One chain and what was seen of it; figures that were not worth measuring are not there."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    key: str
    name: str
    steps: list[Any]
    form: str = ""
    figures: dict[str, Measure] = {}  # by the names of limits and of the task's metrics
    losses: dict[str, Change] = {}  # metric -> how much was lost against the chain without steps (positive: worse)
    why: str = ""  # why it could not be made
    seconds: float = 0.0


@dataclass
class Trials:
    """The bench: a bundle, the validation rows, and a folder that stays until the search is over."""

    bundle: Bundle
    run: Run
    nursery: Nursery
    limits: Limits
    threads: int
    done: dict[str, Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.run.out / "trials").mkdir(parents=True, exist_ok=True)
        for path in (self.run.out / "trials").glob("*.json"):
            found = Trial.model_validate(atomic.read_json(path))
            self.done[found.key] = found
        splits = self.bundle.data.splits if self.bundle.data is not None else {}
        self.rows = self.run.out / "validation.arrow" if len(splits.get("validation", ())) else None
        if self.rows is not None and not self.rows.exists():
            splits["validation"].save(self.rows)

    @property
    def spent(self) -> float:
        """Seconds that all trials took, those before a kill included."""
        return sum(trial.seconds for trial in self.done.values())

    def tried(self, chain: Chain, *, whole: bool = False) -> Trial:
        """The chain made, measured and kept; one that cannot be made says why. `whole`: what misses a limit, too, is
        measured to the end."""
        if chain.key in self.done and not whole:
            return self.done[chain.key]
        began = time.perf_counter()
        trial = Trial(key=chain.key, name=chain.name, steps=[dump(step, short=True) for step in chain.steps])
        try:
            trial = self._measured(trial, self.made(chain), whole or not chain.steps)
        except Exception as error:  # one chain that fails, in whatever way, is one that is not taken
            kind = "" if isinstance(error, LuodiError) else f"{type(error).__name__}: "
            trial = trial.model_copy(update={"why": f"{kind}{error}".partition("\n")[0]})
        return self._kept(trial, began)

    def confirmed(self, chain: Chain) -> Trial:
        """A chain measured again, longer, its calls in turn with those of the chain without steps."""
        began, old = time.perf_counter(), self.done[chain.key]
        if "throughput_per_s" in old.figures:
            return old
        result = self.nursery.call(
            "luodi.core.measure:assess", bundle=str(self.made(chain)), form=old.form, before=str(self.made(Chain())),
            before_form=self.done[Chain().key].form, rows=str(self.rows) if self.rows else None,
            records_path=str(self.exam(old.key)), before_records=str(self.exam(Chain().key)) if self.rows else None,
            before_rows=self.bundle.data["validation"].fingerprint if self.bundle.data and self.rows else "",
            budget={**self.budget, **LONGER}, threads=self.threads, device=self.run.device, trust=list(self.trust),
        )  # fmt: skip
        figures = {**old.figures, **measure.as_measures(result["measures"])}
        now = {"figures": figures, "losses": self._losses(figures, first=False)}
        return self._kept(old.model_copy(update=now), began)

    def _kept(self, trial: Trial, began: float) -> Trial:
        before = self.done.get(trial.key)
        seconds = time.perf_counter() - began + (before.seconds if before else 0.0)
        trial = trial.model_copy(update={"seconds": seconds})
        atomic.write_json(self.run.out / "trials" / f"{trial.key}.json", plain(trial))
        self.done[trial.key] = trial
        return trial

    def made(self, chain: Chain) -> Path:
        """The chain's saved bundle; what it begins with is made once for all chains."""
        home = self.run.out / "chains" / chain.key
        if not atomic.mended(home / "bundle").exists():
            home.mkdir(parents=True, exist_ok=True)
            bundle = self.opened(chain.before) if chain.steps else self.bundle
            if chain.steps:
                step = chain.steps[-1]
                # The scope that the step has in a recipe of its own, so that the recipe gives the same bits.
                inside = replace(self.run, out=home / "work", scope=(catalog.name_of(type(step)), 0))
                inside.out.mkdir(exist_ok=True)
                bundle = apply(step, bundle, inside, len(chain.steps))
            bundle.save(home / "bundle")
            shutil.rmtree(home / "work", ignore_errors=True)
        return home / "bundle"

    def opened(self, chain: Chain) -> Bundle:
        """The chain's bundle with its rows; the one without steps is a copy in memory."""
        if not chain.steps:
            return self.bundle.fork()
        path = self.made(chain)
        loaded = Bundle.load(path, trust=self.trust, device=self.run.device)
        about_rows = self.bundle.facts & NOT_STORED
        return replace(loaded, data=self.bundle.data, facts=loaded.facts | about_rows)

    @property
    def trust(self) -> tuple[str, ...]:
        """Import paths that this bundle, which is open, already needed."""
        bundle = self.bundle
        return tuple(own_names([bundle.task, bundle.config, *(edit.step for edit in bundle.edits)]))

    def exam(self, key: str) -> Path:
        """Where a chain's answers to the validation rows lie."""
        return self.run.out / "exams" / f"{key}.parquet"

    def _measured(self, trial: Trial, path: Path, whole: bool) -> Trial:
        """The cheapest figures first: size, then latency, then quality, then memory; unless `whole`, none that cannot
        matter."""
        form = store.peek(path)["serving"]
        found = {"size_mb": statistics.exact(measure.size_mb(store.located(path), form))}
        trial = trial.model_copy(update={"form": form, "figures": found})
        first = trial.key == Chain().key
        if self._beyond(found) and not whole:
            return trial
        most = {} if whole else {name: at for name in TIMES if (at := getattr(self.limits, name)) is not None}
        past = None if first or self.rows is None else str(self.exam(Chain().key))
        seen = self.nursery.call(
            "luodi.core.measure:glance", bundle=str(path), form=form, rows=str(self.rows) if self.rows else None,
            records_path=str(self.exam(trial.key)), before_records=past, most=most,
            budget=self.budget, threads=self.threads, device=self.run.device, trust=list(self.trust),
        )  # fmt: skip
        found |= measure.as_measures(seen)
        losses = self._losses(found, first)
        if whole or not self._beyond(found):
            found |= self._weighed(path, form)
        return trial.model_copy(update={"figures": found, "losses": losses})

    @property
    def budget(self) -> dict[str, Any]:
        """What a glance may cost; p99 needs a thousand calls."""
        calls = 1000 if self.limits.p99_ms is not None else GLANCE["calls"]
        small = {"seconds": 1.0, "calls": 40, "resamples": 100} if self.run.rehearse else {}
        return {**GLANCE, "calls": calls, "rows": None, **small}

    def _beyond(self, figures: dict[str, Measure]) -> bool:
        allowed = ((m, getattr(self.limits, name, None)) for name, m in figures.items())
        return any(most is not None and m.low > most for m, most in allowed)

    def _losses(self, figures: dict[str, Measure], first: bool) -> dict[str, Change]:
        better = dict(self.bundle.task.metrics())
        scored = {name: figures[name] for name in better if name in figures}
        if first:
            return {name: Change(value=0.0, low=0.0, high=0.0) for name in scored}
        return {
            name: statistics.lost(one.change, better[name]) for name, one in scored.items() if one.change is not None
        }

    def _weighed(self, path: Path, form: str) -> dict[str, Measure]:
        found: dict[str, Measure] = {}
        if self.limits.memory_mb is not None:
            kind = store.peek(path)["forms"][form]["kind"] if form != "torch" else None
            runtime: Any = make("runtimes", kind) if kind else None
            library = type(runtime).library if runtime is not None else "torch"
            weighed = [
                self.nursery.call(
                    "luodi.core.measure:weigh", bundle=str(path), form=form, threads=self.threads,
                    device=self.run.device, trust=list(self.trust), library=library,
                )
                for _ in range(WEIGHINGS)
            ]  # fmt: skip
            found["memory_mb"] = statistics.repeated(weighed)
        if self.limits.process_mb is not None:
            whole = measure.weigh_server(path, form, self.trust)
            if whole is not None:
                found["process_mb"] = statistics.repeated([whole])
        return found
