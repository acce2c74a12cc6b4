"""What to give up, one after the other, when a training does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from luodi.core.catalog import entries, name_of
from luodi.core.thing import make
from luodi.train.loop.memory.recompute import blocks_in

if TYPE_CHECKING:
    from torch import nn

    from luodi.train.train import Train

Rung = Literal["accumulate", "recompute", "optimizer", "offload", "inputs"]
LEAST = 0.05  # share of the prediction by which a smaller forward must lower it to be worth another halving

# Fields that decide where and in how much memory a training runs, and none of its bits.
NEUTRAL: dict[str, Any] = {"memory_mb": None, "ladder": (), "recompute": False, "offload": False, "hold_mb": 0.0}


def lower(step: Train, rung: Rung, fresh: Callable[[], nn.Module]) -> tuple[Train, str] | str:
    """The step one rung lower, and what that means; or why there is no such rung here.

    `fresh` builds the model on the meta device. `accumulate` keeps the rows of an update: sums are rounded in another
    order, batch norms see fewer rows at a time. `optimizer` ends with other weights. The others change no bit.
    """
    if rung == "accumulate":
        return _accumulated(step)
    if rung == "recompute":
        if step.recompute or step.compile:
            return "recompute: it is on already" if step.recompute else "recompute: a compiled graph decides it itself"
        if not blocks_in(fresh()):
            return "recompute: this model has no blocks to compute twice"
        return step.model_copy(update={"recompute": True}), "activations are computed twice"
    if rung == "optimizer":
        if "adafactor" not in entries("updates") or name_of(type(step.update)) == "adafactor":
            return "optimizer: there is no smaller one than the one that is used"
        told = f"adafactor in place of {name_of(type(step.update))}"
        return step.model_copy(update={"update": make("updates", "adafactor")}), told
    if step.offload:
        return "offload: it is on already"
    return step.model_copy(update={"offload": True}), "activations wait on the disk"


def _accumulated(step: Train) -> tuple[Train, str] | str:
    rows = step.rows_per_forward
    if rows == 1:
        return "accumulate: a forward is of one row already"
    half, whole = -(-rows // 2), step.rows_per_update
    forwards = -(-whole // half)
    changed = {"batch_size": half, "effective_batch": whole, "accumulate": forwards}
    told = f"{forwards} forwards of {half} rows an update"
    return step.model_copy(update=changed), told


def lower_until(step: Train, predicted: Callable[[Train], float], limit_mb: float) -> tuple[Train, str] | str:
    """Halves the forward until it fits by prediction, or until that no longer helps."""
    found = _accumulated(step)
    if isinstance(found, str):
        return found
    before, now = predicted(step), predicted(found[0])
    if before and now > (1 - LEAST) * before:
        return "accumulate: smaller forwards would save next to nothing"
    while now > limit_mb:
        further = _accumulated(found[0])
        if isinstance(further, str) or (then := predicted(further[0])) > (1 - LEAST) * now:
            break
        found, now = further, then
    return found


def still_to_go(step: Train, taken: Sequence[str]) -> tuple[Rung, ...]:
    """The rungs of the step's ladder that were not tried; a smaller forward is there as long as it has several rows."""
    left = tuple(rung for rung in step.ladder if rung not in taken)
    if not left and "accumulate" in step.ladder and step.rows_per_forward > 1:
        return ("accumulate",)
    return left
