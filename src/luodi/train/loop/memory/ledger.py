"""The bytes that tensors hold at each moment of a computation."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

NAME = "torch._dynamo"
# Operations whose kernels on a CPU hold, while they work, another tensor as large as their first argument (seen with
# torch.profiler, profile_memory=True).
HIDDEN = frozenset({"native_batch_norm_backward"})


class Ledger:
    """Bytes of all storages that came to be while it was open: now, and the most at any moment since `mark`.

    A storage counts once, however many tensors share it, and until the last of them is gone. On the meta device nothing
    is computed and nothing is allocated, but tensors come and go as they would.
    """

    def __init__(self) -> None:
        self.live = self.peak = 0
        self.known: dict[int, int] = {}  # storage -> bytes

    def mark(self) -> None:
        """Forgets earlier peaks."""
        self.peak = self.live

    def see(self, tensor: Tensor) -> None:
        """Counts a tensor's storage, if it is new."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known[key] = storage.nbytes()
        self.live += self.known[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.live -= self.known.pop(key)


@contextmanager
def counted() -> Generator[Ledger]:
    """A ledger of every operation inside, backward passes and updates included."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    ledger = Ledger()

    class Counting(TorchDispatchMode):
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # skipping it would import torch's compiler first, which takes seconds

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func.overloadpacket.__name__
            if name.startswith("_fused_"):
                return None  # moves weights where they lie: torch has no such kernel for the meta device
            if name in ("item", "_local_scalar_dense") and args[0].is_meta:
                return 1.0  # a tensor's value, a count of updates say: no size depends on it
            found = func(*args, **(kwargs or {}))
            for one in tree_iter(found):
                if isinstance(one, torch.Tensor):
                    ledger.see(one)
            if name in HIDDEN:
                ledger.peak = max(ledger.peak, ledger.live + args[0].nbytes)
            return found

    with _uncompiled(), Counting():
        yield ledger


@contextmanager
def _uncompiled() -> Generator[None]:
    """Keeps torch's compiler from being imported, which takes seconds and 60 MB, where its only use would be to be
    told that it is not wanted: many of torch's kernels for the meta device are wrapped so. Leaves nothing behind."""
    import torch

    if NAME in sys.modules:
        yield
        return
    told: list[Any] = []

    def disable(function: Any, *_: Any, **__: Any) -> Any:
        told.append(function)
        return function

    stand_in = ModuleType(NAME)
    vars(stand_in)["disable"] = disable
    sys.modules[NAME] = stand_in
    try:
        yield
    finally:
        del sys.modules[NAME]
        vars(torch).pop("_dynamo", None)
        for function in told:
            vars(function).pop("__dynamo_disable", None)  # where torch keeps what it was answered
