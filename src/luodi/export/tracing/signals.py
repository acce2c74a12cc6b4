"""The stack on which a process handles its signals, kept where it is while a library moves it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Generator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of sigaltstack(2)."""

    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextmanager
def signal_stack_kept() -> Generator[None]:
    """Gives this thread its signal stack back afterwards. OpenVINO 2026.4 puts one of its own there while it compiles
    and later gives that memory away: the next signal with a handler, Ctrl-C or the end of a child, would then end the
    process without a word."""
    if sys.platform != "linux":
        yield
        return
    system, before = ctypes.CDLL(None, use_errno=True), _Stack()
    system.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        system.sigaltstack(ctypes.byref(before), None)
