"""Which integer tensors stand for real numbers, and for which: value = scale · (integer − zero point)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.names import claim, dequantized, names_in
from onnx_gradcam.graph.operators import MOVES, AxisEffect, operators

INTEGERS = frozenset({getattr(ir.DataType, name) for name in "INT4 UINT4 INT8 UINT8 INT16 UINT16 INT32".split()})

# The least and the greatest integer that a quantized tensor holds.
BOUNDS = {
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT16: (0, 65535),
}

PASSED_ON = MOVES | operators(AxisEffect.COPIED, AxisEffect.REQUANTIZED)  # every entry stays what it is

# Operators that quantize what they return → the positions of its scale and zero point among their inputs.
QUANTIZING = {
    "QuantizeLinear": (1, 2),
    "QLinearConv": (6, 7),
    "QLinearMatMul": (6, 7),
    "QLinearAdd": (6, 7),
    "QLinearMul": (6, 7),
    "QLinearConcat": (0, 1),
    "QLinearAveragePool": (3, 4),
    "QLinearGlobalAveragePool": (3, 4),
    "QLinearLeakyRelu": (3, 4),
    "QLinearReduceMean": (3, 4),
    "QLinearSigmoid": (3, 4),
    "QLinearSoftmax": (3, 4),
    "QLinearWhere": (7, 8),
    "QGemm": (7, 8),
}
ACCUMULATING = frozenset({"ConvInteger", "MatMulInteger"})  # they return sums of integers, in no other unit
# Operators that do the same to integers and to the numbers that these stand for.
MOVING = (
    (MOVES - {"QLinearConcat"})
    | operators(AxisEffect.PADDED)
    | frozenset("Identity Max MaxPool Min NhwcMaxPool Resize Where".split())
)
# What these return lies between the least and the largest number that they are given.
STAYING = MOVING - {"Max", "Min", "Pad", "Resize", "Where"} | {"Relu"}
ADDING = MOVING | {"Add", "Sub"}  # to sums of integers


@dataclass(frozen=True)
class Quantization:
    """``scale`` and ``zero_point`` of an integer tensor, along ``axis`` where they are vectors.

    ``scale`` None: the integer is the number (an accumulator).
    """

    scale: ir.Value | None
    zero_point: ir.Value | None = None
    axis: int | None = None


def quantization(value: ir.Value | None) -> Quantization | None:
    """Return what the integers of ``value`` stand for, or None where they are no quantized numbers.

    Found by following the graph back, over operators that only move elements, to the operator that quantized.
    """
    if value is None or value.dtype not in INTEGERS or (node := value.producer()) is None:
        return None
    if node.op_type == "DynamicQuantizeLinear":
        return Quantization(node.outputs[1], node.outputs[2]) if value is node.outputs[0] else None
    if node.op_type in ACCUMULATING:
        return Quantization(None)
    if node.op_type in QUANTIZING:
        scale, zero_point = QUANTIZING[node.op_type]
        axis = node.attributes.get_int("axis", 1) if node.op_type == "QuantizeLinear" else None
        return Quantization(node.inputs[scale], _input(node, zero_point), axis)
    if node.op_type not in ADDING:
        return None
    sources = (quantization(v) for v in node.inputs if v is not None and v.dtype == value.dtype)
    found = next((q for q in sources if q is not None), None)
    return found if found is None or found.scale is None or node.op_type in MOVING else None


def real_range(value: ir.Value) -> tuple[float, float] | None:
    """Return the least and the greatest number that a quantized ``value`` can stand for, where one constant scale and
    zero point say so."""
    q = quantization(value)
    scale, zero_point = (None, None) if q is None else (constant(q.scale), constant(q.zero_point))
    if q is None or scale is None or scale.size != 1 or value.dtype not in BOUNDS:
        return None
    if q.zero_point is not None and (zero_point is None or zero_point.size != 1):
        return None
    zero = 0 if zero_point is None else int(zero_point.item())
    low, high = BOUNDS[value.dtype]
    return (low - zero) * float(scale.item()), (high - zero) * float(scale.item())


def only_requantizes(node: ir.Node) -> bool:
    """Tell whether a QuantizeLinear gets nothing but numbers of its own scale and zero point, so that it clips nothing.

    As around a MaxPool or Reshape: what it reads was dequantized, and moved or cut, but not computed with.
    """
    source = node.inputs[0]
    return source is not None and _is_of(source, _parameters(node))


def _is_of(value: ir.Value, parameters: tuple[bytes, ...] | None) -> bool:
    """Tell whether ``value`` is made of numbers that were dequantized with these parameters."""
    node = value.producer()
    if node is None or parameters is None:
        return False
    if node.op_type == "DequantizeLinear":
        return _parameters(node) == parameters
    data = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    return node.op_type in STAYING and all(v is not None and _is_of(v, parameters) for v in data)


def _parameters(node: ir.Node) -> tuple[bytes, ...] | None:
    """Return scale and zero point, if they are constant."""
    arrays = [constant(_input(node, k)) for k in (1, 2)]
    return None if arrays[0] is None else tuple(b"" if a is None else a.tobytes() for a in arrays)


def is_quantized(graph: ir.Graph) -> bool:
    """Tell whether ``graph`` computes with quantized tensors."""
    return any(quantization(value) is not None for node in graph for value in node.outputs)


def quantized_form(value: ir.Value) -> ir.Value:
    """Return the integers that ``value`` was dequantized from, or ``value`` itself."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.op_type == "DequantizeLinear" else None
    return source if source is not None and quantization(source) is not None else value


def real_form(value: ir.Value) -> ir.Value:
    """Return what a DequantizeLinear makes of quantized integers, or ``value`` itself."""
    if quantization(value) is None:
        return value
    readers = (node for node in value.consumers() if node.op_type == "DequantizeLinear")
    return next((node.outputs[0] for node in readers), value)


def add_real_forms(graph: ir.Graph) -> None:
    """Give every quantized tensor without a DequantizeLinear one: the form in which it can be looked at.

    Nothing reads these, so they cost nothing where they are not asked for.
    """
    taken = names_in(graph)
    for node in list(graph):
        for value in node.outputs:
            q = quantization(value)
            if q is None or q.scale is None or real_form(value) is not value:
                continue
            name = claim(dequantized(value.name or ""), taken)
            output = ir.val(name, dtype=q.scale.dtype, shape=value.shape)
            attributes = {} if q.axis is None else {"axis": q.axis}
            reader = ir.node(
                "DequantizeLinear", [value, q.scale, q.zero_point], attributes, outputs=[output], name=name
            )
            graph.insert_after(node, reader)


def _input(node: ir.Node, position: int) -> ir.Value | None:
    return node.inputs[position] if position < len(node.inputs) else None


def behind_layers(sinks: Iterable[ir.Value]) -> set[ir.Value]:
    """Return the quantized values between scores and the convolutions or linear layers that make them.

    Behind these only biases are added and entries moved: a score that stands at the end of its format's range is
    explained as if that had no end, wherever on this way it was stored.
    """
    pending, behind = list(sinks), set[ir.Value]()
    while pending:
        value = pending.pop()
        node = value.producer()
        if value in behind or constant(value) is not None:
            continue
        behind.add(value)
        if node is not None and (node.op_type in PASSED_ON or _adds_constant(node)):
            pending.extend(v for v in node.inputs if v is not None)
    return {v for v in behind if quantization(v) is not None}


def _adds_constant(node: ir.Node) -> bool:
    inputs = [node.inputs[0], node.inputs[3]] if node.op_type == "QLinearAdd" else node.inputs[:2]
    return node.op_type in ("Add", "QLinearAdd") and any(constant(v) is not None for v in inputs)
