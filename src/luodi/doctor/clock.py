"""Where the time of an update goes, measured inside the real loop."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from luodi.train.loop.audience import Audience
from luodi.train.loop.movers import Mover
from luodi.train.loop.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.run import Run
    from luodi.train.loop.examples import Examples, Pair, Piece
    from luodi.train.loop.slots import Losses, Objective, Update

WARM = 3  # updates that are not counted: first calls allocate


@dataclass
class Clock:
    """Wall and processor seconds by part: load, augment, forward, update; what is left of all is the backward pass."""

    device: str
    wall: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    updates: int = 0
    examples: int = 0

    @contextmanager
    def part(self, name: str) -> Generator[None]:
        """Counts what happens inside."""
        self._settle()
        wall, processor = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self._settle()
            self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
            self.processor[name] = self.processor.get(name, 0.0) + time.process_time() - processor

    def reset(self) -> None:
        """Starts counting anew."""
        self.wall.clear()
        self.processor.clear()
        self.updates = self.examples = 0

    def _settle(self) -> None:
        """Work on a device that runs by itself is waited for, so that it counts where it was asked for."""
        if self.device != "cpu":
            import torch

            getattr(torch, self.device.partition(":")[0]).synchronize()


@dataclass(frozen=True)
class TimedPlan(Plan):
    """A plan whose one epoch lasts some seconds, over and over the same rows, with a clock in every part."""

    clock: Clock = field(default_factory=lambda: Clock("cpu"))
    seconds: float = 2.0

    @classmethod
    def of(cls, plan: Plan, clock: Clock, seconds: float) -> TimedPlan:
        """The plan with a clock; no listeners, one epoch."""
        given: dict[str, Any] = {one.name: getattr(plan, one.name) for one in fields(Plan)}
        given["objective"], given["update"] = _Timed(plan.objective, clock), _TimedUpdate(plan.update, clock)
        given["epochs"], given["listeners"], given["audience"] = 1, (), Audience()
        return cls(**given, clock=clock, seconds=seconds)

    def updates(self, order: Tensor, run: Run) -> tuple[Tensor, ...]:
        once = super().updates(order, run)
        return once * max(10_000 // len(once), 1)

    def batches(self, examples: Examples, updates: Sequence[Tensor], step: int, run: Run) -> Iterator[list[Pair]]:
        stream, end = super().batches(examples, updates, step, run), float("inf")
        for count, rows in enumerate(updates):
            if count == WARM:
                self.clock.reset()
                end = time.perf_counter() + self.seconds
                start, processor = time.perf_counter(), time.process_time()
            with self.clock.part("batches"):
                batch = next(stream)
            yield batch
            self.clock.updates += 1
            self.clock.examples += len(rows)
            if count > WARM and time.perf_counter() >= end:
                break
        self.clock.wall["all"] = time.perf_counter() - start
        self.clock.processor["all"] = time.process_time() - processor

    def stream(self, examples: Examples, pieces: Sequence[Piece], run: Run) -> Iterator[Pair]:
        stream = super().stream(examples, pieces, run)
        for _ in pieces:
            with self.clock.part("load"):
                pair = next(stream)
            yield pair


@dataclass(frozen=True)
class _Timed:
    """An objective, timed: the forward pass and the loss."""

    objective: Objective
    clock: Clock

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Losses:
        with self.clock.part("forward"):
            return self.objective(model, batch, truth)


@dataclass(frozen=True)
class _TimedUpdate:
    """An update whose moves are timed."""

    update: Update
    clock: Clock

    def build(self, model: nn.Module) -> Mover:
        mover = self.update.build(model)

        def move(rate: float, damping: float = 1.0) -> None:
            with self.clock.part("update"):
                mover.move(rate, damping)

        return replace(mover, move=move)


def shares(clock: Clock) -> dict[str, float]:
    """Each part's share of the wall time: load, augment, forward, backward, update."""
    wall: dict[str, Any] = {name: clock.wall.get(name, 0.0) for name in ("batches", "load", "forward", "update", "all")}
    wall["augment"] = max(wall["batches"] - wall["load"], 0.0)
    wall["backward"] = max(wall["all"] - wall["batches"] - wall["forward"] - wall["update"], 0.0)
    return {name: wall[name] / wall["all"] for name in ("load", "augment", "forward", "backward", "update")}
