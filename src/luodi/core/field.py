"""One typed column: how it is fitted, read from the wire, encoded for a model, learned and scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from luodi.core.spec import Arrays, Spec
from luodi.core.thing import Json, Thing

if TYPE_CHECKING:
    from torch import Tensor


class Field(Thing):
    """One typed column. What it learns are its own blanks: `fit` returns a field with them filled in.

    Every method that reads a value raises BadRequest("", message) and the task adds the column's name.
    """

    kind: ClassVar[str] = ""  # which augments may change its values: those of "image", "text", "sound"; "": none

    def fit(self, column: Iterable[Any]) -> Self:
        """A copy with its blanks filled from the training split's values; blanks given in the recipe stay."""
        return self

    def specs(self) -> dict[str, Spec]:
        """Suffix -> spec of each tensor this column becomes; most have the one suffix ''."""
        raise NotImplementedError

    def read(self, wire: Json | bytes) -> Any:
        """A value from JSON, bytes or a stored cell; raises BadRequest with what is allowed."""
        raise NotImplementedError

    def write(self, value: Any) -> Json:
        """JSON from which `read` gives the same value back."""
        raise NotImplementedError

    def encode(self, values: Sequence[Any]) -> Arrays:
        """Suffix -> array with the batch as first axis: what the model is given."""
        raise NotImplementedError

    def example(self, count: int, seed: int) -> list[Any]:
        """`count` values that cover the field (sizes, modes, beyond the fitted range), made from the seed alone."""
        raise NotImplementedError

    def wire_schema(self) -> dict[str, Json]:
        """JSON Schema of the wire value, with a description and an example."""
        raise NotImplementedError


class Target(Field):
    """A column that can be learned: it also knows its loss, its answers, its records and its metrics."""

    weight: float = 1.0  # share of this target in the summed loss
    better: ClassVar[dict[str, Literal["higher", "lower"]]] = {}  # metric -> direction; the first one is the main one

    def loss(self, output: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """(losses, weights), each (batch,): the loop divides their sums."""
        raise NotImplementedError

    def decode(self, output: np.ndarray) -> list[Json]:
        """One answer a row: `{"value": ...}`, with every label's probability where there are labels."""
        raise NotImplementedError

    def answer_schema(self) -> dict[str, Json]:
        """JSON Schema of one answer."""
        raise NotImplementedError

    def record(self, answers: Sequence[Json], truths: Sequence[Any]) -> Arrays:
        """Answers and truths as plain arrays (value, truth, probabilities...), first axis the rows."""
        raise NotImplementedError

    def score(self, record: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metric -> value over the given rows of a record; called on resamples, so it is vectorised."""
        raise NotImplementedError
