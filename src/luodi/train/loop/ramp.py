"""The way up to the full learning rate, and the way after it."""

from __future__ import annotations


def ramp(step: int, total: int, warmup: float) -> tuple[float, int, int]:
    """(factor while warming up, else 1; updates done after the warm-up; how many there are)."""
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising, 0, max(1, total - rising)
    return 1.0, step - rising, max(1, total - rising)
