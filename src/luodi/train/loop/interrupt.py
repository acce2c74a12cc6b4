"""Ctrl-C heard between updates."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interrupt:
    """Turns the first Ctrl-C into a wish, so that an update in progress ends whole; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self.before: object = None

    def __enter__(self) -> Interrupt:
        # Only the main thread gets signals, and a process started to ignore them must go on ignoring them.
        here = threading.current_thread() is threading.main_thread()
        if here and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self.before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()
        if self.asked and kind is None:
            raise KeyboardInterrupt

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)  # ty: ignore[invalid-argument-type]
            self.before = None
