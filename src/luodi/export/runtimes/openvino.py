"""OpenVINO: Intel's runtime, which also runs on other x86 and Arm processors."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from threading import local
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from luodi.core.catalog import require
from luodi.core.errors import Damaged
from luodi.core.form import Runtime, Written
from luodi.core.spec import Arrays, Signature
from luodi.core.thing import Json
from luodi.export.tracing.graph import plain_names

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.task import Forward

FILE = "model.xml"
# By default OpenVINO may compute in bfloat16 and round the activations of int8 weights.
EXACT: dict[str, Json] = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
# Pinned to a core, every process would wait for the same one: p50 0.85 instead of 0.39 ms on a busy machine.
# Recurrent layers take their weights as constants alone: integers would stand between.
RECURRENT = ["LSTMSequence", "GRUSequence", "RNNSequence"]
LATENCY = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "ENABLE_CPU_PINNING": "NO"}


class Openvino(Runtime):
    """OpenVINO: `model.xml` and `model.bin`, often the fastest on x86 processors."""

    offers: ClassVar[tuple[Mapping[str, Json], ...]] = ({}, {"activations": "int8"})
    library: ClassVar[str] = "openvino"

    def packages(self) -> Mapping[str, str]:
        needed = {"openvino": "openvino", "onnx": "export", "onnxscript": "export"}
        return needed if self.activations == "float" else {**needed, "nncf": "openvino"}

    def write(
        self, model: nn.Module, example: Arrays, signature: Signature, folder: Path, calibration: Arrays | None
    ) -> Written:
        from luodi.export.tracing.graph import arithmetic_of, write_onnx

        openvino = require("openvino", "openvino")
        with tempfile.TemporaryDirectory() as aside:
            write_onnx(model, example, signature, Path(aside) / "model.onnx")
            graph = openvino.Core().read_model(Path(aside) / "model.onnx")
            if self.activations == "int8":
                assert calibration is not None, "static int8 needs calibration rows"
                graph = _quantise(graph, calibration)
            _number(graph)
            openvino.save_model(graph, folder / FILE, compress_to_fp16=False)
        return Written(arithmetic="int8" if self.activations == "int8" else arithmetic_of(model), properties=EXACT)

    def open(self, folder: Path, properties: Mapping[str, Json], threads: int) -> Forward:
        openvino = require("openvino", "openvino")
        if unknown := sorted(properties.keys() - EXACT.keys()):  # others make OpenVINO write files or load libraries
            raise Damaged(f"{folder}: OpenVINO is told {unknown}, which luodi never writes; allowed: {sorted(EXACT)}")
        from luodi.export.tracing.signals import signal_stack_kept

        settings = {**properties, **LATENCY, "INFERENCE_NUM_THREADS": str(threads)}
        with signal_stack_kept():
            compiled = openvino.Core().compile_model(folder / FILE, "CPU", settings)
        return _Forward(compiled, openvino.Tensor)


class _Forward:
    """Named arrays in, named arrays out; one infer request a thread, since a request holds its arrays."""

    def __init__(self, compiled: Any, tensor: Any) -> None:
        self.compiled, self.tensor = compiled, tensor
        self.inputs = [(port.any_name, port.element_type.to_dtype()) for port in compiled.inputs]
        self.outputs = plain_names([port.any_name for port in compiled.outputs], {name for name, _ in self.inputs})
        self.mine = local()

    def __call__(self, arrays: Arrays) -> Arrays:
        shapes = [arrays[name].shape for name, _ in self.inputs]
        if getattr(self.mine, "shapes", None) != shapes:
            self._prepare(shapes)
        for buffer, (name, _) in zip(self.mine.buffers, self.inputs, strict=True):
            np.copyto(buffer, arrays[name])
        results = self.mine.request.infer({})
        return dict(zip(self.outputs, results.values(), strict=True))

    def _prepare(self, shapes: list[tuple[int, ...]]) -> None:
        """Buffers that the request reads from: handing over new arrays costs 30 us an input and call."""
        mine = self.mine
        mine.request = self.compiled.create_infer_request()
        mine.buffers = [np.empty(shape, kind) for shape, (_, kind) in zip(shapes, self.inputs, strict=True)]
        for number, buffer in enumerate(mine.buffers):
            mine.request.set_input_tensor(number, self.tensor(buffer, shared_memory=True))
        mine.shapes = shapes


def _number(graph: Any) -> None:
    """Names constants and what was put between them by their place: a process-wide counter would change the bytes."""
    for place, node in enumerate(graph.get_ordered_ops()):
        if node.get_type_name() not in ("Parameter", "Result"):
            node.set_friendly_name(f"{node.get_type_name()}_{place}")


def _quantise(graph: Any, calibration: Arrays) -> Any:
    """Static int8 by NNCF: weights per channel in 7 bits, ranges from the smallest to the largest value seen.

    NNCF's own defaults average the extremes of single rows, which clips a table's columns to their mean, and use 8
    bits, which saturate on processors without VNNI: drift 0.82 instead of 0.01 on a table, 0.04 instead of 0.005 on
    digits.
    """
    from luodi.export.tracing.quiet import unreported, without_bars
    from luodi.export.tracing.signals import signal_stack_kept

    with unreported():
        nncf = require("nncf", "openvino")
    # NNCF finds a layer's bias, to correct it, only once constants are folded.
    require("openvino._offline_transformations", "openvino").apply_moc_transformations(graph, cf=True)
    ranges = require("nncf.quantization.range_estimator", "openvino").RangeEstimatorParametersSet
    rows = len(next(iter(calibration.values())))
    batches = [{name: array[row : row + 1] for name, array in calibration.items()} for row in range(rows)]
    joins = [node.get_friendly_name() for node in graph.get_ops() if _joins_inputs(node)]
    with without_bars(), signal_stack_kept():
        return nncf.quantize(
            graph,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=rows,
            fast_bias_correction=False,
            ignored_scope=nncf.IgnoredScope(names=joins, types=RECURRENT, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE, activations_range_estimator_params=ranges.MINMAX
            ),
        )


def _joins_inputs(node: Any) -> bool:
    """Whether a node only joins inputs of the model: rounding each column alone loses what the others hold."""
    sources = [port.get_source_output().get_node().get_type_name() for port in node.inputs()]
    return node.get_type_name() == "Concat" and "Parameter" in sources
