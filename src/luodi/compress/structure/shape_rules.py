"""What operations on shapes do to channels: they are moved, merged, split, put side by side, summed."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from luodi.compress.structure.call import Call, Given
from luodi.compress.structure.ties import Followed, still

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from luodi.compress.structure.ties import Indices


def same(call: Call) -> Given | None:
    """Copies, casts, dropout: the first tensor's places."""
    return next(iter(call.tensors), None)


def elementwise(call: Call) -> Given | None:
    """Place by place, axes of one place stretched."""
    return call.ties.together(*call.tensors) if call.tensors else None


def view(call: Call) -> Given | None:
    """A length that is written out stays; only where the graph says -1 an axis may change."""
    sizes = call.arguments.get("size", call.arguments.get("shape"))
    return _regrouped(call, call.tensor("self"), {place for place, size in enumerate(sizes) if size == -1})


def flatten(call: Call) -> Given | None:
    """Merges axes, whatever their lengths."""
    return _regrouped(call, call.tensor("self"), set(range(len(call.shapes[0]))))


def unflatten(call: Call) -> Given | None:
    """Splits an axis; the length left open may change."""
    x, sizes = call.tensor("self"), call["sizes"]
    at, more = call["dim"] % len(x.axes), len(sizes) - 1
    inside = {at + place for place, size in enumerate(sizes) if size == -1}
    if call.heads:  # our own attention says how many heads it has, and can be told another number
        inside = {at}
    outside = {place for place in range(len(call.shapes[0])) if not at <= place <= at + more}
    return _regrouped(call, x, inside | outside)


def _regrouped(call: Call, x: Followed, free: set[int]) -> Followed | None:
    """The same numbers in another shape, whose axes in `free` may get shorter."""
    new, found = call.shapes[0], []
    for old_axes, new_places in _blocks(x.shape, new):
        olds, shape = [x.axes[place] for place in old_axes], [new[place] for place in new_places]
        open_places = [place for place, at in enumerate(new_places) if at in free]
        found += _block(call, olds, shape, open_places)
    return Followed(tuple(found))


def _block(call: Call, olds: list[Indices], shape: list[int], free: list[int]) -> list[Indices]:
    """One run of axes in another shape: a split or a merge of one axis that moves is followed, all else is fixed."""
    olds, real = [axis for axis in olds if len(axis) > 1], [size for size in shape if size > 1]
    moving = [place for place, axis in enumerate(olds) if call.ties.moves(axis)]
    free = [place for place in free if shape[place] > 1]
    if len(moving) == 1 and len(free) == 1 and (len(olds) == 1 or len(real) == 1):
        sides = [-1 if place == moving[0] else 1 for place in range(len(olds))]
        whole = np.broadcast_to(olds[moving[0]].reshape(sides), [len(axis) for axis in olds]).reshape(shape)
        rows = np.moveaxis(whole, free[0], 0).reshape(shape[free[0]], -1)
        if len(olds) == 1:
            for column in rows.T[1:]:
                call.ties.tie(rows[:, 0], column)
        return [rows[:, 0] if place == free[0] else still(side) for place, side in enumerate(shape)]
    call.ties.fix(*olds)
    return [still(side) for side in shape]


def _blocks(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Smallest runs of old and new axes that hold the same numbers; an axis of one place goes with what is before."""
    before, after = _ends(old), _ends(new)
    for low, high in pairwise([0, *sorted(set(before) & set(after))]):
        yield (
            [place for place, end in enumerate(before) if low < end <= high],
            [place for place, end in enumerate(after) if low < end <= high],
        )


def _ends(shape: Sequence[int]) -> list[int]:
    return [prod(shape[: place + 1]) for place in range(len(shape))]


def permute(call: Call) -> Given | None:
    """Axes in another order."""
    x = call.tensor("self")
    return Followed(tuple(x.axes[place] for place in call["dims"]))


def transpose(call: Call) -> Given | None:
    """Two axes change places."""
    x = call.tensor("self")
    axes, (a, b) = list(x.axes), (call.arguments.get("dim0", 0), call.arguments.get("dim1", -1))
    if axes:
        axes[a], axes[b] = axes[b], axes[a]
    return Followed(tuple(axes))


def unsqueeze(call: Call) -> Given | None:
    """A new axis of one place."""
    x = call.tensor("self")
    place = call["dim"] % (len(x.axes) + 1)
    return Followed((*x.axes[:place], still(1), *x.axes[place:]))


def squeeze(call: Call) -> Given | None:
    """Axes of one place go; a longer one stays as it is, or it might go as well once it has one place."""
    x = call.tensor("self")
    said = call.arguments.get("dim", list(range(len(x.axes))))
    places = {place % len(x.axes) for place in ([said] if isinstance(said, int) else said)}
    call.hold(x, sorted(places))
    return Followed(tuple(axis for at, axis in enumerate(x.axes) if at not in places or len(axis) != 1))


def expand(call: Call) -> Given | None:
    """A length that is written out stays; an axis of one place is stretched."""
    x, sizes = call.tensor("self"), call["size"]
    more, axes = len(sizes) - len(x.axes), []
    for place, size in enumerate(sizes):
        axis = x.axes[place - more] if place >= more else still(1)
        if size != -1:
            call.ties.fix(axis)
        axes.append(axis if size in (-1, len(axis)) else still(size))
    return Followed(tuple(axes))


def reduce(call: Call) -> Given | None:
    """A mean or a maximum is another without a channel of zeros: its axis stays."""
    return _reduced(call, fixed=True)


def total(call: Call) -> Given | None:
    """A sum goes on without a channel of zeros."""
    return _reduced(call, fixed=False)


def _reduced(call: Call, *, fixed: bool) -> Given | None:
    x, said = call.tensor("self"), call.arguments.get("dim")
    if said is None or said == []:
        return None
    places = {place % len(x.axes) for place in ([said] if isinstance(said, int) else said)}
    if fixed:
        call.hold(x, sorted(places))
    kept = still(1) if call.arguments.get("keepdim") else None
    axes = [kept if place in places else axis for place, axis in enumerate(x.axes)]
    return Followed(tuple(axis for axis in axes if axis is not None))


def softmax(call: Call) -> Given | None:
    """Shares of a whole: its axis stays."""
    return call.hold(call.tensor("self"), [call["dim"]])


def cat(call: Call) -> Given | None:
    """Side by side along one axis."""
    parts = [one for one in call["tensors"] if one.shape != (0,)]
    place = call["dim"] % len(parts[0].axes)
    flat = [call.with_axis(one, place, still(1)) for one in parts]
    joined = np.concatenate([one.axes[place] for one in parts])
    return call.with_axis(call.ties.together(*flat), place, joined)


def stack(call: Call) -> Given | None:
    """Side by side along a new axis."""
    axes = call.ties.together(*call["tensors"]).axes
    place = call["dim"] % (len(axes) + 1)
    return Followed((*axes[:place], still(len(call["tensors"])), *axes[place:]))


def chunk(call: Call) -> Given | None:
    """Equal parts stay equal: place i of every part goes together."""
    x, count = call.tensor("self"), call["chunks"]
    place = call["dim"] % len(x.axes)
    if len(call.shapes) != count or x.shape[place] % count:
        return None
    parts = np.split(x.axes[place], count)
    call.ties.tie(*parts)
    return [call.with_axis(x, place, part) for part in parts]


def split(call: Call) -> Given | None:
    """Parts whose lengths are written out stay, but for those of our own attention: they are numbers of heads."""
    x = call.tensor("self")
    place = call["dim"] % len(x.axes)
    if not call.heads:
        call.hold(x, [place])
    ends = np.cumsum([shape[place] for shape in call.shapes])[:-1]
    return [call.with_axis(x, place, part) for part in np.split(x.axes[place], ends)]


def unbind(call: Call) -> Given | None:
    """Each place of an axis alone."""
    x = call.tensor("self")
    place = call["dim"] % len(x.axes)
    call.hold(x, [place])
    return [Followed((*x.axes[:place], *x.axes[place + 1 :])) for _ in call.shapes]


def select(call: Call) -> Given | None:
    """One place of an axis."""
    x = call.tensor("self")
    place = call["dim"] % len(x.axes)
    call.hold(x, [place])
    return Followed((*x.axes[:place], *x.axes[place + 1 :]))


def cut_out(call: Call) -> Given | None:
    """A slice of an axis that stays; the whole axis goes on."""
    x = call.tensor("self")
    place = call["dim"] % len(x.axes)
    if not call["start"] and (call["end"] is None or call["end"] >= 2**31) and call["step"] == 1:
        return x
    call.hold(x, [place])
    return call.with_axis(x, place, still(call.shapes[0][place]))


SHAPES: dict[str, Callable[[Call], Given | None]] = {
    **dict.fromkeys(
        ["dropout", "dropout_", "feature_dropout", "alpha_dropout", "contiguous", "clone", "to", "_to_copy", "type_as",
         "detach", "detach_", "alias", "lift_fresh_copy", "zeros_like", "ones_like", "full_like"], same
    ),
    **dict.fromkeys(["expand_as", "where", "masked_fill", "relu6", "hardswish_", "hardtanh_", "selu", "celu", "mish",
                     "log_sigmoid"], elementwise),
    "view": view, "reshape": view, "_unsafe_view": view, "flatten": flatten, "unflatten": unflatten,
    "permute": permute, "transpose": transpose, "t": transpose, "unsqueeze": unsqueeze, "squeeze": squeeze,
    "expand": expand, "mean": reduce, "amax": reduce, "amin": reduce, "var": reduce, "std": reduce, "sum": total,
    "softmax": softmax, "log_softmax": softmax, "_softmax": softmax, "cat": cat, "concat": cat, "stack": stack,
    "chunk": chunk, "split": split, "split_with_sizes": split, "unbind": unbind, "select": select,
    "slice": cut_out,
}  # fmt: skip
