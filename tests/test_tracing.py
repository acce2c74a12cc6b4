"""What exporters are kept from: rounding outputs, and telling their makers of their use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx

from luodi.export.tracing.integers import float_outputs


def test_calibrating_reports_nothing_to_anybody(tmp_path: Path) -> None:
    """NNCF would send an event to its makers; the folder it keeps its client number in stays empty."""
    script = (
        "import sys\nfrom luodi.export.tracing.quiet import unreported\n"
        "with unreported():\n    import nncf\n"
        "from nncf.telemetry.wrapper import telemetry\nprint(type(telemetry).__name__)"
    )
    plain = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=plain, check=False)
    assert found.stdout.split() == ["MagicMock"], found.stderr
    assert not list(tmp_path.rglob("*ga_cid*"))


def test_the_last_rounding_of_an_output_is_taken_off() -> None:
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        [
            node("Relu", ["x"], ["raw"]),
            node("QuantizeLinear", ["raw", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["y"]),
            node("Neg", ["y"], ["w"]),
        ],
        "g",
        [value("x", 1, ["n", 2])],
        [value("y", 1, ["n", 2]), value("w", 1, ["n", 2])],
    )
    proto = onnx.helper.make_model(made)
    float_outputs(proto)
    kinds = [(n.op_type, list(n.input), list(n.output)) for n in proto.graph.node]
    assert kinds == [("Relu", ["x"], ["y"]), ("Neg", ["y"], ["w"])]
