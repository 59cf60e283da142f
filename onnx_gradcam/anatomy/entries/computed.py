"""Operators that make columns, squash them, or do arithmetic with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.axes import convolution_axes
from onnx_gradcam.anatomy.entries.columns import Column, Entries, changed, columns_in, each, made_by
from onnx_gradcam.graph.builder import rank
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.operators import QUANTIZED_WEIGHT, STORES
from onnx_gradcam.graph.quantization import real_form

Known = Mapping[ir.Value, Entries]
SHIFTS = frozenset("Add Sub BiasAdd QLinearAdd BatchNormalization".split())
SCALES = frozenset(("Mul", "Div"))
QUANTIZED_OPERANDS = frozenset("QLinearAdd QLinearMul".split())  # the second one stands behind scale and zero point
NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0, "Pow": 1.0}


def convolved(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries of what a convolution makes: a distribution over bins becomes its expected value."""
    value = node.outputs[0]
    if value.shape is None:
        return [None]
    made = made_by(value, convolution_axes(node, len(value.shape))[1])
    return [_as_expected_value(node, known, made)]


def contracted(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries of what a linear layer makes, in the last axis.

    They lie in the one before where weights stand first, and where the last axis holds the places of a map: it is taken
    apart into rows and columns, as where queries are multiplied with the pixels of a map.
    """
    value = node.outputs[0]
    if value.shape is None or not value.shape:
        return [None]
    data, last = node.inputs[0], len(value.shape) - 1
    weights_first = data is not None and constant(data) is not None and QUANTIZED_WEIGHT.get(node.op_type, 1) == 1
    has_places = _is_attention(node) and _becomes_map(value)
    made = made_by(value, last - 1 if (weights_first or has_places) and last else last)
    return [_as_expected_value(node, known, made)]


def _becomes_map(value: ir.Value) -> bool:
    """Tell whether a reshape takes the last axis of ``value`` apart, and leaves the others."""
    shapes = [node.outputs[0].shape for node in value.consumers() if node.op_type == "Reshape"]
    assert value.shape is not None
    begin = list(value.shape)[:-1]
    return any(
        shape is not None and len(shape) > len(begin) + 1 and list(shape)[: len(begin)] == begin for shape in shapes
    )


def multiplied(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries of an Einsum: the columns are the only axis that one of its two inputs alone brings along.

    Where both bring one, they are those of the constant.
    """
    inputs, _, output = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != 2 or not output or "." in inputs:
        return [None]
    own = [[k for k in output if k in term and k not in other] for term, other in zip(terms, terms[::-1], strict=True)]
    single = [k for k in (1, 0) if len(own[k]) == 1]
    weights = [k for k in single if constant(node.inputs[k]) is not None]
    brings = weights if len(single) > 1 else single
    return [made_by(node.outputs[0], output.index(own[brings[0]][0])) if brings else None]


def _as_expected_value(node: ir.Node, known: Known, made: Entries | None) -> Entries | None:
    """Return ``made``, marked as changed where ``node`` reads the probabilities of a Softmax over what it sums."""
    read = [known[v] for v in node.inputs if v is not None and v in known]
    first = read[0].columns[0] if read else Column()
    is_distribution = first.is_probability and first.kind[0].endswith("Softmax") and not _is_attention(node)
    if made is None or not is_distribution:
        return made
    return replace(made, columns=each(lambda c: replace(c, changed_by=node.op_type), made.columns))


def _is_attention(node: ir.Node) -> bool:
    return node.op_type not in ("Conv", "QLinearConv") and all(constant(v) is None for v in node.inputs[:2])


def sigmoid(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries of a Sigmoid: each is squashed by itself."""
    x, value = node.inputs[0], node.outputs[0]
    assert x is not None
    entries = known[x]
    if columns_in(value, entries.axis) != len(entries.columns):
        return [None]
    return [Entries(real_form(x), entries.axis, each(lambda c: Column(c.origins, node), entries.columns))]


def softmax(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries of a Softmax: its axis is that of the columns."""
    x, value = node.inputs[0], node.outputs[0]
    if x is None or value.shape is None or len(value.shape) < 2:
        return [None]
    axis = node.attributes.get_int("axis", -1) % len(value.shape)
    count, before = columns_in(value, axis), known.get(x)
    if count is None or count == 1:
        return [None]
    origins = frozenset[ir.Value]().union(*(c.origins for c in before.distinct)) if before is not None else frozenset()
    return [Entries(real_form(x), axis, (Column(origins, node),) * count)]


def copied(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries behind a Cast, or behind quantization and back: they stay as they are."""
    x, value = node.inputs[0], node.outputs[0]
    assert x is not None
    entries = known[x]
    return [entries if entries.are_squashed else replace(entries, logits=real_form(value))]


def arithmetic(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries behind an elementwise operator."""
    value = node.outputs[0]
    read = operands(node)
    carried = [v for v in read if v in known]
    first = known[carried[0]]
    if value.shape is None or len(value.shape) != rank(carried[0]):
        return [None]
    if len(carried) == 2:
        return [_of_two(node, value, first, known[carried[1]])]
    if node.op_type == "Sqrt" and first.objectness is not None:
        return [first]
    if len(read) > 1 and _keeps(node, first, [v for v in read if v not in known]):
        is_same = columns_in(value, first.axis) == len(first.columns)
        return [(first if first.are_squashed else replace(first, logits=real_form(value))) if is_same else None]
    return [changed(first, value, node.op_type)]


def operands(node: ir.Node) -> list[ir.Value]:
    """Return what an elementwise operator reads, without the scales and zero points of quantized operands."""
    inputs = [node.inputs[0], node.inputs[3]] if node.op_type in QUANTIZED_OPERANDS else node.inputs
    return [v for v in inputs if v is not None]


def _of_two(node: ir.Node, value: ir.Value, a: Entries, b: Entries) -> Entries | None:
    """Return the entries of two operands: objectness × class, a sum of logits, or else changed ones."""
    if a.axis != b.axis:
        return None
    distinct = (*a.distinct, *b.distinct)
    if node.op_type in ("Mul", "QLinearMul") and all(c.is_probability for c in distinct):
        gate, scores = (a, b) if len(a.columns) == 1 else (b, a)
        return replace(scores, objectness=gate.logits) if len(gate.columns) == 1 else None
    larger = a if len(a.columns) >= len(b.columns) else b
    is_sum = node.op_type in ("Add", "QLinearAdd") and len(a.columns) == len(b.columns)
    if is_sum and all(c.is_raw for c in distinct):
        both = each(lambda c, d: replace(c, origins=c.origins | d.origins), a.columns, b.columns)
        return Entries(real_form(value), a.axis, both) if columns_in(value, a.axis) == len(a.columns) else None
    is_weighted = node.op_type == "Add" and all(c.changed_by in SCALES for c in distinct)
    mixed = larger.columns if is_weighted else each(lambda c: replace(c, changed_by=node.op_type), larger.columns)
    return changed(replace(larger, columns=mixed), value, node.op_type)


def _keeps(node: ir.Node, entries: Entries, others: Sequence[ir.Value]) -> bool:
    """Tell whether an operator with further operands leaves entries what they are.

    It does where it adds 0 or multiplies by 1, where it adds a bias of each column before a Sigmoid or Softmax, where a
    mask multiplies, and where the scale of a dynamically quantized operator does.
    """
    arrays = [real_constant(node, v) for v in others]
    is_alone = len(arrays) == 1 and arrays[0] is not None
    neutral = NEUTRAL.get(node.op_type.removeprefix("QLinear"))
    if is_alone and neutral is not None and np.all(arrays[0] == neutral):
        return True
    if node.op_type in SHIFTS and not entries.are_squashed:
        return all(a is not None and _is_along(a, entries.axis, node) for a in arrays)
    is_product = node.op_type in ("Mul", "QLinearMul") and len(others) == 1
    return is_product and (_is_mask(others[0]) or _is_dynamic_scale(others[0]))


def real_constant(node: ir.Node, value: ir.Value) -> np.ndarray | None:
    """Return a constant operand; of an operator of quantized operands the numbers that its integers stand for."""
    array = constant(value)
    if array is None or node.op_type not in QUANTIZED_OPERANDS:
        return array
    position = list(node.inputs).index(value)
    scale, zero_point = (constant(node.inputs[position + k]) for k in (1, 2))
    if scale is None or zero_point is None:
        return None
    real: np.ndarray = (array.astype(np.float64) - zero_point.astype(np.float64)) * scale
    return real


def _is_along(array: np.ndarray, axis: int, node: ir.Node) -> bool:
    """Tell whether a constant operand differs along no other axis than that of the columns."""
    if node.op_type == "BatchNormalization":
        return True
    offset = rank(node.outputs[0]) - array.ndim
    return all(d == 1 or k + offset == axis for k, d in enumerate(array.shape))


def _is_mask(value: ir.Value) -> bool:
    """Tell whether ``value`` is a truth value as a number, however it is stored."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.op_type in STORES else None
    return source is not None and (source.dtype == ir.DataType.BOOL or _is_mask(source))


def _is_dynamic_scale(value: ir.Value) -> bool:
    """Tell whether ``value`` is a scale that DynamicQuantizeLinear finds, times that of constant weights."""
    node = value.producer()
    if node is None or node.op_type == "DynamicQuantizeLinear":
        return node is not None
    return node.op_type == "Mul" and any(v is not None and _is_dynamic_scale(v) for v in node.inputs)
