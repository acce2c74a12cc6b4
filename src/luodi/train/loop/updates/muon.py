"""Muon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luodi.train.loop.moments import moments_mover
from luodi.train.loop.movers import Mover, groups_of, together
from luodi.train.loop.slots import Update
from luodi.train.loop.torch_optimizer import of_optimizer

if TYPE_CHECKING:
    from torch import nn

Share = Annotated[float, Field(ge=0, lt=1)]


class Muon(Update):
    """Moves a hidden matrix along its orthogonalised momentum, the rest by AdamW (arXiv 2502.16982).

    Hidden matrices are the weights of linear layers outside the heads; convolutions, tables, heads, biases and norms
    are the rest. A matrix's step is scaled to the size of AdamW's, so that one rate and one weight decay fit both.
    """

    momentum: Share = 0.95  # Nesterov's
    iterations: Annotated[int, Field(ge=1, lt=100)] = 5  # of Newton and Schulz, in bf16
    betas: tuple[Share, Share] = (0.9, 0.999)  # of AdamW
    epsilon: Annotated[float, Field(gt=0)] = 1e-8  # of AdamW
    weight_decay: Annotated[float, Field(ge=0)] = 0.01  # biases and normalisation layers have none

    def build(self, model: nn.Module) -> Mover:
        import torch

        hidden = hidden_matrices(model)
        rest = groups_of(model, self.weight_decay, ("mean", "square"), without=hidden)
        adamw = moments_mover(torch._fused_adamw_, rest, self.betas, self.epsilon)
        if not hidden:
            return adamw
        muon = torch.optim.Muon(
            hidden, momentum=self.momentum, ns_steps=self.iterations, weight_decay=self.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )  # fmt: skip
        return together({"muon": of_optimizer(muon), "adamw": adamw})


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trained weights of linear layers, those of the model's part `heads` left out."""
    from torch import nn

    shared = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "heads" not in name.split(".")
        and module.weight.requires_grad and id(module.weight) not in shared
    ]  # fmt: skip
