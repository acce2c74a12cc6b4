"""TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from luodi.core.catalog import require
from luodi.train.loop.figures import Figures
from luodi.train.loop.slots import Listener, Observer

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.run import Run
    from luodi.train.loop.audience import Stage


class Tensorboard(Observer):
    """TensorBoard event files in the run's folder: `tensorboard --logdir runs` shows every training."""

    def packages(self) -> Mapping[str, str]:
        return {"tensorboard": "tensorboard"}

    def open(self, run: Run, model: nn.Module, stage: Stage) -> Listener:
        """Writes to `<run>/tensorboard/<training>/`. What a killed training had written beyond the update at which it
        goes on is hidden by its purge step."""
        require("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        folder = stage.folder("tensorboard")
        writers: list[Any] = []

        def keep(done: int, numbers: Mapping[str, float]) -> None:
            if not writers:
                writers.append(SummaryWriter(str(folder), purge_step=done))
                stage.closing(writers[0].close)
            for name, value in numbers.items():
                writers[0].add_scalar(name, value, done)

        return Figures(keep)
