"""Any optimizer of torch as a mover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luodi.core.thing import Json
from luodi.train.loop.movers import Group, Mover

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


def of_optimizer(optimizer: Optimizer) -> Mover:
    """For an update whose `build` makes an optimizer of torch; all its groups get the schedule's rate and damping."""
    own = [{name: group[name] for name in ("momentum", "betas") if name in group} for group in optimizer.param_groups]

    def move(rate: float, damping: float = 1.0) -> None:
        for group, numbers in zip(optimizer.param_groups, own, strict=True):
            group["lr"] = rate
            if "momentum" in numbers:
                group["momentum"] = numbers["momentum"] * damping
            if "betas" in numbers:
                group["betas"] = (numbers["betas"][0] * damping, *numbers["betas"][1:])
        optimizer.step()

    return Mover(move, OptimizerMemory(optimizer))


def grouped(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Parameters with their weight decay as torch's optimizers take them."""
    return [{"params": group.parameters, "weight_decay": group.decay} for group in groups]


@dataclass(frozen=True)
class OptimizerMemory:
    """Its state; its groups' numbers follow from the update's own fields and are not stored."""

    optimizer: Optimizer

    def tensors(self) -> Mapping[str, Tensor]:
        import torch

        entries = self.optimizer.state_dict()["state"]
        return {f"{i}/{name}": v for i, of in entries.items() for name, v in of.items() if isinstance(v, torch.Tensor)}

    def facts(self) -> Json:
        import torch

        entries = self.optimizer.state_dict()["state"]
        return {str(i): {n: v for n, v in of.items() if not isinstance(v, torch.Tensor)} for i, of in entries.items()}

    def restore(self, tensors: Mapping[str, Tensor], facts: Json) -> None:
        entries = {int(index): dict(values) for index, values in facts.items()}
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for name, tensor in tensors.items():
            index, _, key = name.partition("/")
            entries[int(index)][key] = _laid_out_as(parameters[int(index)], tensor)
        self.optimizer.load_state_dict({"state": entries, "param_groups": self.optimizer.state_dict()["param_groups"]})


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A parameter's running mean in its own memory layout: a fused update walks both as plain memory."""
    import torch

    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor) if tensor.shape == parameter.shape else tensor
