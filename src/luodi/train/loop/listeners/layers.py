"""How weights, gradients and activations lie, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.core.run import silent
from luodi.train.loop.layerwise.flags import Thresholds, flags_of
from luodi.train.loop.layerwise.look import Look
from luodi.train.loop.slots import Listener, Observer

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.run import Run
    from luodi.train.loop.audience import Stage
    from luodi.train.loop.state import State


class Layers(Observer):
    """Weights, gradients and activations of every layer, with vanishing, exploding and dead ones flagged.

    Looks once an epoch, or every so many updates; other updates run as without it. Each look is an event "layers" of
    the run's stream, the last one is in the step's notes. Of a compiled graph the activations are not seen.
    """

    every: Annotated[int, Field(ge=1)] | None = None  # updates between looks; default: at the end of every epoch
    vanishing: Annotated[float, Field(gt=0, lt=1)] = 1e-4  # gradient of a weight over that of a weight of the head
    exploding: Annotated[float, Field(gt=1)] = 1e4  # the same
    dead: Annotated[float, Field(gt=0, le=1)] = 0.5  # share of units that are zero for every row of a batch
    update: Annotated[float, Field(gt=0)] = 0.1  # norm of one update over the norm of the weights

    def open(self, run: Run, model: nn.Module, stage: Stage) -> Listener:
        limits = Thresholds(self.vanishing, self.exploding, self.dead, self.update)
        looks: list[Look] = []

        def before(state: State) -> None:
            if self.due(state.at, state.step, len(state.losses)):
                looks.append(Look(state.model, stage.hooks))
                looks[-1].begin()

        def after(state: State) -> None:
            if looks:
                layers = looks.pop().end()
                flags = [flag.facts() for flag in flags_of(layers, limits)]
                facts = {"update": state.step, "epoch": state.epoch + 1, "total": state.total}
                stage.progress.say("layers", {**facts, "layers": [one.facts() for one in layers], "flags": flags})

        stage.progress.before.append(before)
        stage.progress.after.append(after)
        stage.closing(lambda: looks and looks.pop().stop())
        return silent

    def due(self, at: int, step: int, updates: int) -> bool:
        """Whether to look at this update, the `at`-th of its epoch's and the `step`-th of all, counted from 0.

        At the end of an epoch it is the last update but one: the last one may hold few rows.
        """
        return at == max(updates - 2, 0) if self.every is None else step % self.every == 0
