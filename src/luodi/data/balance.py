"""Rare labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from luodi.core.errors import LuodiError
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.step import Facts, Step
from luodi.core.thing import ModelConfig, Slot
from luodi.data.balancing.counts import lowered, raised, weights
from luodi.data.balancing.rows import copied, pictured, synthesised
from luodi.data.columns.fields import fields, kind, label_column, labels_of, texts

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.task import Task

SHOWN = 6  # labels that the table names


class Balance(Step):
    """Makes rare labels count more: weights in the loss, copies, fewer of the others, or rows that are made up.

    Works on the training rows; held-out rows keep the shares that they have in the world. `synthetic` is SMOTE for
    numbers and labels (arXiv 1106.1813), `augmented` changes pictures of the rare labels alone.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"rows", "split", "loss"})
    keeps: ClassVar[Literal["answers", "shape", "nothing"]] = "answers"

    how: Literal["weights", "over", "under", "synthetic", "augmented"] = "weights"
    strength: Annotated[float, Field(gt=0, le=1)] = 1.0  # 1: all labels even; 0.5: half the way, in powers
    target: str = "auto"  # the labels to balance; auto: the only category target
    neighbours: Annotated[int, Field(ge=1)] = 5  # of synthetic: rows are made up between so many nearest ones
    augments: tuple[Annotated[Any, Slot("augments")], ...] = ()  # of augmented: random changes of the copies

    @model_validator(mode="after")
    def _fits(self) -> Balance:
        if (self.how == "augmented") != bool(self.augments):
            raise ValueError("`augments` says how copies are changed: `how: augmented` needs it, nothing else takes it")
        return self

    def facts(self, have: frozenset[str]) -> Facts:
        return Facts(self.needs, self.gives, self.ends, self.excludes)

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        labels = labels_of(task)
        if not labels or (self.target != "auto" and self.target not in labels):
            return "only labels can be rare, and " + (
                "no target of this task is one" if not labels else f"{self.target} is none of the targets"
            )
        kinds = {name: kind(field) for name, field in fields(task, "inputs").items()}
        odd = sorted(name for name, what in kinds.items() if what not in ("number", "category"))
        if self.how == "synthetic" and odd:
            return f"between two {kinds[odd[0]]}s lies no third one ({odd[0]}); `how: augmented` or `over` can"
        if self.how == "synthetic" and len(fields(task, "targets")) > 1:
            return "a row that is made up has no other target than its label, and this task has more"
        wanted = {augment.kind for augment in self.augments}
        if wanted and (list(kinds.values()).count("image") != 1 or wanted != {"image"}):
            return "pictures are changed where one input is an image, by augments of images"
        return None

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        assert bundle.data is not None
        rows = bundle.data["train"]
        column = label_column(bundle.task, rows, self.target, "balance: target")
        labels = texts(rows, column)
        before = dict(sorted(Counter(labels).items()))
        if len(before) < 2:
            raise LuodiError(f"balance: the training rows have {len(before)} label in {column!r}; two are needed")
        if self.how == "weights":
            return self._weighed(bundle, column, before)
        made = self._made(bundle.task, rows, labels, run)
        after = dict(sorted(Counter(texts(made, column)).items()))
        data = replace(bundle.data, splits={**bundle.data.splits, "train": made})
        notes = {"part": "train", "rows_in": len(rows), "rows_out": len(made), "labels": {"in": before, "out": after}}
        told = f"{len(rows):,} -> {len(made):,} training rows ({self.how}): {_told(before, after)}"
        return bundle.replace(data=data).noting(**notes, told=[told])

    def _made(self, task: Task, rows: Rows, labels: Sequence[str], run: Run) -> Rows:
        counts = Counter(labels)
        if self.how == "under":
            return rows.take(copied(labels, lowered(counts, self.strength), run))
        wanted = raised(counts, self.strength)
        if self.how == "over":
            return rows.take(copied(labels, wanted, run))
        if self.how == "synthetic":
            return synthesised(task, rows, labels, wanted, self.neighbours, run)
        return pictured(task, rows, labels, wanted, self.augments, run)

    def _weighed(self, bundle: Bundle, column: str, counts: dict[str, int]) -> Bundle:
        """The bundle whose target weighs the rows of each label."""
        found = weights(counts, self.strength)
        targets = fields(bundle.task, "targets")
        target = targets[column].model_copy(update={"weights": found})
        task = bundle.task.model_copy(update={"targets": {**targets, column: target}})
        rows = sum(counts.values())
        notes = {"part": "train", "rows_in": rows, "rows_out": rows, "labels": {"in": counts, "out": counts}}
        shown = ", ".join(f"{label} {found[label]:.3g}" for label in list(found)[:SHOWN])
        told = f"weights in the loss of {column}: {shown}{', ...' if len(found) > SHOWN else ''}"
        return bundle.replace(task=task).noting(**notes, weights=found, told=[told])


def _told(before: dict[str, int], after: dict[str, int]) -> str:
    shown = [f"{label} {before[label]:,} -> {after[label]:,}" for label in before if before[label] != after[label]]
    return (
        ", ".join(shown[:SHOWN]) + (f", and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "") or "even already"
    )
