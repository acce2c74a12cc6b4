"""All that a server knows of a bundle: its task and something that answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from luodi.core.flow import Flow, Piece
    from luodi.core.form import Runtime
    from luodi.core.spec import Arrays, Signature, Spec
    from luodi.core.task import Answer, Forward, Request, Task
    from luodi.core.thing import Json


@dataclass(frozen=True)
class Predictor:
    """A task and a forward, of whatever runtime; the signature says which states it carries on."""

    task: Task
    forward: Forward
    signature: Signature | None = None

    def open(self) -> Flow:
        """A fresh flow of requests."""
        return self.task.flow(self.forward, self.signature)

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


HELD = "held"  # the free axis of a state that grows: what is new is appended along it
LAST = "last"  # the place of each row (rows,) that is asked about; a forward may leave the logits of all others out
START = "start"  # how much of a growing state is real, for each row


READING = "reading"  # the folder in a form's folder that holds what is done once for all steps


def opened(
    runtime: Runtime, folder: Path, properties: Mapping[str, Json], signature: Signature, threads: int
) -> Forward:
    """The forward over a form's files: states may be left out, and what is read once is read where it is not given."""
    forward = from_empty(runtime.open(folder, properties, threads), signature)
    if one_by_one(signature):
        forward = walked(forward, signature)
    if signature.reading is None:
        return forward
    return read_once(forward, runtime.open(folder / READING, properties, threads), signature)


def read_once(forward: Forward, read: Forward, signature: Signature) -> Forward:
    """A step's forward and the one that reads as one: it is given what is read, what was read, or what is read alone,
    and then gives what it makes of it."""
    reading = signature.reading
    assert reading is not None

    def joined(arrays: Arrays) -> Arrays:
        if reading.outputs.keys() <= arrays.keys():
            return forward(arrays)
        made = read({name: arrays[name] for name in reading.inputs})
        if arrays.keys() == reading.inputs.keys():
            return made
        return forward({**{name: array for name, array in arrays.items() if name in signature.inputs}, **made})

    return joined


def one_by_one(signature: Signature) -> bool:
    """Whether a form takes one token of a text a call."""
    return any(spec.kind == "tokens" and spec.shape == (1,) for spec in signature.inputs.values())


def walked(forward: Forward, signature: Signature) -> Forward:
    """A forward that takes texts of any length from one that takes a token a call: states are carried from one to the
    next, and stay as they are where a row's mask has ended."""
    steps = [name for name, spec in signature.inputs.items() if spec.shape == (1,) and spec.kind in ("tokens", "mask")]
    masks = [name for name in steps if signature.inputs[name].kind == "mask"]

    def whole(arrays: Arrays) -> Arrays:
        rows, length = arrays[steps[0]].shape
        states = {name: arrays.get(name, empty(signature.inputs[name], rows)) for name in signature.state}
        said: list[Arrays] = []
        for at in range(length):
            now = {name: arrays[name][:, at : at + 1] for name in steps}
            outputs = forward({**now, **states})
            there = np.all([now[name] > 0 for name in masks], axis=0) if masks else np.ones((rows, 1), bool)
            for name, after in signature.state.items():
                kept = there.reshape(rows, *[1] * (states[name].ndim - 1))
                states[name] = np.where(kept, outputs[after], states[name])
            said.append({name: array for name, array in outputs.items() if name not in signature.state.values()})
        joined = {name: np.concatenate([one[name] for one in said], axis=1) for name in said[0]}
        return {**joined, **{after: states[name] for name, after in signature.state.items()}}

    return whole


def from_empty(forward: Forward, signature: Signature) -> Forward:
    """A forward that begins with empty states where it is given none: an exported form wants every input.

    Of a state that grows, one place is given that holds nothing: not every runtime computes with arrays of no size.
    """
    if not signature.state:
        return forward

    def started(arrays: Arrays) -> Arrays:
        rows = len(next(iter(arrays.values())))
        given = {name: array for name, array in arrays.items() if array.size}
        blank = {name: empty(signature.inputs[name], rows, 1) for name in signature.inputs if name not in given}
        return forward({**given, **blank})

    return started


def empty(spec: Spec, rows: int, held: int = 0) -> np.ndarray:
    """Zeros of a state, or of `start`."""
    shape = (held if side == HELD else int(side) for side in spec.shape)
    return np.zeros((rows, *shape), spec.dtype)
