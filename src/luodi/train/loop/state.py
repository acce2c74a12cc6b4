"""Where a training is: all that a checkpoint holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import nan
from typing import TYPE_CHECKING

from luodi.core.errors import LuodiError
from luodi.core.thing import Json
from luodi.core.weights import fill, plain_tensors
from luodi.train.loop.averaging import Lending
from luodi.train.loop.slots import Check

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from luodi.core.run import Run
    from luodi.train.loop.checkpoint import Checkpoint, Saved
    from luodi.train.loop.interrupt import Interrupt
    from luodi.train.loop.movers import Memory
    from luodi.train.loop.patience import Patience
    from luodi.train.loop.progress import Progress
    from luodi.train.loop.validation import Checked


class Diverged(LuodiError):
    """The loss is no longer a number."""


@dataclass
class State:
    """Updates done, epochs finished with their history, and the losses of the epoch in progress.

    No state of a random generator: every draw is a function of the step number.
    """

    model: nn.Module
    memory: Memory
    patience: Patience
    losses: Tensor  # (updates of an epoch,), on the device: reading one at each update would wait for it
    total: int  # updates of the whole training
    step: int = 0
    history: list[Json] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)  # of the epochs in the history
    lending: Lending = field(default_factory=Lending)  # averages of the weights

    @property
    def epoch(self) -> int:
        """Epochs finished, validation included."""
        return len(self.history)

    @property
    def at(self) -> int:
        """Updates done of the epoch in progress."""
        return self.step - self.epoch * len(self.losses)

    def advance(self) -> None:
        """One update more is done."""
        self.step += 1
        self.lending.after(self.step, self.total)

    def end(self, path: Path) -> None:
        """Puts the best weights back, or else the averages; `path`: of the checkpoint, for an error's text."""
        if not self.patience.weights:  # which were validated as averages
            self.lending.finish()
        self.patience.restore(self.model, path)

    def read_losses(self) -> Tensor:
        """The losses of this epoch so far, on the CPU; raises LuodiError at the first one that is not a number."""
        import torch

        losses = self.losses[: self.at].double().cpu()
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            place = int(bad[0])
            raise Diverged(
                f"the loss became {float(losses[place])} at update {self.epoch * len(self.losses) + place + 1} of "
                f"{self.total} (epoch {self.epoch + 1}); try a learning_rate ten times lower, clip: 1.0, "
                "or look for extreme values in the rows"
            )
        return losses

    def end_epoch(
        self, rate: float, progress: Progress, validate: Callable[[nn.Module], Checked] | None, start: float
    ) -> None:
        """Validates, writes the epoch into the history and tells the listeners."""
        progress.tell(self)
        checked = self._check(validate) if validate else None
        entry = {
            "epoch": self.epoch + 1,
            "train_loss": float(self.read_losses().mean()),
            "validation_loss": checked.loss if checked else None,
            "validation": dict(checked.metrics) if checked else {},
            "learning_rate": rate,
            "seconds": time.monotonic() - start,
        }
        self._remember([entry])
        progress.say("epoch", entry)

    def _check(self, validate: Callable[[nn.Module], Checked]) -> Checked:
        """Of the averaged weights, if there are any: patience keeps what was validated."""
        with self.lending.lent():
            checked = validate(self.model)
            self.patience.hear(checked, self.epoch + 1, self.model)
        return checked

    def _remember(self, history: Iterable[Json]) -> None:
        """Adds epochs to the history, and their checks to what a schedule sees."""
        name, better = self.patience.main or ("", "higher")
        for entry in history:
            self.history.append(entry)
            if entry["validation_loss"] is not None:
                score = entry["validation"].get(name, nan)
                self.checks.append(Check(entry["validation_loss"], score if better == "higher" else -score))

    def resume(self, checkpoint: Checkpoint, run: Run) -> None:
        """Goes on from the checkpoint, if there is one of this training."""
        saved = checkpoint.load()
        if isinstance(saved, str):
            run.log("note", {"text": saved})
        elif saved is not None:
            self._restore(saved, checkpoint)
            run.log("note", {"text": f"going on from the checkpoint at update {self.step} of {self.total}"})

    def keep(self, run: Run, checkpoint: Checkpoint, interrupt: Interrupt) -> None:
        """Writes a checkpoint, and then lets Ctrl-C through."""
        if run.rank == 0:
            self._save(checkpoint)
        if interrupt.asked:
            told = f"stopped at update {self.step} of {self.total}; the same command goes on from there"
            run.log("note", {"text": told})
            raise KeyboardInterrupt

    def _save(self, checkpoint: Checkpoint) -> None:
        """Raises LuodiError rather than keep weights behind a loss that is not a number."""
        self.read_losses()
        tensors = {f"model/{name}": tensor for name, tensor in plain_tensors(self.model)[0].items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.patience.weights.items()}
        tensors |= {f"memory/{name}": tensor for name, tensor in self.memory.tensors().items()}
        tensors |= {f"average/{name}": tensor for name, tensor in self.lending.memory.tensors().items()}
        tensors["losses"] = self.losses
        best = {"score": self.patience.best, "epoch": self.patience.epoch, "since": self.patience.since}
        facts = {"step": self.step, "history": self.history, "best": best, "memory": self.memory.facts()}
        facts["average"] = self.lending.memory.facts()
        checkpoint.save(tensors, facts)

    def _restore(self, saved: Saved, checkpoint: Checkpoint) -> None:
        fill(self.model, _under("model/", saved.tensors), plain_tensors(self.model)[1], checkpoint.path)
        self.memory.restore(_under("memory/", saved.tensors), saved.facts["memory"])
        self.lending.memory.restore(_under("average/", saved.tensors), saved.facts["average"])
        self.losses.copy_(saved.tensors["losses"])
        self.step = saved.facts["step"]
        self._remember(saved.facts["history"])
        best = saved.facts["best"]
        self.patience.best, self.patience.epoch, self.patience.since = best["score"], best["epoch"], best["since"]
        self.patience.weights = _under("best/", saved.tensors)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
