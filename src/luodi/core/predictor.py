"""All that a server knows of a bundle: its task and something that answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.flow import Flow, Piece
    from luodi.core.spec import Arrays
    from luodi.core.task import Answer, Forward, Request, Task


@dataclass(frozen=True)
class Predictor:
    """A task and a forward, of whatever runtime."""

    task: Task
    forward: Forward

    def open(self) -> Flow:
        """A fresh flow of requests."""
        return self.task.flow(self.forward)

    def stream(self, requests: Sequence[Request]) -> Iterator[Piece]:
        """The pieces of all answers as they come; tickets are 0, 1, 2... in the order of the requests."""
        flow = self.open()
        flow.add(requests)
        while pieces := flow.step():
            yield from pieces

    def __call__(self, requests: Sequence[Request]) -> list[Answer]:
        """All answers, in order: the stream, collected."""
        flow = self.open()
        answers: dict[int, Any] = dict.fromkeys(flow.add(requests))
        while pieces := flow.step():
            for piece in pieces:
                answers[piece.ticket] = flow.join(answers[piece.ticket], piece.value)
        return list(answers.values())


class TorchForward:
    """A torch module as named arrays in, named arrays out, on the device where its weights are."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval()
        self.device = next((tensor.device for tensor in model.state_dict().values()), "cpu")

    def __call__(self, arrays: Arrays) -> Arrays:
        import torch

        with torch.inference_mode():
            batch = {name: torch.as_tensor(array).to(self.device) for name, array in arrays.items()}
            outputs: Mapping[str, Any] = self.model(**batch)
            return {name: tensor.float().cpu().numpy() for name, tensor in outputs.items()}
