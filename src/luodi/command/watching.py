"""`luodi watch`: a live page of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def watch_runs(paths: Sequence[Path], port: int, *, wait: bool) -> int:
    """Serves the page until it is stopped; Ctrl-C is how one leaves, so it is no failure."""
    from luodi.watch.app import watch
    from luodi.watch.watched import watched

    runs = watched(paths, wait=wait)
    try:
        watch(runs, port)
    except KeyboardInterrupt:
        print()
    return 0
