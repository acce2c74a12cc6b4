"""Other weights than those that are trained: averages, lent to the model for a look and left in it at the end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from luodi.core.thing import Json
from luodi.train.loop.movers import Memory

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.train.loop.slots import Average, Batch

STATISTICS = (
    100  # training batches from which batch norms' statistics are estimated anew: their mean is then good to 1%
)

Pairs = Sequence["tuple[Tensor, Tensor]"]  # (a tensor of the model, what it becomes)


class Averager(Protocol):
    """Averages of one model's weights, kept up while it trains."""

    @property
    def memory(self) -> Memory: ...

    @property
    def stale(self) -> bool:
        """Whether the model's batch norms have seen other weights than the averages."""
        ...

    def after(self, done: int, total: int) -> None:
        """Called after every update; `done` of `total` are done."""
        ...

    def pairs(self) -> Pairs:
        """The averages, none while there are none yet."""
        ...


class Nothing:
    """The memory of what remembers nothing."""

    def tensors(self) -> Mapping[str, Tensor]:
        return {}

    def facts(self) -> Json:
        return {}

    def restore(self, tensors: Mapping[str, Tensor], facts: Json) -> None:
        """Nothing to put back."""


@dataclass(frozen=True)
class Lending:
    """The averages of a training, if it has any."""

    averager: Averager | None = None
    model: nn.Module | None = None
    batches: Callable[[], Iterable[Batch]] = tuple  # inputs of training batches, the same at every call

    @property
    def memory(self) -> Memory:
        return self.averager.memory if self.averager else Nothing()

    def after(self, done: int, total: int) -> None:
        """Called after every update."""
        if self.averager is not None:
            self.averager.after(done, total)

    @contextmanager
    def lent(self) -> Generator[None]:
        """The model has the averages inside, and afterwards the weights that are trained, bit for bit."""
        changed = self._changed()
        kept = [tensor.detach().clone() for tensor in changed]
        self.finish()
        try:
            yield
        finally:
            _copy(zip(changed, kept, strict=True))

    def finish(self) -> None:
        """Leaves the averages in the model."""
        pairs = self.averager.pairs() if self.averager else ()
        if self.averager is None or self.model is None or not pairs:
            return
        _copy(pairs)
        if self.averager.stale:
            estimate_statistics(self.model, islice(self.batches(), STATISTICS))

    def _changed(self) -> list[Tensor]:
        """Every tensor of the model that `finish` writes into, once."""
        pairs = self.averager.pairs() if self.averager else ()
        tensors = [tensor for tensor, _ in pairs]
        if self.averager is not None and self.model is not None and pairs and self.averager.stale:
            tensors += [buffer for norm in _norms(self.model) for buffer in norm.buffers(recurse=False)]
        return list({id(tensor): tensor for tensor in tensors}.values())


class RunningAverage:
    """Keeps a += share(done, total) * (w - a) for trained weights and buffers; nothing while the share is 0 at first.

    Integers, which count, are not averaged: the model's own stay.
    """

    def __init__(self, model: nn.Module, share: Callable[[int, int], float], *, stale: bool) -> None:
        self.share, self.stale = share, stale
        parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
        self.of: dict[str, Tensor] = parameters | buffers
        self.average: dict[str, Tensor] = {}

    @property
    def memory(self) -> Memory:
        return self

    def after(self, done: int, total: int) -> None:
        """Takes the weights in."""
        import torch

        share = self.share(done, total)
        if not self.average:
            self.average = {name: tensor.detach().clone() for name, tensor in self.of.items()} if share else {}
        elif share:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.values()), list(self.of.values()), share)

    def pairs(self) -> Pairs:
        return [(self.of[name], value) for name, value in self.average.items()]

    def tensors(self) -> Mapping[str, Tensor]:
        return self.average

    def facts(self) -> Json:
        return {}

    def restore(self, tensors: Mapping[str, Tensor], facts: Json) -> None:
        import torch

        self.average = {n: torch.empty_like(self.of[n]).copy_(tensors[n]) for n in self.of if n in tensors}


def lending_of(
    average: Average | None, averager: Averager | None, model: nn.Module, batches: Callable[[], Iterable[Batch]]
) -> Lending:
    """The recipe's average, or that of an update which has its own (`averager`), or none."""
    made = average.build(model) if average is not None else averager
    return Lending(made, model, batches) if made is not None else Lending()


def estimate_statistics(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Sets batch norms' running mean and variance to their plain average over these batches; dropout stays off.

    Weights that never saw a batch have no statistics of their own (arXiv 1803.05407, section 3.2).
    """
    import torch

    norms = _norms(model)
    if not norms:
        return
    momenta, modes = [norm.momentum for norm in norms], [(module, module.training) for module in model.modules()]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # what torch calls the cumulative average
        norm.train()
    with torch.no_grad():
        for inputs in batches:
            model(**inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, training in modes:
        module.training = training


def _norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    from torch import nn

    kinds = (nn.modules.batchnorm._BatchNorm,)
    return [module for module in model.modules() if isinstance(module, kinds) and module.track_running_stats]


def _copy(pairs: Iterator[tuple[Tensor, Tensor]] | Pairs) -> None:
    import torch

    with torch.no_grad():
        for tensor, value in pairs:
            tensor.copy_(value)
