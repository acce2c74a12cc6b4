"""A run as the watcher sees it: its stream, whether somebody works on it, and the evidence that is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from luodi.core import atomic
from luodi.core.errors import LuodiError
from luodi.watch import stream

SIGNS = ("events.jsonl", "recipe.yaml", ".lock")  # one of them is in every run's folder
NOTED = ("history", "looks")  # notes that the stream of events holds already


@dataclass(frozen=True)
class Watched:
    """One run's folder, which may not be there yet."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def events(self, stamp: str, at: int) -> dict[str, Any]:
        """The events from there on, and whether a run is at work."""
        working = self.working()  # first: what a run writes before it ends must not be missed
        return {**stream.read(self.path / "events.jsonl", stamp, at).facts(), "working": working}

    def working(self) -> bool:
        """Whether the process that locked the folder still lives; its lock is not touched.

        A later process may have got the number of one that was killed: it is younger than the lock.
        """
        import psutil

        lock = self.path / ".lock"
        try:
            number, locked = int(lock.read_text(encoding="utf-8").strip() or "0"), lock.stat().st_mtime
            process = psutil.Process(number) if number else None
            return (
                process is not None and process.create_time() <= locked + 1 and process.status() != psutil.STATUS_ZOMBIE
            )
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return False

    def evidence(self) -> dict[str, Any]:
        """Key of a step -> its evidence, of all that are on the disk now."""
        found: dict[str, Any] = {}
        for note in sorted((self.path / "steps").glob("*/step.json")):
            one = _last(note.with_name("bundle"), note)
            if one is not None:
                found[note.parent.name] = one
        return found


def _last(bundle: Path, note: Path) -> dict[str, Any] | None:
    """The evidence of the step that made a bundle; None while it is not there, or is being replaced."""
    home = atomic.present(bundle)
    if home is None:
        return None
    try:
        evidence = json.loads((home / "evidence" / "evidence.json").read_text(encoding="utf-8"))
        number = json.loads(note.read_text(encoding="utf-8"))["number"]
    except (OSError, ValueError):
        return None
    if not evidence or evidence[-1]["number"] != number:
        return None
    one = {key: evidence[-1][key] for key in ("name", "number", "form", "measures", "words", "seconds", "measuring")}
    notes = {name: value for name, value in evidence[-1]["notes"].items() if name not in NOTED}
    return {**one, "notes": notes}


def watched(paths: Sequence[Path], *, wait: bool = False) -> list[Watched]:
    """The runs to watch; raises LuodiError for a folder that is none. With `wait` a run may start later."""
    for path in paths:
        _check(path, wait)
    names = [path.resolve() for path in paths]
    return [Watched(path) for place, path in enumerate(paths) if names.index(path.resolve()) == place]


def _check(path: Path, wait: bool) -> None:
    if any((path / sign).exists() for sign in SIGNS):
        return
    if path.is_file():
        raise LuodiError(f"{path} is a file; watch the folder of a run: runs/NAME")
    if path.is_dir() and any(path.iterdir()):
        inside = sorted(one.name for one in path.iterdir() if any((one / sign).exists() for sign in SIGNS))
        if inside:
            raise LuodiError(f"{path} holds runs; name those to watch: {' '.join(str(path / one) for one in inside)}")
        home = next((one for one in path.resolve().parents if (one / SIGNS[0]).exists()), None)
        hint = f"; it lies in the run {home}" if home else "; `luodi list runs` shows what there is"
        raise LuodiError(f"{path} is no folder of a run (it has no {SIGNS[0]}){hint}")
    if wait:
        return
    there = [one.parent.name for one in path.absolute().parent.glob(f"*/{SIGNS[0]}")]
    close = get_close_matches(path.name, there, n=1, cutoff=0.5)
    hint = f"did you mean {path.parent / close[0]}? " if close else ""
    raise LuodiError(f"there is no run in {path}; {hint}--wait waits until it starts; `luodi list runs` shows all")
