"""A model's graph, along which every channel of every weight is followed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import getitem
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.compress.structure.call import Call, Given
from luodi.compress.structure.layer_rules import LAYERS
from luodi.compress.structure.shape_rules import SHAPES, elementwise
from luodi.compress.structure.ties import FIXED, Followed, Ties, stays
from luodi.core.errors import LuodiError

if TYPE_CHECKING:
    from torch import fx, nn

    from luodi.compress.structure.ties import Indices
    from luodi.core.spec import Arrays

RULES = {**SHAPES, **LAYERS}

Place = tuple[str, int]  # the name of a parameter or buffer, and one of its axes


@dataclass(frozen=True)
class Structure:
    """Every axis of every parameter and buffer: at each place its component, or `FIXED`."""

    tensors: Mapping[str, tuple[Indices, ...]]

    @cached_property
    def groups(self) -> dict[frozenset[Place], list[int]]:
        """Components by the axes that they lie on, in order: channels of one kind."""
        lies: dict[int, set[Place]] = {}
        for name, axes in self.tensors.items():
            for axis, places in enumerate(axes):
                for one in np.unique(places).tolist():
                    lies.setdefault(one, set()).add((name, axis))
        found: dict[frozenset[Place], list[int]] = {}
        for one in sorted(lies.keys() - {FIXED}):
            found.setdefault(frozenset(lies[one]), []).append(one)
        return {axes: several for axes, several in found.items() if len(several) > 1}


def follow(model: nn.Module, example: Arrays, outputs: tuple[str, ...]) -> Structure:
    """The structure of a model that is given these arrays; it is put into eval mode.

    What is given and what is answered stays, and all that an operation takes part in that is not understood. Raises
    LuodiError for a model that cannot be traced.
    """
    import torch

    from luodi.models.layers.one_argument import OneArgument

    whole, device = OneArgument(model, outputs).eval(), next(iter(model.parameters())).device
    batch = {name: torch.as_tensor(array).to(device) for name, array in example.items()}
    try:
        program = torch.export.export(whole, (), kwargs={"batch": batch})
    except Exception as error:  # torch raises many kinds, all of which mean this
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise LuodiError(
            f"channels: the model cannot be traced, so its channels cannot be followed: {said[0]}"
        ) from error
    heads = not getattr(model, "states", None) and not getattr(model, "memories", None)
    return _Walk(whole, heads).structure(program)


def try_out(model: nn.Module, example: Arrays) -> None:
    """Raises LuodiError for a model that was cut and does not answer: its layers hold lengths outside its graph."""
    import torch

    device = next(iter(model.parameters())).device
    try:
        with torch.no_grad():
            model(**{name: torch.as_tensor(array).to(device) for name, array in example.items()})
    except Exception as error:  # whatever a model of the user's may raise
        raise LuodiError(
            f"channels: this model fails without some of its channels, its layers hold lengths of their own: {error}"
        ) from error


class _Walk:
    """One pass over the graph, node by node."""

    def __init__(self, whole: nn.Module, heads: bool) -> None:
        self.ties, self.whole, self.heads = Ties(), whole, heads
        self.known: dict[int, Followed] = {}  # by the tensor: one that is held under two names is one
        self.values: dict[fx.Node, Any] = {}

    def structure(self, program: Any) -> Structure:
        names = {one.arg.name: one.target for one in program.graph_signature.input_specs if one.target is not None}
        for node in program.graph.nodes:
            self.values[node] = self._value(node, names)
        return Structure(
            {
                name: tuple(self.ties.roots(axis) for axis in self.known[id(tensor)].axes)
                for name, tensor in named_tensors(self.whole.get_submodule("model"))
                if id(tensor) in self.known
            }
        )

    def _value(self, node: Any, names: Mapping[str, str]) -> Any:
        from torch.fx.node import map_arg

        if node.op == "placeholder":
            tensor = self._tensor(names.get(node.name))
            if tensor is None or not node.users:
                return _stays(node)
            return self.known.setdefault(id(tensor), Followed(tuple(map(self.ties.fresh, tensor.shape))))
        if node.op == "call_function" and node.target is getitem:
            return self.values[node.args[0]][node.args[1]]
        if node.op == "call_function" and (found := self._ruled(node)) is not None:
            return found
        if _shapes(node) or node.op == "output":
            map_arg((node.args, node.kwargs), lambda one: self._fix(self.values[one]))
        return _stays(node)

    def _tensor(self, name: str | None) -> Any:
        """The model's own parameter or buffer of that name; None of what is no part of it."""
        if name is None:
            return None
        owner, _, leaf = name.rpartition(".")
        try:
            return getattr(self.whole.get_submodule(owner), leaf)
        except AttributeError:
            return None

    def _ruled(self, node: Any) -> Given | None:
        """What a rule says of the operation, if there is one and its shapes are right."""
        import torch

        name = node.target._schema.name.partition("::")[2] if hasattr(node.target, "_schema") else ""
        rule = RULES.get(name)
        if rule is None and torch.Tag.pointwise in getattr(node.target, "tags", ()):
            rule = elementwise
        if rule is None:
            return None
        call = self._call(node)
        if isinstance(call.layer, torch.nn.MultiheadAttention):  # it compares lengths with its own, outside the graph
            return None
        given = rule(call)
        several = given if isinstance(given, list) else [given]
        if tuple(one.shape if one else None for one in several) != _shapes(node):
            return None
        for axis in (axis for one in several if one for axis in one.axes if len(axis) == 1):
            self.ties.fix(axis)  # it would be stretched beside longer ones, and nobody would know to whom it belongs
        return given

    def _call(self, node: Any) -> Call:
        from torch.fx.node import map_arg

        said = map_arg((node.args, node.kwargs), lambda one: self.values[one])
        schema = node.target._schema.arguments
        named = dict(zip((one.name for one in schema), said[0], strict=False)) | said[1]
        defaults = {one.name: one.default_value for one in schema if one.has_default_value()}
        layer = self._layer(node)
        return Call(self.ties, defaults | named, layer, _shapes(node), self.heads and has_heads(layer))

    def _layer(self, node: Any) -> nn.Module:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = stack[-1][0].partition("@")[0] if stack else ""
        try:
            return self.whole.get_submodule(path)
        except AttributeError:
            return self.whole

    def _fix(self, value: Any) -> Any:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Followed):
                self.ties.fix(*one.axes)
        return value


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every parameter and buffer by every name that it has."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def has_heads(layer: nn.Module) -> bool:
    """Whether it is an attention layer of our own, whose heads are rows and columns of plain linear layers."""
    from torch import nn

    from luodi.models.layers.attention import Attention, CrossAttention

    if not isinstance(layer, Attention | CrossAttention):
        return False
    ends = (layer.qkv, layer.out) if isinstance(layer, Attention) else (layer.q, layer.kv, layer.out)
    return all(type(one) is nn.Linear for one in ends)


def _shapes(node: Any) -> tuple[tuple[int, ...], ...]:
    """Of the tensors that a node gives."""
    value = node.meta.get("val")
    several = value if isinstance(value, list | tuple) else [value]
    return tuple(tuple(int(side) for side in one.shape) for one in several if hasattr(one, "shape"))


def _stays(node: Any) -> Any:
    value = node.meta.get("val")
    if isinstance(value, list | tuple):
        return [stays(one.shape) if hasattr(one, "shape") else one for one in value]
    return stays(value.shape) if hasattr(value, "shape") else value
