"""What a training holds of the memory now."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import device


def memory_now(device: device) -> dict[str, float]:
    """`memory_mb`: resident memory of this process; `device_mb`: what torch holds of the device's, where it has one."""
    import torch

    found = {"memory_mb": round(_process().memory_info().rss / 1e6, 1)}
    held = None
    if device.type in ("cuda", "xpu"):
        held = getattr(torch, device.type).memory_reserved(device)
    elif device.type == "mps":
        held = torch.mps.driver_allocated_memory()
    return found | ({"device_mb": round(held / 1e6, 1)} if held is not None else {})


@cache
def _process() -> Any:
    import psutil

    return psutil.Process()
