"""A run under way: what its steps share, and where it stands."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from luodi.core import atomic, store
from luodi.core.apply import reopen
from luodi.core.bundle import Bundle
from luodi.core.child import Nursery
from luodi.core.evidence import Evidence
from luodi.core.folder import RunFolder
from luodi.core.recipe import Budget, Recipe
from luodi.core.run import Run
from luodi.core.task import Task
from luodi.core.thing import ModelConfig


@dataclass(frozen=True)
class Work:
    """What every step of a run shares."""

    recipe: Recipe
    folder: RunFolder
    cache: Path
    run: Run
    nursery: Nursery
    trust: tuple[str, ...]
    task: Task  # as the recipe or the start bundle has it, before fitting
    config: ModelConfig | None

    @property
    def budget(self) -> Budget:
        """What measuring may cost; a rehearsal takes a token of it."""
        small = {"seconds": 2.0, "calls": 40, "resamples": 100}
        return self.recipe.measure.model_copy(update=small) if self.run.rehearse else self.recipe.measure


@dataclass(frozen=True)
class Place:
    """Where a run stands: the last step's kept folder, its bundle in memory only if a step needed it."""

    key: str
    digest: str
    home: Path | None  # steps/<key>/; None before anything is kept
    bundle: Bundle | None
    evidence: tuple[Evidence, ...] = ()

    @property
    def path(self) -> Path:
        """The saved bundle."""
        assert self.home is not None
        return self.home / "bundle"

    def said(self) -> dict[str, Any]:
        """What step.json says: key, name, number, step, notes, seconds."""
        assert self.home is not None
        return json.loads((self.home / "step.json").read_text(encoding="utf-8"))

    def with_evidence(self, evidence: tuple[Evidence, ...]) -> Place:
        """The place with this evidence, its bundle in memory included."""
        bundle = replace(self.bundle, evidence=evidence) if self.bundle is not None else None
        return replace(self, evidence=evidence, bundle=bundle)

    def opened(self, work: Work) -> Bundle:
        """The bundle with its rows: from memory, else loaded (parity-checked) and its rows opened again."""
        if self.bundle is not None:
            return self.bundle
        loaded = Bundle.load(self.path, trust=work.trust, device=work.run.device)
        return reopen(loaded, work.cache, work.run, work.trust)


def is_kept(home: Path) -> bool:
    """Whether a step's bundle is there, whole; one that a kill left aside comes back."""
    return (home / "step.json").is_file() and atomic.mended(home / "bundle").exists()


def answers(head: dict[str, Any]) -> bool:
    """Whether a saved bundle has something that answers: a model or a form."""
    return "weights.safetensors" in head["sha256"] or bool(head["forms"])


def held_out(work: Work, place: Place) -> Path | None:
    """The test rows as an Arrow file of the run, written once for each origin; None where no rows are held out."""
    origin = store.peek(place.path)["origin"]
    if origin is None:
        return None
    name = sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:16]
    path = work.folder.path / "rows" / f"{name}.arrow"
    if not path.exists():
        bundle = place.opened(work)
        assert bundle.data is not None
        if "test" not in bundle.data.splits:
            return None
        bundle.data["test"].save(path)
    return path
