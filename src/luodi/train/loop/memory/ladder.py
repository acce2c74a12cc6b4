"""What to give up, one after the other, when a training does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from luodi.core.catalog import entries, name_of
from luodi.core.thing import make
from luodi.train.loop.memory.prediction import blank
from luodi.train.loop.memory.recompute import blocks_in

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.bundle import Bundle
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


def smaller(bundle: Bundle) -> tuple[Bundle, str] | str:
    """The bundle with images of half the size, from now on and for whoever is served; or why it cannot be."""
    if bundle.model is not None or bundle.config is None:
        return "inputs: the model was made for this size"
    inputs = vars(bundle.task).get("inputs") or {}
    sizes = {name: field for name, field in inputs.items() if getattr(field, "kind", "") == "image"}
    if not sizes or any(field.resize_to is not None for field in sizes.values()):
        return "inputs: no input is an image whose size may be changed alone"
    halves = {name: _half(field.size) for name, field in sizes.items()}
    fields = {name: field.model_copy(update={"size": halves[name]}) for name, field in sizes.items()}
    task = bundle.task.model_copy(update={"inputs": inputs | fields})
    try:
        blank(task, bundle.config)
    except ValueError as error:
        return f"inputs: {error}"
    told = ", ".join(f"{name} of {half} in place of {sizes[name].size} pixels" for name, half in halves.items())
    return bundle.replace(task=task), told


def _half(size: Any) -> Any:
    return max(size // 2, 1) if isinstance(size, int) else tuple(max(side // 2, 1) for side in size)


def still_to_go(step: Train, taken: Sequence[str]) -> tuple[Rung, ...]:
    """The rungs of the step's ladder that were not tried; a smaller forward is there as long as it has several rows."""
    left = tuple(rung for rung in step.ladder if rung not in taken)
    if not left and "accumulate" in step.ladder and step.rows_per_forward > 1:
        return ("accumulate",)
    return left
