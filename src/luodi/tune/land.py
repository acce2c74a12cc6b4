"""Limits in, steps out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from luodi.core.child import PRELOADED, Nursery
from luodi.core.errors import LuodiError
from luodi.core.limits import Limits
from luodi.core.run import ASIDE
from luodi.core.step import Step
from luodi.core.thing import ModelConfig
from luodi.tune.landing.choice import Chooser, judged, state_of
from luodi.tune.landing.choice import words as in_words
from luodi.tune.landing.search import Search
from luodi.tune.landing.space import chains, offered
from luodi.tune.landing.trials import Trial, Trials

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.outlook import Forecast, Outlook
    from luodi.core.recipe import Recipe
    from luodi.core.run import Run
    from luodi.core.task import Task

REHEARSED = 4  # chains of a rehearsal


class Land(Step):
    """Finds the steps and the runtime that bring a model within the recipe's limits.

    Tries chains of what steps and runtimes offer, each made and measured on the validation rows, cheap ones first; what
    was seen says what is tried next. The chain within all limits that answers best is taken, of those that are not
    shown to answer worse the fastest; where none is, the nearest one, and the run says which limit is in the way and
    ends with exit code 3. A search that was killed goes on where it was. Without rows only time and size can be judged.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model"})
    ends: ClassVar[frozenset[str]] = frozenset({"float"})  # what is taken is not known before

    seconds: float = Field(300.0, gt=0)  # for trying chains
    depth: int = Field(3, ge=0)  # most steps of a chain, its runtime not counted
    limits: Limits = Limits()  # empty: the recipe's
    threads: int = Field(0, ge=0)  # that answer; 0: the recipe's `threads.serve`

    def within(self, recipe: Recipe) -> Land:
        limits = recipe.limits if self.limits == Limits() else self.limits
        return self.model_copy(update={"limits": limits, "threads": self.threads or recipe.threads.serve})

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        if self.limits == Limits():
            return "there is nothing to keep to; give the recipe `limits:`, as in limits: {p50_ms: 5, size_mb: 1}"
        return None

    def forecast(self, outlook: Outlook) -> Forecast | None:
        from luodi.core.outlook import Forecast

        return Forecast(self.seconds, 0.0)

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        steps, lacking = offered(run.device)
        every = chains(bundle, steps, self.depth)
        with Nursery(PRELOADED) as nursery:
            trials = Trials(bundle, run, nursery, self.limits, max(self.threads, 1))
            self._refuse(trials, bundle)
            chooser = Chooser(bundle.task, self.limits, run.out / "exams")
            run.log(
                "note", {"text": f"{len(every)} chains of steps can be tried, as it is and with up to {self.depth}"}
            )

            def tell(trial: Trial, done: int) -> None:
                run.log("note", {"text": f"{trial.name}: {_figures(trial, chooser.metric)}"})
                run.log("progress", {"done": done, "total": len(every), "what": "chains"})

            search = Search(trials, chooser, every)
            if search.base.why:
                raise LuodiError(f"the bundle as it is cannot be measured: {search.base.why}")
            found = search.go(self.seconds, REHEARSED if run.rehearse else None, tell)
            order = chooser.order(found)
            taken = order[0] if order else chooser.nearest(found)
            after = trials.opened(search.chains[taken.key])
        self._keep(run)
        notes = {
            "tried": len(found), "of": len(every), "seconds": round(trials.spent, 1), "taken": taken.name,
            "metric": chooser.metric, "landed": bool(order), "short": [] if order else chooser.short(found),
            "lacking": lacking, "limits": self.limits.model_dump(exclude_defaults=True),
            "chains": [_row(trial, self.limits, chooser.metric) for trial in found],
        }  # fmt: skip
        told = self._told(notes, taken, found, chooser, trials)
        return after.noting(land=notes, told=told, instead=taken.steps, **({} if order else {"unmet": told[-1]}))

    def _refuse(self, trials: Trials, bundle: Bundle) -> None:
        """Raises LuodiError where a limit on quality cannot be judged."""
        if trials.rows is not None or not self.limits.drop:
            return
        lost = ", ".join(f"drop.{name}" for name in self.limits.drop)
        held = "there are no validation rows" if bundle.data is not None else "its rows are not here"
        raise LuodiError(
            f"{lost} cannot be judged: {held}. Put `split` with a validation share before it, or say `data:`; "
            "or leave the limit out: time, size and memory can be judged without rows"
        )

    def _keep(self, run: Run) -> None:
        """What was seen stays beside the bundle; the bundles of the chains do not."""
        aside = run.out / ASIDE
        aside.mkdir(exist_ok=True)
        for name in ("trials", "exams"):
            if (run.out / name).is_dir():
                shutil.copytree(run.out / name, aside / name, dirs_exist_ok=True)

    def _told(
        self, notes: Mapping[str, Any], taken: Trial, found: Sequence[Trial], chooser: Chooser, trials: Trials
    ) -> list[str]:
        data = trials.bundle.data
        judges = f"{len(data['validation']):,} validation rows" if data and trials.rows else "no rows"
        said = [f"{notes['tried']} of {notes['of']} chains tried in {notes['seconds']:.0f} s, judged on {judges}"]
        if trials.rows is None:
            said.append("quality was NOT measured: there are no validation rows")
        said.append(f"taken: {taken.name}")
        if not notes["landed"]:
            said.append("nothing is within the limits: " + "; ".join(in_words(notes["short"])))
        elif state_of(taken, self.limits) == "undecided":
            open_ones = [one.words for one in judged(taken, self.limits) if one.state == "undecided"]
            said.append("not shown: " + "; ".join(open_ones))
        return said


def _figures(trial: Trial, metric: str | None) -> str:
    if trial.why:
        return f"cannot be made: {trial.why}"
    said = [f"{trial.figures['p50_ms'].value:.3g} ms"] if "p50_ms" in trial.figures else []
    said.append(f"{trial.figures['size_mb'].value:.3g} MB")
    if metric in trial.figures:
        said.append(f"{metric} {trial.figures[metric].value:.4g}")
    return ", ".join(said)


def _row(trial: Trial, limits: Limits, metric: str | None) -> dict[str, Any]:
    """A chain as the report shows it."""
    figures = {name: one.value for name, one in trial.figures.items()}
    missed = [] if trial.why else [one.words for one in judged(trial, limits) if one.state in ("missed", "undecided")]
    change = trial.losses.get(metric or "")
    return {
        "name": trial.name, "steps": trial.steps, "form": trial.form, "state": state_of(trial, limits),
        "figures": figures, "loss": change.model_dump() if change else None, "why": trial.why or "; ".join(missed),
        "seconds": round(trial.seconds, 2),
    }  # fmt: skip
