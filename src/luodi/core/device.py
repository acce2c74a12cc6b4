"""Which device works: said once, and never replaced by another in silence."""

from __future__ import annotations

import os

from luodi.core.errors import LuodiError


def choose(wanted: str) -> str:
    """`auto` is the first of cuda, xpu, mps, cpu that is there; any other name must be there, else LuodiError."""
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "xpu": hasattr(torch, "xpu") and torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return next(name for name, is_there in there.items() if is_there)
    if not there[wanted]:
        have = ", ".join(name for name, is_there in there.items() if is_there)
        raise LuodiError(
            f"device {wanted!r} is not on this machine (torch {torch.__version__}); there is: {have}, auto"
        )
    return wanted


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
