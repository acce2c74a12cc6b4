"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from luodi.core.catalog import require
from luodi.train.loop.figures import Figures
from luodi.train.loop.slots import Listener, Observer

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.run import Run
    from luodi.train.loop.audience import Stage


class Wandb(Observer):
    """A Weights & Biases run, offline in the run's folder unless told otherwise; `wandb sync` sends it later."""

    mode: Literal["offline", "online"] = "offline"
    project: str = ""  # default: the run's name

    def packages(self) -> Mapping[str, str]:
        return {"wandb": "wandb"}

    def open(self, run: Run, model: nn.Module, stage: Stage) -> Listener:
        """Numbers are drawn over `update`, the number of updates done; a training that goes on keeps its id."""
        wandb = require("wandb", "wandb")
        settings = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True, save_code=False)
        begun = wandb.init(
            project=self.project or stage.home.name, name=stage.title, id=stage.title, resume="allow",
            reinit="create_new", mode=self.mode, dir=str(stage.folder("wandb")), config=stage.step, settings=settings,
        )  # fmt: skip
        begun.define_metric("*", step_metric="update")
        stage.closing(begun.finish)
        return Figures(lambda done, numbers: begun.log({**numbers, "update": done}))
