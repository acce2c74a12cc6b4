"""Memory that a training frees stays with the process until the training ends."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator
from contextlib import contextmanager

TRIM, MAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
LARGEST = 32 << 20  # bytes: the most that glibc's own rule sets M_MMAP_THRESHOLD to; it sets the other to twice that

SMALLEST = 1 << 20  # bytes: below it, the pages that a block begins and ends with would weigh more than its holes


@contextmanager
def memory_held(*, exact: bool = False) -> Generator[None]:
    """On Linux with glibc, tells malloc not to give freed memory back between updates; elsewhere does nothing.

    `exact` is the opposite: what is freed is given back at once, so that the process holds what its tensors do. Held
    memory is fast and has holes: a convolutional network's process then grows to up to twice its tensors.

    Else every update may give back and fault in all its activations again: up to a fifth of a small convolutional
    network's time. Afterwards malloc has the thresholds that glibc's own rule ends with, and gives the rest back.
    """
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}) or not os.confstr("CS_GNU_LIBC_VERSION"):
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(MAP, SMALLEST if exact else LARGEST)
    library.mallopt(TRIM, SMALLEST if exact else 2**31 - 1)
    try:
        yield
    finally:
        library.mallopt(MAP, LARGEST)
        library.mallopt(TRIM, 2 * LARGEST)
        library.malloc_trim(0)
