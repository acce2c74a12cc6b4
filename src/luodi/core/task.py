"""What is to be done: how rows become requests, arrays, losses, answers and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from luodi.core.spec import Arrays, Signature, Spec
from luodi.core.thing import Json, ModelConfig, Thing

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.flow import Flow
    from luodi.core.predictor import Predictor
    from luodi.core.rows import Rows
    from luodi.core.run import Run

Row = Mapping[str, Any]  # column -> stored value; inputs and targets together
Request = Mapping[str, Any]  # input -> value, after Field.read
Answer = Mapping[str, Any]  # target -> {"value": ...}
Forward = Callable[[Arrays], Arrays]  # named arrays in, named arrays out: every runtime looks the same


@dataclass(frozen=True)
class Exam:
    """What a task was scored on: row identities and plain columns, the first axis the rows. One Parquet file."""

    ids: np.ndarray
    columns: Arrays
    paired: bool = True  # False: answers and truths are two samples (generators)

    def take(self, rows: np.ndarray) -> Exam:
        """The same exam on other rows: a bootstrap resample, a slice."""
        return Exam(self.ids[rows], {name: column[rows] for name, column in self.columns.items()}, self.paired)

    def __len__(self) -> int:
        return len(self.ids)


class Task(Thing):
    """A kind of work. A fitted task is a plain value: it prints, hashes and saves."""

    gives: ClassVar[frozenset[str]] = frozenset()  # facts: {"loss"} where a loss makes sense, {"world"} for a game

    @property
    def fixed(self) -> frozenset[str]:
        """Inputs that no augment may change: the truth is places in them."""
        return frozenset()

    def fit(self, rows: Rows) -> Self:
        """A copy whose fields are fitted on these rows: the training split alone."""
        raise NotImplementedError

    def inputs_specs(self) -> dict[str, Spec]:
        """Named tensors that the model is given."""
        raise NotImplementedError

    def outputs_specs(self) -> dict[str, Spec]:
        """Named tensors that the model must give."""
        raise NotImplementedError

    def build(self, config: ModelConfig) -> nn.Module:
        """A fresh model for this task, initialised from torch's default generator."""
        return config.build(self.inputs_specs(), self.outputs_specs())

    def read(self, wire: Json) -> Request:
        """A request from the wire (or from a row); raises BadRequest naming the column."""
        raise NotImplementedError

    def write(self, request: Request) -> Json:
        """JSON from which `read` gives the same request back."""
        raise NotImplementedError

    def encode(self, requests: Sequence[Request]) -> Arrays:
        """Requests as the model's named input arrays: the same in training, scoring and serving."""
        raise NotImplementedError

    def rows_to_requests(self, rows: Rows) -> list[Request]:
        """The stored rows as requests, columns that are no input left out; raises BadRequest naming row and column."""
        raise NotImplementedError

    def truth(self, rows: Rows) -> Arrays:
        """The rows' targets as named arrays, for `loss`."""
        raise NotImplementedError

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], truth: Mapping[str, Tensor]
    ) -> Mapping[str, tuple[Tensor, Tensor, float]]:
        """Name -> (losses (batch,), weights (batch,), share): the loop divides summed losses by summed weights."""
        raise NotImplementedError

    def decode(self, outputs: Arrays) -> list[Answer]:
        """One answer a row of the model's outputs."""
        raise NotImplementedError

    def kept(self, outputs: Arrays) -> Arrays:
        """What of a forward's outputs is kept with the golden requests: all, unless that would be very large."""
        return outputs

    def flow(self, forward: Forward, signature: Signature | None) -> Flow:
        """Requests in flight over a forward; by default one forward answers all that waits."""
        from luodi.core.flow import OneShot

        return OneShot(self, forward)

    def samples(self, rows: Rows | None, count: int, run: Run) -> list[Request]:
        """`count` representative requests (calibration, latency, export): rows if there are some, else examples."""
        raise NotImplementedError

    def examples(self, count: int, seed: int) -> list[Request]:
        """`count` requests made from the seed alone, covering every field: the golden requests."""
        raise NotImplementedError

    def examine(self, predict: Predictor, rows: Rows | None, seconds: float) -> Exam:
        """Answers on as many of the rows, in order, as fit the seconds (all if they fit)."""
        raise NotImplementedError

    def score(self, exam: Exam) -> dict[str, float]:
        """Metric -> value; also called on resamples."""
        raise NotImplementedError

    def metrics(self) -> dict[str, Literal["higher", "lower"]]:
        """Every metric and its better direction, the main one first."""
        raise NotImplementedError

    def headline(self) -> int:
        """How many of the metrics, from the main one on, stand in the table of the steps."""
        return 1

    def wire_schema(self) -> dict[str, Json]:
        """JSON Schemas: {"request": ..., "answer": ...}."""
        raise NotImplementedError
