"""What an update remembers between steps: momentum and the like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from luodi.core.thing import Json

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


class Memory(Protocol):
    """Saved in a checkpoint, put back from it."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Everything that is a tensor, by name."""
        ...

    def facts(self) -> Json:
        """Everything else."""
        ...

    def restore(self, tensors: Mapping[str, Tensor], facts: Json) -> None:
        """Puts both back."""
        ...


@dataclass(frozen=True)
class OptimizerMemory:
    """The state of a torch optimizer; its groups' numbers follow from the step's own fields and are not stored."""

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
