"""Operators without a VJP rule, through the standard operators that compute the same.

Only the derivative is taken from the standard operators: the node itself and its outputs stay as deployed.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.lowering.bodies import expand, is_function
from onnx_gradcam.graph.lowering.registry import Lowering, Unlowered, call, find
from onnx_gradcam.graph.quantization import ADDING, Quantization, quantization

WIDE = frozenset({ir.DataType.INT16, ir.DataType.UINT16})  # for which DequantizeLinear came with opset 21


def is_lowered(node: ir.Node) -> bool:
    """Tell whether ``node`` can be differentiated through standard operators that compute the same."""
    return find(node) is not None or works_on_quantized(node) or is_lowered_to_body(node)


def lower(op: Builder, node: ir.Node) -> tuple[Value | None, ...] | None:
    """Write the standard operators that compute what ``node`` does, from its own inputs.

    Args:
        op: writes the nodes.
        node: a node of any domain, with its inputs.

    Returns:
        What stands for each output, None for one that no gradient comes from; None for an unknown operator.

    Raises:
        Unlowered: the lowering was not written for this form of the operator.
    """
    if (function := find(node)) is not None:
        return _by_function(op, node, function)
    if works_on_quantized(node):
        attributes = {a.name: a.value for a in node.attributes.values()}
        return op.node(node.op_type, *_in_real_numbers(op, node), outputs=len(node.outputs), **attributes)
    return expand(op, node) if is_lowered_to_body(node) else None


def _by_function(op: Builder, node: ir.Node, function: Lowering) -> tuple[Value | None, ...]:
    """Return what a lowering writes, or the body where it was not written for this form or for an output that is
    read."""
    try:
        values = call(function, op, node)
    except Unlowered:
        if not is_function(node) or (body := expand(op, node)) is None:
            raise
        return body
    read = [v.uses() or v.is_graph_output() for v in node.outputs]
    if is_function(node) and any(r and y is None for r, y in zip(read, values, strict=True)):
        return expand(op, node) or values
    return values


def _in_real_numbers(op: Builder, node: ir.Node) -> list[Value | None]:
    """Write the inputs of ``node`` as real numbers: those of the type of the quantized ones have their unit, too.

    So the bias that is added to sums of integers, or what a Pad fills with.
    """
    formal = onnx.defs.get_schema(node.op_type, op.opset).inputs
    types = [formal[min(i, len(formal) - 1)].type_str for i in range(len(node.inputs))]
    own = [quantization(v) for v in node.inputs]
    units = {kind: q for kind, q in reversed(list(zip(types, own, strict=True))) if q is not None}
    return [
        None if v is None else dequantize(op, v, q or units.get(kind))
        for v, q, kind in zip(node.inputs, own, types, strict=True)
    ]


def dequantize(op: Builder, value: Value, q: Quantization | None = None) -> Value:
    """Write the real numbers that a quantized ``value`` stands for; return any other value as it is.

    Args:
        op: writes the nodes.
        value: the integers.
        q: what they stand for, where ``value`` itself does not tell.
    """
    q = q or quantization(value)
    if q is None:
        return value
    if q.scale is None:
        return op.Cast(value, to=ir.DataType.FLOAT)
    if value.dtype in WIDE and op.opset < 21:
        integers = op.Cast(value, to=q.scale.dtype)
        return op.Mul(_subtract(op, integers, q.zero_point), q.scale)
    return op.DequantizeLinear(value, q.scale, q.zero_point, axis=q.axis)


def _subtract(op: Builder, x: Value, zero_point: Value | None) -> Value:
    return x if zero_point is None else op.Sub(x, op.Cast(zero_point, to=x.dtype))


def works_on_quantized(node: ir.Node) -> bool:
    """Tell whether a standard operator works on quantized numbers: it does the same on real ones."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ADDING:
        return False
    return any(quantization(v) is not None for v in node.inputs)


def is_lowered_to_body(node: ir.Node) -> bool:
    """Tell whether ``node`` is lowered to the function body of simpler operators by which ONNX defines it."""
    return find(node) is None and not works_on_quantized(node) and is_function(node)
