"""Tensors that do not fit a model, told so that a person sees which is which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

MOST = 12  # names told of each kind

Shape = tuple[int, ...]


def told_mismatch(missing: Sequence[str], extra: Sequence[str], shapes: Mapping[str, tuple[Shape, Shape]]) -> str:
    """Lines on tensors that are missing, with the nearest name in the file, and on shapes (in the file, in the model).

    Empty if nothing is missing and every shape fits: tensors that the model does not use are no error here.
    """
    lines = []
    for name in missing[:MOST]:
        close = get_close_matches(name, extra, n=1, cutoff=0.4)
        lines.append(f"  {name} is missing" + (f"; the nearest name in the file is {close[0]}" if close else ""))
    if len(missing) > MOST:
        lines.append(f"  and {len(missing) - MOST} more are missing")
    for name, (have, want) in list(shapes.items())[:MOST]:
        lines.append(f"  {name} is {have} in the file, the model wants {want}")
    if len(shapes) > MOST:
        lines.append(f"  and {len(shapes) - MOST} more have another shape")
    return "\n".join(lines)
