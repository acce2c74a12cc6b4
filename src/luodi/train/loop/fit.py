"""The loop: every training by gradient goes through here."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from luodi.train.loop.allocator import memory_held
from luodi.train.loop.averaging import lending_of
from luodi.train.loop.gradients import backward
from luodi.train.loop.graph import Compiled
from luodi.train.loop.interrupt import Interrupt
from luodi.train.loop.layout import channels_last
from luodi.train.loop.learning import Learning
from luodi.train.loop.memories import Joined
from luodi.train.loop.memory.thrift import Thrift, thrifty
from luodi.train.loop.precision import Arithmetic
from luodi.train.loop.progress import counted
from luodi.train.loop.settings import default_generator, settled
from luodi.train.loop.state import State
from luodi.train.loop.zeros import Zeros

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.run import Run
    from luodi.train.loop.checkpoint import Checkpoint
    from luodi.train.loop.examples import Examples
    from luodi.train.loop.movers import Memory
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

    learning = Learning(model, plan.scope, plan.update)
    with _set(model, run, plan.thrift) as interrupt, plan.audience.seated(plan, model, run) as progress:
        zeros, arithmetic = Zeros(model, plan.zeros, run), Arithmetic(plan.precision, run.device)
        generator = default_generator(run.device)
        state = _state(model, Joined({"update": learning.memory, "arithmetic": arithmetic.memory}), plan, run, patience)
        state.lending = lending_of(plan.average, learning.movers, model, partial(plan.inputs, examples, run))
        state.resume(checkpoint, run)
        forward: Any = Compiled(model, run) if plan.compile else model
        while state.epoch < plan.epochs_in(run) and not patience.over:
            start = time.monotonic()
            model.train()
            parameters = learning.begin(state.epoch)
            updates = plan.updates(plan.sampler.order(state.epoch), run)[state.at :]
            for batches in plan.batches(examples, updates, state.step, run):
                progress.begin(state, counted(batches) * run.world)
                generator.manual_seed(run.seed_for("step", state.step, run.rank))
                state.losses[state.at] = backward(plan.losses, forward, parameters, batches, run.world, arithmetic)
                zeros.calm()
                if arithmetic.usable(parameters):
                    if plan.clip is not None:
                        clip_grad_norm_(parameters, plan.clip)
                    learning.move(*plan.pace(state.step, state.total, state.checks))
                zeros.keep()
                state.advance()
                progress.tick(state)
                if interrupt.asked or checkpoint.due(epoch_ends=False):
                    state.keep(run, checkpoint, interrupt)
            state.end_epoch(plan.rate(state.step - 1, state.total, state.checks), progress, validate, start)
            if interrupt.asked or checkpoint.due(epoch_ends=True):
                state.keep(run, checkpoint, interrupt)
        learning.end()
        state.end(checkpoint.path)
    model.eval()
    return state


@contextmanager
def _set(model: nn.Module, run: Run, thrift: Thrift) -> Generator[Interrupt]:
    """What a training sets inside: threads, kernels, memory, layout, and Ctrl-C heard between two updates."""
    with ExitStack() as stack:
        for setting in (settled(run), memory_held(exact=thrift.exact), channels_last(model, run.device)):
            stack.enter_context(setting)
        stack.enter_context(thrifty(model, run.device, run.out, thrift))
        yield stack.enter_context(Interrupt())


def _state(model: nn.Module, memory: Memory, plan: Plan, run: Run, patience: Patience) -> State:
    """Nothing done yet."""
    import torch

    count = len(plan.updates(plan.sampler.order(0), run))
    losses = torch.zeros(count, device=run.device)
    return State(model, memory, patience, losses, count * plan.epochs_in(run))
