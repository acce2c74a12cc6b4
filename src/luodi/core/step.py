"""One move from bundle to bundle, and the facts that decide its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from luodi.core.thing import Json, ModelConfig, Thing

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from luodi.core.bundle import Bundle
    from luodi.core.outlook import Forecast, Outlook
    from luodi.core.recipe import Recipe
    from luodi.core.rows import Rows
    from luodi.core.run import Run
    from luodi.core.task import Task

FACTS = frozenset(
    "rows split world loss fitted model float forms exposed private adapters ensemble parts signed sealed".split()
)
NOT_STORED = frozenset({"rows", "split", "world", "loss"})  # true of this process, not of the artifact


class Facts(NamedTuple):
    """What must hold before a step, what holds after it, what no longer does, and what must not hold before."""

    needs: frozenset[str]
    gives: frozenset[str]
    ends: frozenset[str]
    excludes: frozenset[str]


class Step(Thing):
    """One move from bundle to bundle. Its fields are its config; called alone it is a plain function."""

    version: ClassVar[int] = 1  # raised when an old edit must be replayed differently
    needs: ClassVar[frozenset[str]] = frozenset()
    gives: ClassVar[frozenset[str]] = frozenset()
    ends: ClassVar[frozenset[str]] = frozenset()
    excludes: ClassVar[frozenset[str]] = frozenset()
    keeps: ClassVar[Literal["answers", "shape", "nothing"]] = "shape"
    thins: ClassVar[bool] = False  # it sets weights to 0 that are to stay so
    mends: ClassVar[bool] = False  # it takes out rows that the fields cannot read

    def within(self, recipe: Recipe) -> Step:
        """The step as it stands in a recipe: with what it leaves to the recipe's other parts."""
        return self

    def facts(self, have: frozenset[str]) -> Facts:
        """The facts for this config on a bundle with `have`; default: the class's sets."""
        return Facts(self.needs, self.gives, self.ends, self.excludes)

    @classmethod
    def offers(cls) -> Sequence[Mapping[str, Json]]:
        """Fields with which a search for steps may try this one, mildest first; none: it is not tried."""
        return ()

    def packages(self) -> Mapping[str, str]:
        """{package: extra} of the optional packages this config imports; `plan` reports the missing ones."""
        return {}

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        """Why this step cannot do this task or model, in the nature of things; None: it can."""
        return None

    def lacks(self, device: str) -> str | None:
        """Why this step cannot work on a device; None: it can."""
        return None

    def cautions(self, device: str) -> tuple[str, ...]:
        """What `plan` should say of this step on a device before it is run, a sentence each."""
        return ()

    def foresee(self, task: Task, config: ModelConfig | None, cache: Path) -> tuple[Task, ModelConfig | None] | None:
        """Task and model config as this step will leave them, told before any work; None: only once it has fetched."""
        return task, config

    def foresee_rows(self, splits: Mapping[str, Rows], task: Task) -> Mapping[str, Rows]:
        """As many rows of each split as this step will leave, some of their kind, told before any work."""
        return splits

    def forecast(self, outlook: Outlook) -> Forecast | None:
        """What this step will take, roughly; None: too little to tell, or not known."""
        return None

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        """The bundle after the step; it may change the given bundle's model in place, and nothing else."""
        raise NotImplementedError

    def restore(self, task: Task, model: nn.Module, plan: Mapping[str, Json]) -> nn.Module:
        """The layers as this step left them, on a fresh model (meta device); weights are filled later."""
        return model
