"""Distillation into a smaller model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from luodi.core.bundle import Edit, weights_count
from luodi.core.errors import LuodiError
from luodi.core.step import Facts, Step
from luodi.core.thing import ModelConfig, Slot, WrongThing
from luodi.train.loop.teaching import Teaching
from luodi.train.train import Train

if TYPE_CHECKING:
    from pathlib import Path

    from luodi.core.bundle import Bundle
    from luodi.core.outlook import Forecast, Outlook
    from luodi.core.run import Run
    from luodi.core.task import Task


class Distil(Step):
    """Trains a fresh model, of any architecture, on the rows and on what the bundle's model answers to them.

    The loss is (1 - `soft`) times the task's own and `soft` times the distance to the teacher: for labels, tokens and
    places temperature^2 x KL of both at this temperature (Hinton, Vinyals and Dean 2015, arXiv 1503.02531), for numbers
    the squared difference. `features` adds how unlike the two find the rows of a batch, by what enters their heads
    (similarity-preserving distillation, arXiv 1907.09682), which works for any two widths. `train` says how: all of its
    fields, but no compiled graph. The teacher stays as it is and is gone afterwards; its fitted fields remain.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"split", "loss", "model"})
    gives: ClassVar[frozenset[str]] = frozenset({"model", "float", "fitted", "exposed"})
    ends: ClassVar[frozenset[str]] = frozenset({"private", "adapters", "forms"})

    model: Annotated[Any, Slot("models")] | None = None  # of the student; None: the teacher's, fresh
    soft: Annotated[float, Field(ge=0, le=1)] = 0.7  # share of the teacher in the loss
    temperature: Annotated[float, Field(gt=0)] = 2.0
    features: Annotated[float, Field(ge=0)] = 0.0  # share of the features' loss, on top
    train: Annotated[Any, Slot("steps")] = Field("train", validate_default=True)

    @field_validator("train")
    @classmethod
    def _is_train(cls, step: Any) -> Any:
        if not isinstance(step, Train):
            raise WrongThing([((), "expected train with its fields, as in train: {train: {epochs: 5}}")])
        if step.compile:
            raise WrongThing([(("train", "compile"), "the teacher answers beside the student: leave compile out")])
        return step

    def facts(self, have: frozenset[str]) -> Facts:
        return Facts(self.needs, self.gives, self.ends, self.excludes)

    def packages(self) -> Mapping[str, str]:
        return {**self.train.packages(), **(self.model.packages() if self.model is not None else {})}

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        if self.model is None and config is None:
            return "the model was made elsewhere: name the student's `model`"
        return self.train.objection(task, self.model or config)

    def lacks(self, device: str) -> str | None:
        return self.train.lacks(device)

    def cautions(self, device: str) -> tuple[str, ...]:
        return self.train.cautions(device)

    def foresee(self, task: Task, config: ModelConfig | None, cache: Path) -> tuple[Task, ModelConfig | None] | None:
        return task, self.model or config

    def forecast(self, outlook: Outlook) -> Forecast | None:
        """As training the student, roughly, and a forward of the teacher on top of its three."""
        from luodi.core.outlook import Forecast

        cost = self.train.forecast(outlook)
        return Forecast(cost.seconds * 4 / 3, cost.memory_mb)

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        assert bundle.model is not None
        teacher, config = bundle.model.eval(), self.model or bundle.config
        blank = bundle.blank().replace(config=config)
        student = blank.replace(facts=blank.facts | {"fitted"}).ready(run)
        assert student.model is not None
        if self.features and not all(hasattr(model, "heads") for model in (teacher, student.model)):
            raise LuodiError("distil: features are what enters a model's heads, and one of the two models has none")
        sizes = weights_count(teacher), weights_count(student.model)
        with Teaching(student.task, teacher, student.model, self.soft, self.temperature, self.features) as teaching:
            after = self.train.here(student, run, losses=teaching)
        assert after.model is not None
        done = after.with_model(after.model, edit=Edit(step=self, version=self.version))
        told = f"{sizes[1]:,} numbers taught by {sizes[0]:,}"
        return done.noting(**after.notes, told=[told], numbers={"teacher": sizes[0], "student": sizes[1]})
