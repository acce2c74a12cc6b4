"""Which augment changes which input, and texts before they are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luodi.core.catalog import name_of
from luodi.core.field import Field
from luodi.train.loop.slots import Augment, Blend, TextAugment

if TYPE_CHECKING:
    from luodi.core.run import Run
    from luodi.core.task import Request, Task

AnAugment = Augment | Blend | TextAugment


@dataclass(frozen=True)
class Texts:
    """What changes the texts of a batch; the dice are a function of (seed, scope, augment, update, piece, rank)."""

    changes: tuple[tuple[str, TextAugment], ...]
    run: Run

    def __bool__(self) -> bool:
        return bool(self.changes)

    def changed(self, requests: Sequence[Request], key: tuple[int, ...]) -> list[Request]:
        """The requests with every text changed, in order; `key` is (update, piece, rank)."""
        found = [dict(request) for request in requests]
        for place, (name, augment) in enumerate(self.changes):
            texts = augment.apply_text([request[name] for request in found], self.run.dice("text", place, *key))
            for request, text in zip(found, texts, strict=True):
                request[name] = text
        return list(found)


def kinds_of(task: Task) -> dict[str, str]:
    """Input -> the kind of augments that may change it, of the inputs that have one."""
    fields = vars(task).get("inputs") or {}
    return {
        name: field.kind
        for name, field in fields.items()
        if isinstance(field, Field) and field.kind and name not in task.fixed
    }


def tensor_changes(augments: Sequence[AnAugment], task: Task) -> tuple[tuple[str, Augment | Blend], ...]:
    """(input, what changes its tensor), in the order of the augments."""
    kinds = kinds_of(task).items()
    return tuple(
        (name, augment)
        for augment in augments
        if not isinstance(augment, TextAugment)
        for name, kind in kinds
        if kind == augment.kind
    )


def texts_of(augments: Sequence[AnAugment], task: Task, run: Run) -> Texts:
    """What changes the task's texts, in the order of the augments."""
    names = [name for name, kind in kinds_of(task).items() if kind == "text"]
    changes = [(name, augment) for augment in augments if isinstance(augment, TextAugment) for name in names]
    return Texts(tuple(changes), run)


def objection_to(augments: Sequence[AnAugment], task: Task, batch_size: int) -> str | None:
    """Why an augment is impossible here, None if all are possible."""
    kinds = kinds_of(task)
    for augment in augments:
        name = name_of(type(augment))
        if augment.kind not in kinds.values():
            article = "an" if augment.kind == "image" else "a"
            return f"{name} changes {article} {augment.kind}, and no input of this task is one"
        if isinstance(augment, Blend):
            inputs = vars(task)["inputs"]
            if len(inputs) > 1:
                return f"{name} blends targets in the shares of one input; this task has {', '.join(inputs)}"
            if batch_size == 1:
                return f"{name} blends the examples of a batch, and batch_size is 1"
    return None
