"""OpenVINO: Intel's runtime, which also runs on other x86 and Arm processors."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from threading import local
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from luodi.core.catalog import require
from luodi.core.form import Runtime, Written
from luodi.core.spec import Arrays, Signature
from luodi.core.thing import Json

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.task import Forward

FILE = "model.xml"
# By default OpenVINO may compute in bfloat16 and round the activations of int8 weights.
EXACT: dict[str, Json] = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


class Openvino(Runtime):
    """OpenVINO: `model.xml` and `model.bin`, often the fastest on x86 processors."""

    extensions: ClassVar[tuple[str, ...]] = (".xml", ".bin")

    def packages(self) -> Mapping[str, str]:
        needed = {"openvino": "openvino", "onnx": "export", "onnxscript": "export"}
        return needed if self.activations == "float" else {**needed, "nncf": "openvino"}

    def write(
        self, model: nn.Module, example: Arrays, signature: Signature, folder: Path, calibration: Arrays | None
    ) -> Written:
        from luodi.export.tracing.graph import write_onnx

        openvino = require("openvino", "openvino")
        with tempfile.TemporaryDirectory() as aside:
            operators = write_onnx(model, example, signature, Path(aside) / "model.onnx")
            graph = openvino.convert_model(Path(aside) / "model.onnx")
            if self.activations == "int8":
                assert calibration is not None, "static int8 needs calibration rows"
                graph = _quantise(graph, calibration)
            openvino.save_model(graph, folder / FILE, compress_to_fp16=False)
        lossy = self.activations == "int8" or "MatMulInteger" in operators
        return Written(arithmetic="int8" if lossy else "float32", properties=EXACT)

    def open(self, folder: Path, properties: Mapping[str, Json], threads: int) -> Forward:
        openvino = require("openvino", "openvino")
        compiled = openvino.Core().compile_model(
            folder / FILE,
            "CPU",
            {**properties, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads)},
        )
        return _Forward(compiled)


class _Forward:
    """Named arrays in, named arrays out; one infer request a thread, since a request holds its arrays."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self.names = [port.any_name for port in compiled.outputs]
        self.mine = local()

    def __call__(self, arrays: Arrays) -> Arrays:
        request = getattr(self.mine, "request", None)
        if request is None:
            request = self.mine.request = self.compiled.create_infer_request()
        results = request.infer(arrays, share_inputs=True)
        return dict(zip(self.names, results.values(), strict=True))


def _quantise(graph: Any, calibration: Arrays) -> Any:
    """Static int8 by NNCF: per-channel weights, activations calibrated on the rows, biases corrected."""
    from luodi.export.tracing.quiet import hushed

    nncf = require("nncf", "openvino")
    rows = len(next(iter(calibration.values())))
    batches = [{name: array[row : row + 1] for name, array in calibration.items()} for row in range(rows)]
    with hushed():
        return nncf.quantize(graph, nncf.Dataset(batches), subset_size=rows)
