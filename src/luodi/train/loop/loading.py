"""Batches ahead of time: processes that read and encode the next ones while the model learns from this one."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from luodi.core import device
from luodi.train.loop.examples import Held

if TYPE_CHECKING:
    from torch import Tensor

    from luodi.train.loop.examples import Examples, Pair, Piece

AHEAD = 2  # batches a process keeps ready
PROBED = 12  # batches that a candidate is timed on


@dataclass(frozen=True)
class _Batches:
    """A dataset of torch whose items are whole batches."""

    examples: Examples
    pieces: Sequence[Piece]

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, place: int) -> Pair:
        return self.examples.batch(*self.pieces[place])


def loaded(examples: Examples, pieces: Sequence[Piece], workers: int, home: str) -> Iterator[Pair]:
    """The batch of each piece, in order, on the device `home`; equal bits whatever the number of worker processes.

    Examples that are held in memory need no workers.
    """
    if not workers or isinstance(examples, Held) or not pieces:
        yield from (examples.batch(*piece) for piece in pieces)
        return
    from torch.utils.data import DataLoader

    context = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    batches = DataLoader(
        _Batches(examples.on("cpu"), pieces),  # ty: ignore[invalid-argument-type]
        batch_size=None, num_workers=min(workers, len(pieces)), prefetch_factor=AHEAD, worker_init_fn=_deaf,
        multiprocessing_context=context,
    )  # fmt: skip
    for inputs, truth in batches:
        yield (
            {name: tensor.to(home, non_blocking=True) for name, tensor in inputs.items()},
            {name: tensor.to(home, non_blocking=True) for name, tensor in truth.items()},
        )


def _deaf(worker: int) -> None:
    """Ctrl-C is for the training, which writes a checkpoint and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def fastest(examples: Examples, parts: Sequence[Tensor], home: str) -> tuple[int, dict[int, float]]:
    """The number of workers that loads fastest, and batches a second of each candidate: 0, 1, 2, 4... up to the cores.

    A worker more must be a tenth faster to count. Held examples: 0, untimed.
    """
    if isinstance(examples, Held) or len(parts) < 2:
        return 0, {}
    some = [(parts[place % len(parts)], (0, 0, 0)) for place in range(PROBED)]
    rates: dict[int, float] = {}
    for workers in (0, *(2**power for power in range(device.cores().bit_length()))):
        stream = loaded(examples, [some[0], *some], workers, home)
        next(stream)  # starting processes is paid once an epoch, not once a batch
        start = time.perf_counter()
        count = sum(1 for _ in islice(stream, PROBED))
        rates[workers] = count / (time.perf_counter() - start)
    best = 0
    for workers, rate in rates.items():
        best = workers if rate > 1.1 * rates[best] else best
    return best, rates
