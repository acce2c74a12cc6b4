"""A torch model as an ONNX file: named arrays in, named arrays out, every first axis free."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luodi.core.catalog import require
from luodi.core.spec import Arrays, Signature
from luodi.export.tracing.quiet import hushed

if TYPE_CHECKING:
    from torch import nn

LARGEST = 1_500_000_000  # bytes of weights inside one .onnx file; protobuf ends at 2 GB
FOLD = 64  # numbers; a larger constant is not folded, or int8 weights would be floats in the file
BATCH = "batch"  # the free first axis
NEXT = ".next"  # after the name of an output that is named as an input is, which a graph may not have


def write_onnx(model: nn.Module, example: Arrays, signature: Signature, path: Path) -> None:
    """Writes `path`, and its weights beside it as `<name>.data` above 1.5 GB.

    The bytes follow from the model alone: no versions, paths or stack traces are kept.
    """
    optimizer = require("onnxscript.optimizer", "export")
    with hushed():
        graph = _trace(model, example, signature)
        optimizer.optimize(graph, input_size_limit=FOLD)
        proto = require("onnx_ir", "export").serde.serialize_model(graph)
    save(proto, path)


def plain_names(outputs: Sequence[str], inputs: Collection[str]) -> list[str]:
    """The model's own names of a graph's outputs."""
    return [short if (short := name.removesuffix(NEXT)) in inputs else name for name in outputs]


def arithmetic_of(model: nn.Module) -> str:
    """What the model computes in: int8 as soon as one layer says so."""
    kinds = {getattr(layer, "arithmetic", "float32") for layer in model.modules()} - {"float32"}
    return kinds.pop() if kinds else "float32"


def _trace(model: nn.Module, example: Arrays, signature: Signature) -> Any:
    import torch

    from luodi.models.layers.one_argument import OneArgument

    onnxscript = require("onnxscript", "export")
    names, outputs = sorted(example), tuple(signature.outputs)
    batch = {name: torch.as_tensor(example[name]) for name in names}
    assert all(len(tensor) > 1 for tensor in batch.values()), "a batch of one would be traced as a constant"

    def int_product(a: Any, b: Any) -> Any:
        return onnxscript.opset20.MatMulInteger(a, b)

    program = torch.onnx.export(
        OneArgument(model, outputs).eval(),
        (),
        kwargs={"batch": batch},
        input_names=names,
        output_names=[f"{name}{NEXT}" if name in names else name for name in outputs],
        dynamic_shapes={"batch": _free_axes(signature, names)},
        custom_translation_table={torch.ops.aten._int_mm.default: int_product},
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    return program.model


def _free_axes(signature: Signature, names: list[str]) -> dict[str, dict[int, Any]]:
    """Input -> {axis: its free dimension}: the batch, and every axis that the spec gives a name instead of a size."""
    from torch.export import Dim

    dims = {BATCH: Dim(BATCH, min=1, max=65536)}
    free: dict[str, dict[int, Any]] = {}
    for name in names:
        free[name] = {0: dims[BATCH]}
        for axis, size in enumerate(signature.inputs[name].shape, start=1):
            if isinstance(size, str):
                free[name][axis] = dims.setdefault(size, Dim(size))
    return free


def save(proto: Any, path: Path) -> None:
    """Writes one file, or above 1.5 GB the weights beside it, without what names the machine it was made on."""
    _forget_origin(proto)
    size = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    aside = {"save_as_external_data": True, "location": f"{path.name}.data"} if size > LARGEST else {}
    require("onnx", "export").save(proto, str(path), **aside)


def _forget_origin(proto: Any) -> None:
    """Removes what names the machine that traced it: stack traces, paths, versions."""
    proto.producer_version, proto.doc_string = "", ""
    del proto.metadata_props[:]
    _forget(proto.graph)
    for function in proto.functions:
        _forget(function)


def _forget(graph: Any) -> None:
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.value_info, *getattr(graph, "input", ()), *getattr(graph, "output", ())):
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
            part.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _forget(inner)
