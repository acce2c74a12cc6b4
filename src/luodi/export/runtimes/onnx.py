"""ONNX files answered by ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from luodi.core.catalog import require
from luodi.core.form import Runtime, Written
from luodi.core.spec import Arrays, Signature
from luodi.core.thing import Json
from luodi.export.tracing.graph import plain_names

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.task import Forward

FILE = "model.onnx"
CHUNK = 32  # rows of one calibration batch


class Onnx(Runtime):
    """ONNX Runtime: one `model.onnx` that runs on every processor and system."""

    offers: ClassVar[tuple[Mapping[str, Json], ...]] = ({}, {"activations": "int8"})
    library: ClassVar[str] = "onnxruntime"

    def packages(self) -> Mapping[str, str]:
        return {"onnx": "export", "onnxscript": "export", "onnxruntime": "export"}

    def write(
        self, model: nn.Module, example: Arrays, signature: Signature, folder: Path, calibration: Arrays | None
    ) -> Written:
        from luodi.export.tracing.graph import arithmetic_of, write_onnx

        require("onnxruntime", "export")
        if self.activations == "float":
            write_onnx(model, example, signature, folder / FILE)
            return Written(arithmetic=arithmetic_of(model))
        assert calibration is not None, "static int8 needs calibration rows"
        with tempfile.TemporaryDirectory() as aside:
            whole = Path(aside) / "whole.onnx"
            write_onnx(model, example, signature, whole)
            _quantise(whole, folder / FILE, calibration)
        return Written(arithmetic="int8")

    def open(self, folder: Path, properties: Mapping[str, Json], threads: int) -> Forward:
        runtime = require("onnxruntime", "export")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        session = runtime.InferenceSession(str(folder / FILE), options, providers=["CPUExecutionProvider"])
        said = [output.name for output in session.get_outputs()]
        wanted = {each.name for each in session.get_inputs()}
        names = plain_names(said, wanted)

        def forward(arrays: Arrays) -> Arrays:
            given = {name: array for name, array in arrays.items() if name in wanted}
            return dict(zip(names, session.run(said, given), strict=True))

        return forward


def _quantise(whole: Path, path: Path, calibration: Arrays) -> None:
    """Static int8: integers between operators, weights per channel in 7 bits, outputs left as floats.

    7 bits, because processors without VNNI add pairs of 8-bit products in 16 bits and saturate (drift 0.13 instead of
    0.007 on a digits network). Ranges are the smallest and largest value: entropy and percentiles were never better.
    """
    from luodi.export.tracing.graph import save
    from luodi.export.tracing.integers import float_outputs, input_joins
    from luodi.export.tracing.quiet import hushed

    onnx = require("onnx", "export")
    tools = require("onnxruntime.quantization", "export")
    graph, integers = onnx.load(whole, load_external_data=False), whole.with_name("integers.onnx")
    with hushed():
        tools.quantize_static(
            whole,
            integers,
            _Reader(calibration),
            quant_format=tools.QuantFormat.QDQ,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            calibrate_method=tools.CalibrationMethod.MinMax,
            nodes_to_exclude=input_joins(graph),
            use_external_data_format=whole.with_name(f"{whole.name}.data").exists(),
        )
    proto = onnx.load(integers)
    float_outputs(proto)
    save(proto, path)


class _Reader:
    """Calibration rows, a few at a time, as ONNX Runtime's calibrators ask for them."""

    def __init__(self, arrays: Arrays) -> None:
        rows = len(next(iter(arrays.values())))
        self.batches: Iterator[dict[str, np.ndarray]] = (
            {name: array[start : start + CHUNK] for name, array in arrays.items()} for start in range(0, rows, CHUNK)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)
