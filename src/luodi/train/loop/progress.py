"""How far a training is, a few times a second."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luodi.train.loop.slots import Listener
    from luodi.train.loop.state import State

EVERY = 0.3  # seconds: reading a loss waits for the device


class Progress:
    """Tells the listeners how many updates are done, and looks at the losses on the way."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = tuple(listeners)
        self.next = time.monotonic() + EVERY

    def tick(self, state: State) -> None:
        """Called after every update; does nothing most times."""
        if time.monotonic() >= self.next:
            self.tell(state)

    def tell(self, state: State) -> None:
        """Reads the losses (which raises at one that is not a number) and says where the training is."""
        losses = state.read_losses()
        facts: dict[str, Any] = {"done": state.step, "total": state.total, "what": "train", "epoch": state.epoch + 1}
        if len(losses):
            facts["loss"] = float(losses[-20:].mean())
        self.say("progress", facts)
        self.next = time.monotonic() + EVERY

    def say(self, event: str, facts: Mapping[str, Any]) -> None:
        """One event to every listener."""
        for listener in self.listeners:
            listener(event, facts)
