"""What a training on a device cannot promise: the same bits after a kill, and speed."""

from __future__ import annotations

from luodi.train.loop.precision import Precision, slow


def cautions(precision: Precision, device: str, *, compiled: bool) -> tuple[str, ...]:
    """Sentences for `plan`; none: a training that is killed and started again ends with the same bits."""
    found = [said] if (said := slow(precision, device)) else []
    kind = device.partition(":")[0]
    if compiled:
        found.append("compile: a graph compiled again may round differently: resuming is close, not bit for bit")
    if kind != "cpu":
        found.append(f"{kind}: some of its kernels add in a changing order: resuming is close, not bit for bit")
    return tuple(found)
