"""A training within the memory there is: predicted, settled, and carried out here or in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import inf
from typing import TYPE_CHECKING, Any

from luodi.core.atomic import write_json
from luodi.core.errors import LuodiError
from luodi.core.outlook import longest
from luodi.core.thing import dump, make
from luodi.train.loop.memory.apart import OutOfMemory, train_apart
from luodi.train.loop.memory.ladder import lower, lower_until, smaller, still_to_go
from luodi.train.loop.memory.prediction import Prediction, Subject, blank, predict
from luodi.train.loop.memory.room import Peak, room_mb, short_of_memory
from luodi.train.loop.validation import MOST

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.bundle import Bundle
    from luodi.core.outlook import Outlook
    from luodi.core.run import Run
    from luodi.train.train import Train

# Of the room, what a training may be predicted to need and still run in this process: malloc's holes come on top, up to
# as much again (allocator.py), and a process that is killed here takes the whole run with it.
SMALL = 0.4
MUCH = 0.1  # share of the prediction that examples must be to be put out of memory first
OFF = 0.1  # share by which prediction and measurement may differ before the table says so
WORTH_TELLING = 100.0  # MB: nobody runs out of memory below it, and libraries' own needs would drown the rest


@dataclass
class Settled:
    """A training's step as it will be carried out, how it came to that, and what it is predicted to need."""

    step: Train
    told: list[str]
    taken: list[str]  # rungs


def train_within(step: Train, bundle: Bundle, run: Run) -> Bundle:
    """The step's work on the bundle, in the memory that the machine has or that the step allows."""
    if run.world > 1:
        if step.batch_size == "auto" or step.memory_mb is not None:
            raise LuodiError("train: batch_size: auto and memory_mb are of one process; give a number for several")
        return step.settled().here(bundle, run)
    return _Within(step, _fitted(bundle), run).work()


def _fitted(bundle: Bundle) -> Bundle:
    assert bundle.data is not None
    if "fitted" in bundle.facts:
        return bundle
    return bundle.replace(task=bundle.task.fit(bundle.data["train"]), facts=bundle.facts | {"fitted"})


class _Within:
    """One training, from its prediction to its end."""

    def __init__(self, step: Train, bundle: Bundle, run: Run) -> None:
        self.asked, self.bundle, self.run = step, bundle, run
        self.limit = step.memory_mb if step.memory_mb is not None else room_mb(run.device)
        self.path = run.out / "checkpoint" / "settled.json"

    def work(self) -> Bundle:
        """Tries, and goes one rung lower after each time that memory ran out."""
        settled = self._settled()
        while True:
            try:
                done, apart = self._tried(settled)
            except OutOfMemory as error:
                self.run.log("note", {"text": f"out of memory: {error}"})
                if not self._descends(settled, "memory ran out"):
                    raise self._over(settled, str(error)) from error
                self._keep(settled)
            else:
                return self._told(done, settled, apart)

    def _tried(self, settled: Settled) -> tuple[Bundle, bool]:
        need = self.predicted(settled.step)
        if self.asked.memory_mb is None and not settled.taken and need <= SMALL * self.limit:
            return self._here(settled.step), False
        if self.bundle.helpers:
            return self._here(settled.step), False  # helper networks are no part of a saved bundle
        return train_apart(settled.step, self.bundle, self.run, self.asked.memory_mb), True

    def _here(self, step: Train) -> Bundle:
        peak = Peak(self.run.device)
        try:
            done = step.here(self.bundle, self.run)
        except Exception as error:
            if not short_of_memory(error):
                raise
            if self.bundle.model is not None:
                hint = f"memory_mb: {self.limit / 2:.0f}" if self.limit < inf else "memory_mb"
                raise LuodiError(
                    f"train: out of memory ({error}); the weights were changed, so the step must be run again: "
                    f"`{hint}` trains in a process of its own, which can start over with less"
                ) from error
            raise OutOfMemory(str(error)) from error
        return done.noting(peak_mb=peak.mb())

    # ---- what is tried ----------------------------------------------------------------------------------------------

    def _settled(self) -> Settled:
        """As it was settled before a kill; else by prediction, and by a search if the batch size is to be found."""
        key = json.dumps([dump(self.asked), self.run.seed, self.run.scope, self.run.rehearse], sort_keys=True)
        self.key = key
        if self.path.is_file():
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["key"] == key:
                step: Any = make("steps", kept["step"])
                if "inputs" in kept["taken"]:
                    self._smaller(step)
                return Settled(step, kept["told"], kept["taken"])
        settled = Settled(self.asked.settled(), [], [])
        if self.asked.batch_size == "auto":
            from luodi.train.loop.memory.batch import chosen

            settled.step, told = chosen(settled.step, self.bundle, self.run, self.limit, self.predicted)
            settled.told.append(told)
            self.run.log("note", {"text": told})
        while (need := self.predicted(settled.step)) > self.limit:
            if not self._descends(settled, f"{need:,.0f} MB predicted, {self.limit:,.0f} MB there"):
                break  # the prediction may be wrong: it is tried
        if settled.told:
            self._keep(settled)
        return settled

    def _keep(self, settled: Settled) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"key": self.key, "step": dump(settled.step), "told": settled.told, "taken": settled.taken}
        write_json(self.path, facts)

    def _descends(self, settled: Settled, why: str) -> bool:
        """One rung lower, if there is one. Examples that take much are read when they are due, which needs no rung:
        nothing but time depends on it."""
        found = self.prediction(settled.step)
        if found is not None and found.held > MUCH * found.mb:
            settled.step = settled.step.model_copy(update={"hold_mb": 0.0})
            return self._say(settled, f"examples are read batch by batch, same bits ({why})")
        for rung in still_to_go(settled.step, settled.taken):
            if rung == "accumulate":
                lowered = lower_until(settled.step, self.predicted, self.limit)
            elif rung == "inputs":
                lowered = self._smaller(settled.step)
            else:
                lowered = lower(settled.step, rung, self.fresh)
            settled.taken.append(rung)
            if not isinstance(lowered, str):
                settled.step = lowered[0]
                return self._say(settled, f"{rung}: {lowered[1]} ({why})")
            self.run.log("note", {"text": lowered})
        return False

    def _smaller(self, step: Train) -> tuple[Train, str] | str:
        found = smaller(self.bundle)
        if isinstance(found, str):
            return found
        self.bundle, told = found
        for known in ("walked", "subject"):
            self.__dict__.pop(known, None)
        return step, told

    def _say(self, settled: Settled, told: str) -> bool:
        settled.told.append(told)
        self.run.log("note", {"text": told})
        return True

    def _over(self, settled: Settled, why: str) -> LuodiError:
        needs = f" ({need:,.0f} MB predicted)" if (need := self.predicted(settled.step)) else ""
        walked = "; ".join(settled.told) or "nothing"
        return LuodiError(
            f"train: out of memory{needs}: {why}. Tried before: {walked}. Give it more memory, a smaller model, or a "
            "longer `ladder`"
        )

    # ---- prediction -------------------------------------------------------------------------------------------------

    def predicted(self, step: Train) -> float:
        """MB, 0 where it cannot be told."""
        found = self.prediction(step)
        return found.mb if found else 0.0

    def prediction(self, step: Train) -> Prediction | None:
        """None for a model that torch cannot walk through without values, or that has no config to be made from."""
        if self.bundle.config is None:
            return None
        known = self.__dict__.setdefault("walked", {})
        key = json.dumps(dump(step), sort_keys=True)
        if key not in known:
            try:
                known[key] = predict(step, self.subject)
            except (NotImplementedError, RuntimeError) as error:
                self.run.log("note", {"text": f"the memory cannot be predicted: {str(error).splitlines()[0]}"})
                known[key] = None
        return known[key]

    @cached_property
    def subject(self) -> Subject:
        assert self.bundle.data is not None
        task, rows = self.bundle.task, self.bundle.data["train"]
        two, held_out = rows.take(longest(rows, task)), self.bundle.data.splits.get("validation")
        example = (task.encode(task.rows_to_requests(two)), task.truth(two))
        count = min(len(held_out), MOST) if held_out is not None else 0
        return Subject(task, self.fresh, example, len(rows), count, self.run.device)

    @property
    def fresh(self) -> Callable[[], nn.Module]:
        """Builds the model on the meta device."""
        assert self.bundle.config is not None
        return partial(blank, self.bundle.task, self.bundle.config, self.bundle.edits)

    # ---- afterwards -------------------------------------------------------------------------------------------------

    def _told(self, done: Bundle, settled: Settled, apart: bool) -> Bundle:
        """The bundle with predicted and real peak in its notes, and in words where the table should say so."""
        notes = dict(done.notes)
        real, need = notes.pop("peak_mb"), self.predicted(settled.step) or None
        told = list(settled.told)
        if real is not None and need and max(real, need) > WORTH_TELLING and abs(real - need) > OFF * max(real, need):
            told.append(f"training took {real:,.0f} MB at its peak, {need:,.0f} MB predicted")
        memory = {
            "predicted_mb": need, "real_mb": real, "limit_mb": self.limit if self.limit < inf else None,
            "apart": apart, "rungs": settled.taken, "batch_size": settled.step.batch_size,
            "accumulate": settled.step.accumulate,
        }  # fmt: skip
        return replace(done, notes=notes).noting(memory=memory, **({"told": told} if told else {}))


def foreseen(step: Train, outlook: Outlook) -> tuple[float, str]:
    """(MB, a sentence) for `plan`."""
    step = step.settled()
    build = partial(blank, outlook.task, outlook.config)
    rows = min(outlook.validation, MOST)
    try:
        found = predict(step, Subject(outlook.task, build, outlook.example, outlook.rows, rows, outlook.device))
    except (NotImplementedError, RuntimeError) as error:
        held = 16 * outlook.parameters + 2 * outlook.activations * step.rows_per_forward
        return held / 1e6, f"memory is a guess: {str(error).splitlines()[0]}"
    return found.mb, found.told


def going_back(step: Train, outlook: Outlook) -> float:
    """Which share of the network a backward pass goes through, 0..1: from the heads to the first stage that learns."""
    from torch import nn

    from luodi.train.loop.learning import stages_of

    stages = stages_of(blank(outlook.task, outlook.config))
    rates = step.learn.rates([stage.name for stage in stages], step.epochs - 1)
    sizes = [
        sum(p.numel() for module in stage.modules for p in module.parameters(recurse=False) if p.dim() > 1)
        if not all(isinstance(module, nn.Embedding) for module in stage.modules)
        else 0  # looking up is no work
        for stage in stages
    ]
    first = next(place for place, rate in enumerate(rates) if rate)
    return sum(sizes[first:]) / max(sum(sizes), 1)
