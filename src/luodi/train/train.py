"""Training by gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from luodi.core.bundle import Edit
from luodi.core.catalog import name_of
from luodi.core.errors import LuodiError
from luodi.core.step import Facts, Step
from luodi.core.thing import ModelConfig, Slot, dump

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.bundle import Bundle
    from luodi.core.outlook import Forecast, Outlook
    from luodi.core.run import Run
    from luodi.core.task import Task
    from luodi.train.loop.examples import Examples
    from luodi.train.loop.plan import Plan
    from luodi.train.loop.slots import Objective, Sampler


class Train(Step):
    """Trains the model on the training split; a killed training goes on from its checkpoint, bit for bit.

    Validates after each epoch. Checkpoints go to `<run.out>/checkpoint` and are removed at the end. Changes weights,
    not layers. Raises LuodiError when the loss is no longer a number.
    """

    needs: ClassVar = frozenset({"split", "loss"})
    gives: ClassVar = frozenset({"model", "float", "fitted", "exposed"})
    ends: ClassVar = frozenset({"private"})

    epochs: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = 64  # rows of one forward; auto: the fastest that fits
    accumulate: Annotated[int, Field(ge=1)] = 1  # forwards of one update: a larger batch in the same memory
    effective_batch: Annotated[int, Field(ge=1)] | None = None  # rows of one update; accumulate then follows from it
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = 1e-3  # auto: by a range test on a copy
    update: Annotated[Any, Slot("updates")] = Field("adamw", validate_default=True)  # how gradients move the weights
    schedule: Annotated[Any, Slot("schedules")] = Field("cosine", validate_default=True)  # how the learning rate goes
    buckets: bool = True  # texts of like length in one batch, so that little is padding
    average: Annotated[Any, Slot("averages")] | None = None  # of the weights: validated, and kept at the end
    augment: tuple[Annotated[Any, Slot("augments")], ...] = ()  # random changes of the inputs, in order
    learn: Annotated[Any, Slot("scopes")] = Field("all", validate_default=True)  # which weights learn, at which rate
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the forward and backward passes; weights stay fp32
    compile: bool = False  # one compiled graph (static) in place of one operation after the other (eager)
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = 0  # processes that read ahead what memory does not hold
    clip: Annotated[float, Field(gt=0)] | None = None  # largest norm of an update's whole gradient
    patience: Annotated[int, Field(ge=1)] | None = None  # epochs without a better check; the best weights come back
    watch: Literal["metric", "loss"] = "metric"  # what patience looks at, on the validation split
    zeros: Literal["auto", "keep", "refill"] = "auto"  # weights that are 0: stay, or grow; auto: stay if pruned
    listeners: tuple[Annotated[Any, Slot("listeners")], ...] = ()  # who hears of it; the weights do not depend on them
    hold_mb: Annotated[float, Field(ge=0)] = 2048.0  # encoded examples up to this size are held in memory
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0  # longest time between checkpoints within an epoch
    memory_mb: Annotated[float, Field(gt=0)] | None = None  # what it may take; None: what the machine has free
    ladder: tuple[Literal["accumulate", "recompute", "optimizer", "offload", "inputs"], ...] = (
        "accumulate",
        "recompute",
    )  # what to give up in this order when it does not fit
    recompute: bool = False  # activations are computed again when they are due: same bits, less memory, more time
    offload: bool = False  # activations wait on the disk (of a CPU training) or in the CPU's memory: same bits

    def facts(self, have: frozenset[str]) -> Facts:
        more = frozenset({"float"}) if "model" in have else frozenset()
        return Facts(self.needs | more, self.gives, self.ends, self.excludes)

    def packages(self) -> Mapping[str, str]:
        asked = (self.update, *self.listeners)
        return {name: extra for thing in asked for name, extra in thing.packages().items()}

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        from luodi.train.loop.changes import objection_to

        if self.effective_batch is not None and self.accumulate > 1:
            return "accumulate follows from effective_batch; leave one of them out"
        if self.recompute and self.compile:
            return "a compiled graph decides itself what to recompute; leave `recompute` or `compile` out"
        if self.average is not None and self.update.averages:
            return f"{name_of(type(self.update))} averages the weights itself; leave `average` out"
        return objection_to(self.augment, task, self.rows_per_forward)

    def lacks(self, device: str) -> str | None:
        from luodi.train.loop.precision import refused

        return refused(self.precision, device)

    def cautions(self, device: str) -> tuple[str, ...]:
        from luodi.train.loop.exact import cautions

        return cautions(self.precision, device, compiled=self.compile)

    def forecast(self, outlook: Outlook) -> Forecast:
        """A backward pass is the work of two forwards of what learns; memory is that of a walk on the meta device."""
        from luodi.core.outlook import Forecast
        from luodi.train.loop.memory.within import foreseen, going_back

        work = (1 + 2 * going_back(self, outlook)) * outlook.flops * outlook.rows * self.epochs
        return Forecast(work / outlook.flops_a_second, *foreseen(self, outlook))

    @property
    def rows_per_forward(self) -> int:
        """A first guess where the batch size is still to be found."""
        return 64 if self.batch_size == "auto" else self.batch_size

    @property
    def rows_per_update(self) -> int:
        return self.effective_batch or self.rows_per_forward * self.accumulate

    def settled(self) -> Train:
        """With as many forwards an update as `effective_batch` asks for."""
        if self.effective_batch is None:
            return self
        return self.model_copy(update={"accumulate": -(-self.effective_batch // self.rows_per_forward)})

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        from luodi.train.loop.memory.within import train_within

        if lacking := self.lacks(run.device):
            raise LuodiError(f"train: {lacking}")
        for caution in self.cautions(run.device):
            run.log("note", {"text": f"train: {caution}"})
        return train_within(self, bundle, run)

    def here(self, bundle: Bundle, run: Run, *, exact: bool = False, losses: Objective | None = None) -> Bundle:
        """The training itself, here; `exact`: freed memory is given back at once; `losses`: in place of the task's."""
        from luodi.train.loop.changes import texts_of
        from luodi.train.loop.checkpoint import Checkpoint
        from luodi.train.loop.examples import examples_of
        from luodi.train.loop.fit import fit
        from luodi.train.loop.identity import identity
        from luodi.train.loop.memory.ladder import NEUTRAL
        from luodi.train.loop.patience import Patience
        from luodi.train.loop.rates import find_rate
        from luodi.train.loop.validation import wanted_by
        from luodi.train.loop.zeros import settled

        zeros = settled(self.zeros, bundle)
        bundle = bundle.ready(run)
        assert bundle.data is not None and bundle.model is not None
        validation = wanted_by(self, bundle, run)
        texts = texts_of(self.augment, bundle.task, run)
        examples, how = examples_of(bundle.task, bundle.data["train"], run.device, self.hold_mb, texts)
        run.log("note", {"text": how})
        key = identity(self.model_copy(update=NEUTRAL), bundle, run)
        checkpoint = Checkpoint(run.out / "checkpoint", key, self.checkpoint_seconds)
        patience = Patience(self.patience, self.watch, bundle.task.metrics())
        plan = self.plan(bundle.task, examples, zeros, run, exact=exact, losses=losses)
        tried: dict[str, Any] = {}
        if self.learning_rate == "auto":
            found = find_rate(bundle.model, examples, plan, run, checkpoint)
            plan = replace(plan, learning_rate=found.rate)
            tried = {"rates": found.curve, "learning_rate": found.rate}
        state = fit(bundle.model, examples, plan, run, checkpoint, patience, validation)
        if run.rank == 0:
            checkpoint.remove()
        notes = {"history": state.history, "updates": state.step, "best_epoch": patience.epoch or None, "examples": how}
        return self.done(bundle, state.model, {**notes, **plan.audience.notes, **tried})

    def done(self, bundle: Bundle, model: nn.Module, notes: Mapping[str, Any]) -> Bundle:
        """The bundle with a model that this step has trained."""
        after = bundle.with_model(model, edit=Edit(step=self))
        return after.replace(facts=(after.facts | self.gives) - self.ends).noting(**notes)

    def plan(self, task: Task, examples: Examples, zeros: Literal["keep", "refill"], run: Run, *, exact: bool = False,
             losses: Objective | None = None) -> Plan:  # fmt: skip
        """The loop's slots filled by this step's fields."""
        from luodi.train.loop.audience import Audience
        from luodi.train.loop.changes import tensor_changes
        from luodi.train.loop.memory.thrift import Thrift
        from luodi.train.loop.plan import Plan
        from luodi.train.loop.sampler import Bucketed, Shuffled

        sampler: Sampler = Shuffled(examples.count, run)
        if self.buckets and examples.sizes is not None:
            sampler = Bucketed(examples.sizes, self.rows_per_update * run.world, run)
        workers = self.workers if self.workers != "auto" else self._fastest(examples, sampler, run)
        rate = 1.0 if self.learning_rate == "auto" else self.learning_rate  # auto: found with this plan, and put in it
        changes = tensor_changes(self.augment, task)
        return Plan(
            sampler, losses or task.loss, self.update, self.schedule, changes, (run.log,), self.epochs,
            self.rows_per_forward, self.accumulate, rate, self.clip, zeros, self.learn, self.precision,
            self.compile, workers, self.average, Audience(self.listeners, dump(self)), self.effective_batch,
            Thrift(self.recompute, self.offload, exact),
        )  # fmt: skip

    def _fastest(self, examples: Examples, sampler: Sampler, run: Run) -> int:
        from luodi.train.loop.loading import fastest

        found, rates = fastest(examples, sampler.order(0).split(self.rows_per_forward), run.device)
        if rates:
            told = ", ".join(f"{workers}: {rate * self.rows_per_forward:,.0f}" for workers, rate in rates.items())
            run.log("note", {"text": f"{found} workers load fastest (examples a second by workers: {told})"})
        return found
