"""A column of labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field as Bounded
from pydantic import field_validator

from luodi.core.errors import BadRequest, LuodiError, nearest
from luodi.core.field import Target
from luodi.core.spec import Arrays, Spec
from luodi.core.thing import Json
from luodi.fields.labels.scores import scores

if TYPE_CHECKING:
    from torch import Tensor

MOST_SHOWN = 1000  # labels that a schema lists one by one
AVERAGED = tuple(f"{name}_{how}" for name in ("f1", "precision", "recall") for how in ("macro", "weighted", "micro"))


class Category(Target):
    """One of a few labels, such as a digit, a diagnosis or a country.

    A value is text: 3, 3.0 and "3" are the same label. Encoded: int64 (batch,), the place in `values`. The metrics take
    the labels that occur; `auc` (each label against the rest) is NaN where only one does.
    """

    better: ClassVar[dict[str, Literal["higher", "lower"]]] = {
        "accuracy": "higher", "loss": "lower", **dict.fromkeys(AVERAGED, "higher"), "auc": "higher", "ece": "lower",
    }  # fmt: skip

    values: tuple[str, ...] | None = None  # every label, in the order of the model's outputs
    unseen: Literal["refuse", "other"] = "refuse"  # other: one more place for labels not in `values` (inputs only)
    weights: dict[str, Annotated[float, Bounded(gt=0)]] | None = None  # of a label's rows in the loss; not named: 1
    label_smoothing: Annotated[float, Bounded(ge=0, lt=1)] = 0.0  # share of the truth spread over all labels

    @field_validator("values", mode="before")
    @classmethod
    def _as_text(cls, given: Any) -> Any:
        return tuple(map(text_of, given)) if isinstance(given, list | tuple) else given

    @field_validator("values")
    @classmethod
    def _distinct(cls, given: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if given is not None and (not given or len(set(given)) != len(given)):
            raise ValueError("at least one label, each only once")
        return given

    def fit(self, column: Iterable[Any]) -> Self:
        if self.values is not None:
            return self
        found = {text for cell in column if (text := self.read(cell)) is not None}
        if not found:
            raise LuodiError("a category needs at least one label in the training rows")
        numbers = all(text.removeprefix("-").isdecimal() for text in found)
        return self.model_copy(update={"values": tuple(sorted(found, key=_number_first if numbers else str))})

    def specs(self) -> dict[str, Spec]:
        return {"": Spec(kind="category", size=len(self._known()) + (self.unseen == "other"), dtype="int64")}

    def read(self, wire: Json | bytes) -> str | None:
        if wire is None or wire != wire:  # None, or the NaN that tables keep in its place
            if self.unseen == "other":
                return None
            raise BadRequest("", "a label is missing (set `unseen: other` to allow empty cells of an input)")
        if not isinstance(wire, str | int | float | np.generic):
            raise BadRequest("", f"expected a label, got {type(wire).__name__}")
        text = text_of(wire)
        if self.unseen == "refuse" and self.values is not None and text not in self._places():
            raise BadRequest("", f"unknown label {text[:60]!r}; {nearest(text, self.values)}")
        return text

    def write(self, value: Any) -> Json:
        return value

    def encode(self, values: Sequence[Any]) -> Arrays:
        places = self._places()
        if self.unseen == "other":
            return {"": np.asarray([places.get(value, len(places)) for value in values], np.int64)}
        try:
            return {"": np.asarray([places[value] for value in values], np.int64)}
        except KeyError as error:
            raise BadRequest("", f"unknown label {error.args[0]!r}; {nearest(str(error.args[0]), places)}") from error

    def example(self, count: int, seed: int) -> list[str | None]:
        known: list[str | None] = [*self._known()]
        if self.unseen == "other":
            known.append(None)
        order = np.random.Generator(np.random.PCG64(seed)).permutation(len(known))
        return [known[order[index % len(known)]] for index in range(count)]

    def wire_schema(self) -> dict[str, Json]:
        known = list(self.values or ())
        about = f"One of {len(known)} labels" + (", or any other." if self.unseen == "other" else ".")
        if self.unseen == "other":
            return {"type": ["string", "number", "null"], "description": about, "examples": known[:1]}
        return {**_label_schema(known), "description": about, "examples": known[:1]}

    def loss(self, output: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        from torch.nn import functional

        losses = functional.cross_entropy(output, truth, reduction="none", label_smoothing=self.label_smoothing)
        if self.weights is None:
            return losses, losses.new_ones(losses.shape)
        shares = losses.new_tensor([self.weights.get(label, 1.0) for label in self._known()])[truth]
        return losses * shares, shares

    def decode(self, output: np.ndarray) -> list[Json]:
        known = self._known()
        shifted = output.astype(np.float64) - output.max(axis=1, keepdims=True)
        powers = np.exp(shifted)
        shares = powers / powers.sum(axis=1, keepdims=True)
        best = output.argmax(axis=1).tolist()
        return [
            {"value": known[place], "probabilities": dict(zip(known, row, strict=True))}
            for place, row in zip(best, shares.tolist(), strict=True)
        ]

    def answer_schema(self) -> dict[str, Json]:
        known = list(self.values or ())
        share = {"type": "number", "minimum": 0, "maximum": 1}
        shares: Json = {"type": "object", "additionalProperties": share, "description": "Every label's probability."}
        if len(known) <= MOST_SHOWN:
            shares |= {"properties": dict.fromkeys(known, share), "required": known, "additionalProperties": False}
        return {
            "type": "object",
            "properties": {"value": _label_schema(known), "probabilities": shares},
            "required": ["value", "probabilities"],
        }

    def record(self, answers: Sequence[Json], truths: Sequence[Any]) -> Arrays:
        known = self._known()
        shares = [[answer["probabilities"][label] for label in known] for answer in answers]
        return {
            "value": np.asarray([answer["value"] for answer in answers], object),
            "truth": np.asarray(truths, object),
            "probabilities": np.asarray(shares, np.float32).reshape(len(shares), len(known)),
        }

    def score(self, record: Mapping[str, np.ndarray]) -> dict[str, float]:
        places = self._places()
        truth, value = (
            np.fromiter(map(places.__getitem__, record[name].tolist()), np.int64, len(record[name]))
            for name in ("truth", "value")
        )
        return scores(truth, value, record["probabilities"])

    def _known(self) -> tuple[str, ...]:
        assert self.values is not None, "a category field is fitted before it encodes"
        return self.values

    def _places(self) -> Mapping[str, int]:
        values, places = self._numbered
        if values is not self.values:  # a copy with other labels took the old table along
            del self.__dict__["_numbered"]
            _, places = self._numbered
        return places

    @cached_property
    def _numbered(self) -> tuple[tuple[str, ...], dict[str, int]]:
        known = self._known()
        return known, {value: place for place, value in enumerate(known)}


def _label_schema(known: list[str]) -> dict[str, Json]:
    return {"type": "string", "enum": known} if 0 < len(known) <= MOST_SHOWN else {"type": "string"}


def text_of(cell: Any) -> str:
    """A label as text: whole floats lose their point, since a table with gaps turns 3 into 3.0."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        return str(int(cell))
    return str(cell)


def _number_first(text: str) -> tuple[int, str]:
    return int(text), text
