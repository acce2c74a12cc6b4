"""One operation of a traced graph, with its arguments by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luodi.compress.structure.ties import Followed, Ties, still

if TYPE_CHECKING:
    from torch import nn

    from luodi.compress.structure.ties import Indices

Given = Followed | list[Followed]  # one tensor, or several


@dataclass(frozen=True)
class Call:
    """An operation: its arguments by the names of its schema, the layer that it belongs to, what it gives."""

    ties: Ties
    arguments: Mapping[str, Any]
    layer: nn.Module
    shapes: tuple[tuple[int, ...], ...]  # of the tensors that it gives
    heads: bool  # whether heads of our own attention may go

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def tensor(self, name: str) -> Followed:
        found = self.arguments[name]
        assert isinstance(found, Followed)
        return found

    @property
    def tensors(self) -> list[Followed]:
        """All that go in."""
        found: list[Followed] = []
        for value in self.arguments.values():
            several = value if isinstance(value, list | tuple) else [value]
            found += [one for one in several if isinstance(one, Followed)]
        return found

    def hold(self, tensor: Followed, axes: Sequence[int]) -> Followed:
        """The tensor with these axes fixed."""
        self.ties.fix(*(tensor.axes[axis] for axis in axes))
        return tensor

    def with_axis(self, tensor: Followed, place: int, axis: Indices) -> Followed:
        """The tensor with another axis in that place."""
        return Followed((*tensor.axes[:place], axis, *tensor.axes[place + 1 :]))

    def beyond(self, axes: Sequence[Indices], shape: Sequence[int]) -> Followed:
        """These axes, then those of the shape that follow, which stay."""
        return Followed((*axes, *(still(side) for side in shape[len(axes) :])))
