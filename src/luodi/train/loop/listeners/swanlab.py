"""SwanLab."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from luodi.core.catalog import require
from luodi.core.errors import LuodiError
from luodi.train.loop.figures import Figures
from luodi.train.loop.slots import Listener, Observer

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.run import Run
    from luodi.train.loop.audience import Stage


class Swanlab(Observer):
    """A SwanLab experiment, kept in the run's folder unless told otherwise."""

    mode: Literal["local", "offline", "online"] = "local"
    project: str = ""  # default: the run's name

    def packages(self) -> Mapping[str, str]:
        return {"swanlab": "swanlab"}

    def open(self, run: Run, model: nn.Module, stage: Stage) -> Listener:
        """Raises LuodiError while another experiment is open in this process: SwanLab knows one at a time."""
        swanlab = require("swanlab", "swanlab")
        if swanlab.has_run():
            raise LuodiError("swanlab: an experiment is open in this process already; end it with swanlab.finish()")
        begun = swanlab.init(
            project=self.project or stage.home.name, experiment_name=stage.title, config=stage.step, mode=self.mode,
            logdir=str(stage.folder("swanlab")),
        )  # fmt: skip
        stage.closing(begun.finish)
        return Figures(lambda done, numbers: begun.log(dict(numbers), step=done))
