"""The loop: every training by gradient goes through here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from luodi.core.errors import LuodiError
from luodi.train.loop.allocator import memory_held
from luodi.train.loop.gradients import backward
from luodi.train.loop.interrupt import Interrupt
from luodi.train.loop.layout import channels_last
from luodi.train.loop.progress import Progress
from luodi.train.loop.settings import default_generator, settled
from luodi.train.loop.state import State
from luodi.train.loop.zeros import Zeros

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.run import Run
    from luodi.train.loop.checkpoint import Checkpoint
    from luodi.train.loop.examples import Examples
    from luodi.train.loop.movers import Mover
    from luodi.train.loop.patience import Patience
    from luodi.train.loop.plan import Plan
    from luodi.train.loop.validation import Checked


def fit(
    model: nn.Module,
    examples: Examples,
    plan: Plan,
    run: Run,
    checkpoint: Checkpoint,
    patience: Patience,
    validate: Callable[[nn.Module], Checked] | None = None,
) -> State:
    """Trains `model` in place, going on from the checkpoint if there is one of this training.

    Every random draw is a function of (seed, scope, step): a training that was killed and started again ends with the
    same bits. Raises KeyboardInterrupt after Ctrl-C, once a checkpoint is written.
    """
    from torch.nn.utils import clip_grad_norm_

    parameters = _trained(model)
    with settled(run), memory_held(), channels_last(model, run.device), Interrupt() as interrupt:
        zeros, progress, generator = (
            Zeros(model, plan.zeros, run),
            Progress(plan.listeners),
            default_generator(run.device),
        )
        mover = plan.update.build(model)
        state = _state(model, mover, plan, run, patience)
        state.resume(checkpoint, run)
        while state.epoch < plan.epochs_in(run) and not patience.over:
            start = time.monotonic()
            model.train()
            for rows in plan.updates(plan.sampler.order(state.epoch), run)[state.at :]:
                generator.manual_seed(run.seed_for("step", state.step, run.rank))
                batches = plan.batches(examples, rows, state.step, run)
                state.losses[state.at] = backward(plan.losses, model, parameters, batches, run.world)
                zeros.calm()
                if plan.clip is not None:
                    clip_grad_norm_(parameters, plan.clip)
                mover.move(plan.rate(state.step, state.total))
                zeros.keep()
                state.step += 1
                progress.tick(state)
                if interrupt.asked or checkpoint.due(epoch_ends=False):
                    state.keep(run, checkpoint, interrupt)
            state.end_epoch(plan.rate(state.step - 1, state.total), progress, validate, start)
            if interrupt.asked or checkpoint.due(epoch_ends=True):
                state.keep(run, checkpoint, interrupt)
        patience.restore(model, checkpoint.path)
    model.eval()
    return state


def _trained(model: nn.Module) -> list[nn.Parameter]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise LuodiError("this model has nothing to train: all its weights are frozen")
    return parameters


def _state(model: nn.Module, mover: Mover, plan: Plan, run: Run, patience: Patience) -> State:
    """Nothing done yet."""
    import torch

    count = len(plan.updates(plan.sampler.order(0), run))
    losses = torch.zeros(count, device=run.device)
    return State(model, mover.memory, patience, losses, count * plan.epochs_in(run))
