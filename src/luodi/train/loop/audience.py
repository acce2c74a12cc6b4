"""Who hears of a training: the run's stream, and the listeners of the recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luodi.core.thing import Json
from luodi.train.loop.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.run import Run
    from luodi.train.loop.plan import Plan
    from luodi.train.loop.slots import Observer


@dataclass(frozen=True)
class Stage:
    """What an observer is given of a training: its name, its step's fields, and where to ask for more.

    `progress.before` and `progress.after` are called around every update, `progress.say` tells everybody; `closing`
    takes what is to be done at the end, also after an error.
    """

    home: Path  # a folder that stays when the step is done
    title: str  # the same for a training that goes on; other fields, another seed, another scope: another title
    step: Json
    progress: Progress
    closing: Callable[[Callable[[], object]], object]
    hooks: bool = True  # whether a hook on a module may be set: not while a compiled graph stands in for it

    def folder(self, name: str) -> Path:
        """A folder for files of this training."""
        folder = self.home / name / self.title
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass(frozen=True)
class Audience:
    """The listeners of a step, not yet open, and what goes from them into the step's notes."""

    observers: tuple[Observer, ...] = ()
    step: Json = None
    notes: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def seated(self, plan: Plan, model: nn.Module, run: Run) -> Generator[Progress]:
        """Everybody listens inside; of several processes only the first has observers."""
        progress = Progress((*plan.listeners, self._remember), plan.rate)
        with ExitStack() as stack:
            stage = Stage(
                run.home or run.out, title_of(self.step, run), self.step, progress, lambda do: stack.callback(do)
            )
            for observer in self.observers if run.rank == 0 else ():
                progress.listeners.append(observer.open(run, model, stage))
            yield progress

    def _remember(self, event: str, facts: Mapping[str, Any]) -> None:
        if event == "layers":
            self.notes["looks"] = dict(facts)


def title_of(step: Json, run: Run) -> str:
    """What a training is called: its scope and eight hex digits of all its fields."""
    whole = json.dumps([step, run.seed, run.scope, run.rehearse], sort_keys=True)
    scope = [str(name) for name in run.scope if name != 0] or ["training"]
    return "-".join([*scope, sha256(whole.encode()).hexdigest()[:8]])
