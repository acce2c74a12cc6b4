"""What a person sees while a recipe runs: a line a step, a bar while it works."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
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
        self.flagged: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            said = TextColumn("{task.fields[said]}")
            columns = (TextColumn("  {task.description}"), BarColumn(20), MofNCompleteColumn(), said)
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
            self.say(f"[{facts['step']}/{facts.get('of', len(self.steps))}] {facts['name']} {state}")
        elif event == "progress":
            self.progress(facts)
        elif event == "epoch":
            self.epoch(facts)
        elif event == "note":
            self.say(f"      {facts['text']}")
        elif event == "layers":
            self.flags(facts["flags"])
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

    def flags(self, found: Sequence[Mapping[str, Any]]) -> None:
        """What is wrong with layers, each finding said once."""
        for flag in found:
            if (flag["layer"], flag["what"]) not in self.flagged:
                self.flagged.add((flag["layer"], flag["what"]))
                self.say(f"      ! {flag['text']}")

    def progress(self, facts: Mapping[str, Any]) -> None:
        """A bar on a terminal; elsewhere a line now and then."""
        done, total, what = facts.get("done", 0), facts.get("total"), str(facts.get("what", ""))
        if self.bars is None:
            if time.monotonic() - self.spoken > _SHOWN_EVERY:
                self.spoken = time.monotonic()
                self.say(f"      {what} {done}/{total} {said(facts)}".rstrip())
            return
        if self.bar is None:
            self.bar = self.bars.add_task(what, total=total, said="")
        self.bars.update(self.bar, completed=done, total=total, description=what, said=said(facts))

    def end_bar(self) -> None:
        """Removes the bar of the step before."""
        if self.bar is not None:
            self.bars.remove_task(self.bar)
            self.bar = None


def said(facts: Mapping[str, Any]) -> str:
    """What a tick of progress says besides its count: loss, rate, speed, memory, and the time that is left."""
    parts = []
    if "loss" in facts:
        parts.append(f"loss {facts['loss']:.4f}")
    if "learning_rate" in facts:
        parts.append(f"rate {facts['learning_rate']:.3g}")
    if "examples_a_second" in facts:
        parts.append(f"{facts['examples_a_second']:,.0f}/s")
    if "memory_mb" in facts:
        parts.append(f"{facts['memory_mb']:,.0f} MB")
    if "device_mb" in facts:
        parts.append(f"{facts['device_mb']:,.0f} MB of the device")
    if "remaining_seconds" in facts:
        least = "over " if facts.get("remaining_is_least") else ""
        parts.append(f"{least}{clock(facts['remaining_seconds'])} left")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
