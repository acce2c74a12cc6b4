"""What a person sees while a recipe runs: a line a step, a bar while it works."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

_SHOWN_EVERY = 10.0  # seconds between lines of progress where there is no terminal


class Terminal:
    """A listener: bars on a terminal, plain lines elsewhere. Everything goes to standard error."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.bars: Any = None
        self.bar: Any = None
        self.steps: list[str] = []
        self.spoken = 0.0

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bars = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.bars is not None:
            self.bars.stop()

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        """Shows one event."""
        if self.quiet:
            return
        if event == "start":
            self.steps = list(facts["steps"])
            rehearsal = "  REHEARSAL on 64 rows" if facts["rehearsal"] else ""
            self.say(f"{facts['recipe']}: device {facts['device']}, {facts['threads']} threads{rehearsal}")
        elif event == "step":
            self.end_bar()
            state = "kept from an earlier run" if facts["state"] == "kept" else "..."
            self.say(f"[{facts['step']}/{len(self.steps)}] {facts['name']} {state}")
        elif event == "progress":
            self.progress(facts)
        elif event == "epoch":
            self.epoch(facts)
        elif event == "note":
            self.say(f"      {facts['text']}")
        elif event == "measured":
            self.end_bar()
            self.say(f"      measured in {facts['seconds']:.1f} s")

    def say(self, text: str) -> None:
        """One line, above the bar if there is one."""
        if self.bars is not None:
            self.bars.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def epoch(self, facts: Mapping[str, Any]) -> None:
        """One epoch's figures."""
        scores = " ".join(f"{name} {value:.4g}" for name, value in list(facts.get("validation", {}).items())[:1])
        losses = f"loss {facts['train_loss']:.4f}" + (
            f", validation {facts['validation_loss']:.4f}" if facts.get("validation_loss") is not None else ""
        )
        self.say(f"      epoch {facts['epoch']}: {losses} {scores}".rstrip())

    def progress(self, facts: Mapping[str, Any]) -> None:
        """A bar on a terminal; elsewhere a line now and then."""
        done, total, what = facts.get("done", 0), facts.get("total"), str(facts.get("what", ""))
        if self.bars is None:
            if time.monotonic() - self.spoken > _SHOWN_EVERY:
                self.spoken = time.monotonic()
                self.say(f"      {what} {done}/{total}")
            return
        if self.bar is None:
            self.bar = self.bars.add_task(what, total=total)
        self.bars.update(self.bar, completed=done, total=total, description=what)

    def end_bar(self) -> None:
        """Removes the bar of the step before."""
        if self.bar is not None:
            self.bars.remove_task(self.bar)
            self.bar = None
