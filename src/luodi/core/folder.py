"""A run on disk: the resolved recipe, one stream of events, the kept bundle of every step."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luodi.core import atomic
from luodi.core.errors import LuodiError

Listener = Callable[[str, Mapping[str, Any]], None]


def quiet(event: str, facts: Mapping[str, Any]) -> None:
    """A listener that shows nothing."""


@dataclass
class Ticks:
    """Which ticks of progress are kept: one a second at first, one in ten seconds of a long piece of work, the last."""

    what: Any = None
    began: float = 0.0
    kept: float = 0.0

    def due(self, facts: Mapping[str, Any]) -> bool:
        """Whether to keep this one."""
        now, what = time.monotonic(), (facts.get("step"), facts.get("what"))
        if what != self.what:
            self.what, self.began, self.kept = what, now, 0.0
        spacing = min(max((now - self.began) / 500, 1.0), 10.0)
        if facts.get("done") != facts.get("total") and self.kept and now - self.kept < spacing:
            return False
        self.kept = now
        return True


@dataclass
class RunFolder:
    """runs/<name>/: recipe.yaml, events.jsonl, limits.json, records/, rows/, steps/<key>/, bundle/."""

    path: Path
    listener: Listener = quiet
    about: dict[str, Any] = field(default_factory=dict)  # step number and name, added to every event
    ticks: Ticks = field(default_factory=Ticks)
    stream: str = "events.jsonl"

    def log(self, event: str, facts: Mapping[str, Any]) -> None:
        """One event: to events.jsonl, unless it is a tick of progress soon after another, and to the listener."""
        whole = {"time": round(time.time(), 3), "event": event, **self.about, **facts}
        if event != "progress" or self.ticks.due(whole):
            with (self.path / self.stream).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(whole, ensure_ascii=False, default=str) + "\n")
        self.listener(event, whole)

    def step(self, key: str) -> Path:
        """The folder of one step."""
        return self.path / "steps" / key

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keeps a second run out of the folder; a lock of a process that is gone does not count."""
        self.path.mkdir(parents=True, exist_ok=True)
        handle = (self.path / ".lock").open("a+", encoding="utf-8")
        try:
            if not _lock(handle):
                handle.seek(0)
                raise LuodiError(
                    f"another run (process {handle.read().strip()}) is at work in {self.path}; wait for it"
                )
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            with self._ending(handle):
                yield
        finally:
            handle.close()

    @contextmanager
    def _ending(self, handle: Any) -> Generator[None]:
        """Says in the stream why a run stopped; an empty lock is one that nobody holds."""
        try:
            yield
        except BaseException as error:
            if (self.path / "events.jsonl").exists():  # a run refused before any work leaves nothing
                self.log("stopped", {"text": str(error), "error": type(error).__name__})
            raise
        finally:
            handle.truncate(0)
            handle.flush()

    def sweep(self, keep: set[str]) -> None:
        """Removes the kept steps that the recipe no longer uses."""
        for folder in (self.path / "steps").glob("*"):
            if folder.suffix == ".gone":
                shutil.rmtree(folder)
            elif folder.name not in keep:
                atomic.remove_folder(folder)

    def publish(self, bundle: Path) -> Path:
        """The last step's bundle as the run's bundle: hard links where the file system allows."""

        def fill(folder: Path) -> None:
            for file in (p for p in bundle.rglob("*") if p.is_file()):
                atomic.link_or_copy(file, folder / file.relative_to(bundle))

        return atomic.write_folder(self.path / "bundle", fill)


def _lock(handle: Any) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks; two runs in one folder are the user's to avoid
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
