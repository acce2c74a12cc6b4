"""Training without a framework."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from luodi.core.bundle import Edit
from luodi.core.catalog import name_of
from luodi.core.errors import LuodiError
from luodi.core.step import Facts, Step
from luodi.core.thing import ModelConfig, dump
from luodi.train.loop.by_hand.network import Momentum, backward, cross_entropy, forward, squared_error

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.bundle import Bundle
    from luodi.core.run import Run
    from luodi.core.task import Task
    from luodi.train.loop.checkpoint import Checkpoint
    from luodi.train.loop.state import State

Loss = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]  # (output, truth) -> (mean loss, its slope)
REHEARSED = 8  # updates of a rehearsal


class ByHand(Step):
    """Trains a multilayer perceptron in plain arrays: forward pass, loss, gradients and descent are written out.

    The weights are those of the model's own linear layers, so every other step applies unchanged. Needs the model
    `mlp` with `relu` and no dropout, one target, and inputs that are numbers or images. The arithmetic is NumPy's, with
    the threads that NumPy was started with. A killed training goes on from its checkpoint.
    """

    needs: ClassVar = frozenset({"split", "loss"})
    gives: ClassVar = frozenset({"model", "float", "fitted", "exposed"})
    ends: ClassVar = frozenset({"private"})

    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=1)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 0.02
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    zeros: Literal["auto", "keep", "refill"] = "auto"  # weights that are 0: stay, or grow; auto: stay if pruned
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0  # longest time between checkpoints within an epoch

    def facts(self, have: frozenset[str]) -> Facts:
        more = frozenset({"float"}) if "model" in have else frozenset()
        return Facts(self.needs | more, self.gives, self.ends, self.excludes)

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        if config is None or name_of(type(config)) != "mlp":
            got = "a model from elsewhere" if config is None else name_of(type(config))
            return f"the gradients written out are those of a multilayer perceptron (model: mlp), not of {got}"
        fields = vars(config)
        if fields["activation"] != "relu" or fields["dropout"]:
            return "the gradients written out are those of the rectifier without dropout (activation: relu, dropout: 0)"
        columns = next(iter(dump(task).values()))
        kinds = {name: next(iter(field)) for name, field in (columns.get("inputs") or {}).items()}
        odd = sorted(name for name, kind in kinds.items() if kind not in ("number", "image"))
        if odd or not kinds:
            return f"inputs must be numbers or images: {', '.join(odd) or 'this task'} would need a learned table"
        return _objection_to_targets(columns.get("targets") or {})

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        from luodi.train.loop.checkpoint import Checkpoint
        from luodi.train.loop.identity import identity
        from luodi.train.loop.zeros import settled

        if objection := self.objection(bundle.task, bundle.config):
            raise LuodiError(f"by_hand: {objection}")
        if run.world > 1:
            raise LuodiError("by_hand: arrays are not shared among processes; run it in one")
        run, zeros = replace(run, device="cpu"), settled(self.zeros, bundle)
        bundle = bundle.ready(run)
        assert bundle.model is not None
        bundle.model.to("cpu")
        checkpoint = Checkpoint(run.out / "checkpoint", identity(self, bundle, run), self.checkpoint_seconds)
        state = self._fit(bundle, run, checkpoint, zeros)
        checkpoint.remove()
        done = bundle.with_model(bundle.model.eval(), edit=Edit(step=self))
        notes = {"history": state.history, "updates": state.step}
        return done.replace(facts=(done.facts | self.gives) - self.ends).noting(**notes)

    def _fit(self, bundle: Bundle, run: Run, checkpoint: Checkpoint, wish: Literal["keep", "refill"]) -> State:
        """The loop: forward, loss, backward, move; the model's own weights are the arrays."""
        from luodi.train.loop.by_hand.bridge import flat, layers_of
        from luodi.train.loop.examples import encode_all
        from luodi.train.loop.interrupt import Interrupt
        from luodi.train.loop.progress import Progress
        from luodi.train.loop.sampler import Shuffled
        from luodi.train.loop.validation import validation_of
        from luodi.train.loop.zeros import Zeros

        assert bundle.data is not None and bundle.model is not None
        inputs, truths = encode_all(bundle.task, bundle.data["train"])
        x, (truth,), loss = flat(inputs), truths.values(), _loss(bundle.task)
        held_out = bundle.data.splits.get("validation")
        validate = validation_of(bundle.task, held_out, run, inf) if held_out is not None and len(held_out) else None
        layers, zeros = layers_of(bundle.model), Zeros(bundle.model, wish, run)
        update = Momentum.still(layers, self.momentum)
        state = self._state(bundle.model, update, len(x), run)
        state.resume(checkpoint, run)
        sampler, progress = Shuffled(len(x), run), Progress((run.log,), lambda *_: self.learning_rate)
        with Interrupt() as interrupt:
            while state.step < state.total or state.at:
                start, order = time.monotonic(), sampler.order(state.epoch).numpy()
                while state.at < len(state.losses):
                    rows = order[state.at * self.batch_size : (state.at + 1) * self.batch_size]
                    progress.begin(state, len(rows))
                    values = forward(layers, x[rows])
                    state.losses[state.at], slope = loss(values[-1], truth[rows])
                    update.move(backward(layers, values, slope), self.learning_rate)
                    zeros.keep()
                    state.step += 1
                    progress.tick(state)
                    if interrupt.asked or checkpoint.due(epoch_ends=False):
                        state.keep(run, checkpoint, interrupt)
                state.end_epoch(self.learning_rate, progress, validate, start)
                if interrupt.asked or checkpoint.due(epoch_ends=True):
                    state.keep(run, checkpoint, interrupt)
        return state

    def _state(self, model: nn.Module, update: Momentum, count: int, run: Run) -> State:
        """Nothing done yet."""
        import torch

        from luodi.train.loop.by_hand.bridge import MomentumMemory
        from luodi.train.loop.patience import Patience
        from luodi.train.loop.state import State

        batches, epochs = -(-count // self.batch_size), self.epochs
        if run.rehearse:
            batches, epochs = min(batches, REHEARSED), 1
        never = Patience(None, "loss", {})
        return State(model, MomentumMemory(update), never, torch.zeros(batches), batches * epochs)


def _objection_to_targets(targets: dict[str, Any]) -> str | None:
    if len(targets) != 1:
        return f"the loss written out is that of one target, and this task has {len(targets)}"
    ((name, field),) = targets.items()
    kind, fields = next(iter(field.items()))
    if kind not in ("category", "number") or fields.get("distance", "squared") != "squared":
        return f"the losses written out are cross-entropy and squared error, and {name} is learned by another"
    if fields.get("weights"):
        return f"the loss written out counts all labels alike, and those of {name} have weights"
    return None


def _loss(task: Task) -> Loss:
    """The loss of the only target, with its share."""
    ((kind, fields),) = next(iter(next(iter(dump(task).values()))["targets"].values())).items()
    share = fields["weight"]

    def labels(output: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
        mean, slope = cross_entropy(output, truth, fields["label_smoothing"])
        return share * mean, share * slope

    def numbers(output: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
        mean, slope = squared_error(output, truth)
        return share * mean, share * slope

    return labels if kind == "category" else numbers
