"""Loop and Scan, unrolled where the number of repetitions is known before the run."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.lowering.registry import lowering
from onnx_gradcam.graph.lowering.replay import WRITERS, distinct


@lowering("Loop")
def loop(
    op: Builder, M: Value | None = None, cond: Value | None = None, *v_initial: Value, body: ir.Graph
) -> tuple[Value | None, ...]:
    """The body once for each repetition, on the states that the one before returns."""
    start = len(op.written)
    terms = WRITERS["Loop"](op, [M, cond, *v_initial], {"body": body}, {})
    return distinct(op, terms, start)


@lowering("Scan")
def scan(
    op: Builder,
    *initial_state_and_scan_inputs: Value,
    body: ir.Graph,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
) -> tuple[Value | None, ...]:
    """The body once for each slice of the scanned inputs, on the states that the one before returns."""
    attributes = {
        "body": body,
        "num_scan_inputs": num_scan_inputs,
        "scan_input_axes": scan_input_axes,
        "scan_input_directions": scan_input_directions,
        "scan_output_axes": scan_output_axes,
        "scan_output_directions": scan_output_directions,
    }
    start = len(op.written)
    terms = WRITERS["Scan"](op, initial_state_and_scan_inputs, attributes, {})
    return distinct(op, terms, start)
