"""Takes channels out of a model, or gives a fresh one the shapes of one that was cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.compress.structure.follow import Structure, has_heads, named_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn


def cut(model: nn.Module, structure: Structure, gone: set[int]) -> dict[str, list[int]]:
    """The model without these components, in place; gives the new shapes."""
    import torch

    removed = np.fromiter(gone, np.int64, len(gone))
    kept: dict[str, list[Any]] = {}
    for name, axes in structure.tensors.items():
        stays = [~np.isin(places, removed) for places in axes]
        if not all(one.all() for one in stays):
            kept[name] = [torch.from_numpy(np.flatnonzero(one)) for one in stays]

    def chosen(name: str, tensor: Tensor) -> Tensor:
        for axis, places in enumerate(kept[name]):
            tensor = tensor.index_select(axis, places.to(tensor.device))
        return tensor.contiguous()

    plan = {name: [len(places) for places in axes] for name, axes in kept.items()}
    _put(model, plan, chosen)
    return plan


def shaped(model: nn.Module, plan: Mapping[str, Sequence[int]]) -> nn.Module:
    """The model with tensors of these shapes, not filled."""
    _put(model, plan, lambda name, tensor: tensor.new_empty(plan[name]))
    return model


def _put(model: nn.Module, plan: Mapping[str, Sequence[int]], new: Callable[[str, Tensor], Tensor]) -> None:
    """Replaces the tensors of the plan, one that is held under two names by one, and tells their layers."""
    from torch import nn

    made: dict[int, Any] = {}
    attending: list[Any] = [layer for layer in model.modules() if has_heads(layer)]
    widths = {layer: layer.out.in_features // layer.heads for layer in attending}
    held = {name: tensor for name, tensor in named_tensors(model) if name in plan}  # so that no id is given twice
    touched: dict[str, nn.Module] = {}
    for name, tensor in held.items():
        if id(tensor) not in made:
            changed = new(name, tensor.detach())
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(changed, tensor.requires_grad) if is_parameter else changed
        owner, _, leaf = name.rpartition(".")
        touched[owner] = layer = model.get_submodule(owner)
        setattr(layer, leaf, made[id(tensor)])
    for layer in touched.values():
        _tell(layer)
    for layer, width in widths.items():
        _tell_heads(layer, width)


def _tell(layer: Any) -> None:
    """A layer's own numbers of channels, which exports, later steps and some forwards read."""
    from torch import nn
    from torch.nn.modules.batchnorm import _NormBase
    from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, _ConvTransposeNd):
        layer.in_channels, layer.out_channels = layer.weight.shape[:2]
    elif isinstance(layer, _ConvNd):
        layer.groups = 1 if layer.groups == 1 else len(layer.weight)
        layer.out_channels, layer.in_channels = len(layer.weight), layer.weight.shape[1] * layer.groups
    elif isinstance(layer, _NormBase):
        found = next(one for one in (layer.weight, layer.running_mean) if one is not None)
        layer.num_features = len(found)
    elif isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape


def _tell_heads(layer: Any, width: int) -> None:
    """An attention layer's own numbers of heads, each as wide as it was."""
    from luodi.models.layers.attention import Attention

    layer.heads = layer.out.in_features // width
    held = (
        layer.qkv.out_features // width - layer.heads
        if isinstance(layer, Attention)
        else layer.kv.out_features // width
    )
    layer.kv_heads = held // 2
