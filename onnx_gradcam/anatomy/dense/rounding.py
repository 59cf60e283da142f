"""The steps in which a quantized output holds its numbers."""

from __future__ import annotations

import onnx_ir as ir

from onnx_gradcam.anatomy.dense.heads import PICKING
from onnx_gradcam.anatomy.dense.scores import DenseScores
from onnx_gradcam.graph.constants import constant

LOST = 2.0  # a step of which a probability, at most 1, is less than half


def lost_probabilities(graph: ir.Graph, dense: DenseScores) -> dict[str, float]:
    """Return the graph outputs in which every probability is rounded to 0, each with its step.

    So it is where boxes and probabilities share one scale. What is explained lies before that.
    """
    names = {name for head in dense.heads if head.activation and not head.raw for name in head.returned_in}
    steps = {v.name or "": _step(v) for v in graph.outputs if v.name in names}
    return {name: step for name, step in steps.items() if step is not None and step > LOST}


def _step(value: ir.Value) -> float | None:
    """Return the scale of the DequantizeLinear that an output was moved from; None where there is none."""
    node = value.producer()
    while node is not None and node.op_type in PICKING and node.inputs[0] is not None:
        scale = constant(node.inputs[1]) if node.op_type == "DequantizeLinear" else None
        if scale is not None:
            return float(scale.item()) if scale.size == 1 else None
        node = node.inputs[0].producer()
    return None
