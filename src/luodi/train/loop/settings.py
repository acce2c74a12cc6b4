"""What a training sets in torch, and puts back."""

from __future__ import annotations

from collections.abc import Generator as Yields
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Generator

    from luodi.core.run import Run


@contextmanager
def settled(run: Run) -> Yields[None]:
    """The run's thread count and deterministic kernels inside, what was there before afterwards.

    An operation without a deterministic kernel warns; on a CPU there is none that a supervised model uses. Memory is
    not filled before use, which deterministic mode does by default and which would cost time without changing a result.
    """
    import torch

    deterministic: Any = torch.utils.deterministic
    threads, filling = torch.get_num_threads(), deterministic.fill_uninitialized_memory
    mode, tuned = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    torch.set_num_threads(run.threads)
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms would import torch's compiler first
    deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        deterministic.fill_uninitialized_memory = filling
        torch.backends.cudnn.benchmark = tuned


def default_generator(device: str) -> Generator:
    """The generator that dropout and its like draw from on this device.

    It alone is seeded before each update: `torch.manual_seed` seeds every device and takes a hundred times longer.
    """
    import torch

    kind, _, index = device.partition(":")
    if kind == "cuda":
        torch.cuda.init()
        return torch.cuda.default_generators[int(index) if index else torch.cuda.current_device()]
    if kind == "xpu":
        torch.xpu.init()
        return torch.xpu.default_generators[int(index) if index else torch.xpu.current_device()]
    if kind == "mps":
        return torch.mps._get_default_mps_generator()
    return torch.default_generator
