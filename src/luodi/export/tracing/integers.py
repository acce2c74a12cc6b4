"""Where a graph must stay float when the rest computes in integers."""

from __future__ import annotations

from typing import Any


def input_joins(proto: Any) -> list[str]:
    """Names of the nodes that only join inputs of the model: rounding each column alone loses what the others hold."""
    inputs = {value.name for value in proto.graph.input}
    return [node.name for node in proto.graph.node if node.op_type == "Concat" and inputs & set(node.input)]


def float_outputs(proto: Any) -> None:
    """Takes the last rounding off each output, in place: integers there would clip what calibration never saw."""
    graph = proto.graph
    makers = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        back = makers.get(output.name)
        there = makers.get(back.input[0]) if back is not None and back.op_type == "DequantizeLinear" else None
        maker = makers.get(there.input[0]) if there is not None and there.op_type == "QuantizeLinear" else None
        if back is None or there is None or maker is None:
            continue
        name = there.input[0]
        graph.node.remove(back)
        graph.node.remove(there)
        for node in graph.node:
            node.input[:] = [output.name if used == name else used for used in node.input]
        maker.output[:] = [output.name if made == name else made for made in maker.output]
