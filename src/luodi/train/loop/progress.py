"""How far a training is, a few times a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luodi.train.loop.footprint import memory_now

if TYPE_CHECKING:
    from luodi.train.loop.examples import Pair
    from luodi.train.loop.slots import Checks, Listener
    from luodi.train.loop.state import State

EVERY = 0.3  # seconds: reading a loss waits for the device
RECENT = 10.0  # seconds of work that a speed is taken over


class Pace:
    """The recent speed of the updates, and how long the pauses between epochs are (validation, mostly)."""

    def __init__(self) -> None:
        self.points: deque[tuple[float, int, int]] = deque()  # (seconds of work, updates, examples), the oldest first
        self.rested = 0.0
        self.pause: float | None = None  # the last one, in seconds

    def rest(self, seconds: float) -> None:
        """A pause between two epochs."""
        self.rested += seconds
        self.pause = seconds

    def note(self, now: float, updates: int, examples: int) -> None:
        """So many updates and examples are done now."""
        work = now - self.rested
        while len(self.points) > 2 and work - self.points[1][0] > RECENT:
            self.points.popleft()
        self.points.append((work, updates, examples))

    def speed(self) -> tuple[float, float] | None:
        """Updates and examples a second; None before there are any."""
        if not self.points:
            return None
        (start, updates, examples), (end, updates_now, examples_now) = self.points[0], self.points[-1]
        if end <= start or updates_now == updates:
            return None
        return (updates_now - updates) / (end - start), (examples_now - examples) / (end - start)


class Progress:
    """Tells the listeners how many updates are done and how fast, and looks at the losses on the way.

    `rate` gives the learning rate of an update; `before` and `after` are called around every update.
    """

    def __init__(self, listeners: Sequence[Listener], rate: Callable[[int, int, Checks], float] | None = None) -> None:
        self.listeners = list(listeners)
        self.rate = rate
        self.before: list[Callable[[State], None]] = []
        self.after: list[Callable[[State], None]] = []
        self.pace, self.examples = Pace(), 0
        self.resting: float | None = time.monotonic()  # since when, None: at work
        self.next = time.monotonic() + EVERY

    def begin(self, state: State, examples: int) -> None:
        """Called before every update, with the number of its examples."""
        if self.resting is not None:
            self._work(state)
        self.examples += examples
        for look in self.before:
            look(state)

    def tick(self, state: State) -> None:
        """Called after every update; does nothing more most times."""
        for look in self.after:
            look(state)
        if time.monotonic() >= self.next:
            self.tell(state)

    def tell(self, state: State) -> None:
        """Reads the losses (which raises at one that is not a number) and says where the training is."""
        losses, now = state.read_losses(), time.monotonic()
        epochs = state.total // len(state.losses)
        facts: dict[str, Any] = {
            "done": state.step, "total": state.total, "what": "train", "epoch": state.epoch + 1, "epochs": epochs,
        }  # fmt: skip
        if len(losses):
            facts["loss"] = float(losses[-20:].mean())
        if self.rate is not None and state.step:
            facts["learning_rate"] = self.rate(state.step - 1, state.total, state.checks)
        if self.resting is None:
            self.pace.note(now, state.step, self.examples)
        self.say("progress", facts | self._speed(state, epochs) | memory_now(state.losses.device))
        if state.at == len(state.losses):
            self.resting = now
        self.next = time.monotonic() + EVERY

    def say(self, event: str, facts: Mapping[str, Any]) -> None:
        """One event to every listener."""
        for listener in self.listeners:
            listener(event, facts)

    def _work(self, state: State) -> None:
        """The pause before this update is over; the one before the first is no pause between epochs."""
        now = time.monotonic()
        if self.pace.points and self.resting is not None:
            self.pace.rest(now - self.resting)
        else:
            self.pace.note(now, state.step, 0)
        self.resting = None

    def _speed(self, state: State, epochs: int) -> dict[str, Any]:
        """Examples a second, and the time that is left at the recent speed with the pauses that are to come.

        It is the least that can be left while no pause has been seen.
        """
        found = self.pace.speed()
        if found is None:
            return {}
        updates, examples = found
        left = (state.total - state.step) / updates + (epochs - state.epoch) * (self.pace.pause or 0.0)
        facts: dict[str, Any] = {"examples_a_second": round(examples, 1), "remaining_seconds": round(left, 1)}
        return facts | ({"remaining_is_least": True} if self.pace.pause is None else {})


def counted(batches: Sequence[Pair]) -> int:
    """The examples of some batches."""
    return sum(len(next(iter(inputs.values()))) for inputs, _ in batches)
