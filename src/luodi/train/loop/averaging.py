"""Other weights than those that are trained: averages, lent to the model for a look and left in it at the end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from luodi.core.thing import Json
from luodi.train.loop.memories import Joined
from luodi.train.loop.movers import Memory

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.train.loop.movers import Mover
    from luodi.train.loop.slots import Average, Batch

STATISTICS = (
    100  # training batches from which batch norms' statistics are estimated anew: their mean is then good to 1%
)

Pairs = Sequence["tuple[Tensor, Tensor]"]  # (a tensor of the model, what it becomes)


class Pairing(Protocol):
    """Other weights for one model than those that are trained."""

    @property
    def stale(self) -> bool:
        """Whether the model's batch norms have seen other weights than these."""
        ...

    def pairs(self) -> Pairs:
        """The weights, none while there are none yet."""
        ...


class Averager(Pairing, Protocol):
    """Averages of one model's weights, kept up while it trains."""

    @property
    def memory(self) -> Memory: ...

    def after(self, done: int, total: int) -> None:
        """Called after every update; `done` of `total` are done."""
        ...


@dataclass(frozen=True)
class Lending:
    """The averages of a training, if it has any."""

    averager: Averager | None = None  # of the recipe
    others: tuple[Pairing, ...] = ()  # of an update that ends with other weights than it trains
    model: nn.Module | None = None
    batches: Callable[[], Iterable[Batch]] = tuple  # inputs of training batches, the same at every call

    @property
    def memory(self) -> Memory:
        return self.averager.memory if self.averager else Joined({})

    def after(self, done: int, total: int) -> None:
        """Called after every update."""
        if self.averager is not None:
            self.averager.after(done, total)

    @contextmanager
    def lent(self) -> Generator[None]:
        """The model has the averages inside, and afterwards the weights that are trained, bit for bit."""
        changed = [tensor for tensor, _ in self._pairs()]
        if self._norms():
            found = {id(tensor): tensor for tensor in changed}
            changed += [b for norm in self._norms() for b in norm.buffers(recurse=False) if id(b) not in found]
        kept = [tensor.detach().clone() for tensor in changed]
        self.finish()
        try:
            yield
        finally:
            _copy(zip(changed, kept, strict=True))

    def finish(self) -> None:
        """Leaves the averages in the model."""
        _copy(self._pairs())
        if self.model is not None and self._norms():
            estimate_statistics(self.model, islice(self.batches(), STATISTICS))

    def _shown(self) -> Sequence[Pairing]:
        return (self.averager,) if self.averager else self.others

    def _pairs(self) -> Pairs:
        return [pair for one in self._shown() for pair in one.pairs()]

    def _norms(self) -> list[nn.modules.batchnorm._BatchNorm]:
        """The batch norms whose statistics do not fit the averages."""
        stale = any(one.stale and one.pairs() for one in self._shown())
        return norms_of(self.model) if stale and self.model is not None else []


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
    average: Average | None, movers: Sequence[Mover], model: nn.Module, batches: Callable[[], Iterable[Batch]]
) -> Lending:
    """What a training lends: the recipe's average, or those of its movers, or nothing."""
    others = tuple(mover.shown for mover in movers if mover.shown is not None)
    return Lending(average.build(model) if average is not None else None, others, model, batches)


def estimate_statistics(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Sets batch norms' running mean and variance to their plain average over these batches; dropout stays off.

    Weights that never saw a batch have no statistics of their own (arXiv 1803.05407, section 3.2).
    """
    import torch

    norms = norms_of(model)
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


def norms_of(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch norms of a model that keep running statistics."""
    from torch import nn

    kinds = (nn.modules.batchnorm._BatchNorm,)
    return [module for module in model.modules() if isinstance(module, kinds) and module.track_running_stats]


def _copy(pairs: Iterator[tuple[Tensor, Tensor]] | Pairs) -> None:
    import torch

    with torch.no_grad():
        for tensor, value in pairs:
            tensor.copy_(value)
