"""Operators that move entries, join them or take some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.axes import axis_after, joined_axis
from onnx_gradcam.anatomy.dense.tensors import Joined, columns_of
from onnx_gradcam.anatomy.entries.columns import Column, Entries, changed, columns_in, each, kept
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.operators import RESHAPES
from onnx_gradcam.graph.quantization import real_form

Known = Mapping[ir.Value, Entries]


def reordered(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries behind a Transpose or a reshape: an axis that is taken apart leaves the minor part.

    Columns that a Softmax weighs against each other are no anchors × classes, and are not taken apart.
    """
    entries, value = known[_first(node)], node.outputs[0]
    axis = axis_after(node, entries.axis)
    count = None if axis is None else columns_in(value, axis)
    if axis is None or count is None or (node.op_type in RESHAPES and entries.objectness is not None):
        return [None]
    if count < len(entries.columns) and entries.columns[0].kind[0].endswith("Softmax"):
        return [None]
    columns = entries.columns[-count:]
    is_periodic = columns * (len(entries.columns) // count) == entries.columns
    return [kept(entries, node, value, axis, columns) if is_periodic else None]


def cut(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries behind a Slice or Split."""
    entries = known[_first(node)]
    taken: list[Entries | None] = []
    for value in node.outputs:
        columns = columns_of(node, value, entries.axis) if value.shape is not None else None
        left = None if columns is None else entries.columns[columns]
        taken.append(None if left is None else kept(entries, node, value, entries.axis, left))
    return taken


def gathered(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries behind a Gather by constant indices."""
    source, value = _first(node), node.outputs[0]
    entries, index = known[source], constant(node.inputs[1])
    if index is None or index.ndim > 1 or source.shape is None:
        return [None]
    axis = node.attributes.get_int("axis", 0) % len(source.shape)
    if axis == entries.axis:
        columns = [entries.columns[int(k)] for k in index] if index.ndim == 1 else []
        return [kept(entries, node, value, axis, columns) if columns else None]
    after = entries.axis - (index.ndim == 0 and axis < entries.axis)
    return [kept(entries, node, value, after, entries.columns)]


def joined(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries of a Concat of levels, or of columns: boxes beside classes."""
    value = node.outputs[0]
    data = node.inputs[2::3] if node.op_type == "QLinearConcat" else node.inputs
    sources = [v for v in data if v is not None]
    parts = _of_one_axis([known.get(v) for v in sources])
    there = [part for part in parts if part is not None]
    if value.shape is None or any(part.axis != there[0].axis for part in there):
        return [None]
    along, axis = joined_axis(node), there[0].axis
    columns = _of_cells(there, parts) if along != axis else _of_columns(parts, sources, along)
    if columns is None or columns_in(value, axis) != len(columns):
        return [None]
    gates = [part.objectness for part in there if part.objectness is not None]
    objectness = gates[0] if gates else None
    if along != axis and gates:
        objectness = Joined(tuple(gates), along) if len(gates) == len(parts) else None
    if not any(part.are_squashed for part in there):
        return [Entries(real_form(value), axis, columns, objectness)]
    logits = tuple(real_form(v) if part is None else part.logits for part, v in zip(parts, sources, strict=True))
    return [Entries(Joined(logits, along), axis, columns, objectness)]


def _of_one_axis(parts: Sequence[Entries | None]) -> list[Entries | None]:
    """Return the parts without those whose columns lie along another axis than the probabilities of the others."""
    axes = {part.axis for part in parts if part is not None and part.are_squashed}
    return [part if part is None or part.axis in axes or not axes else None for part in parts]


def _of_cells(there: Sequence[Entries], parts: Sequence[Entries | None]) -> tuple[Column, ...] | None:
    """Return the columns of parts that are joined cell by cell; None where their histories differ."""
    kinds = [[column.kind for column in part.columns] for part in there]
    if len(there) < len(parts) or any(kind != kinds[0] for kind in kinds):
        return None
    return each(_joined, *(part.columns for part in there))


def _joined(*same: Column) -> Column:
    return replace(same[0], origins=frozenset().union(*(c.origins for c in same)))


def _of_columns(parts: Sequence[Entries | None], sources: Sequence[ir.Value], axis: int) -> tuple[Column, ...] | None:
    """Return the columns of parts that are joined column by column; None where a count is open."""
    columns: list[Column] = []
    for part, value in zip(parts, sources, strict=True):
        count = columns_in(value, axis)
        if count is None:
            return None
        columns += part.columns if part is not None else [Column()] * count
    return tuple(columns)


def regrouped(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries behind an operator by which channels become places, or places channels."""
    entries, value = known[_first(node)], node.outputs[0]
    count = columns_in(value, entries.axis)
    if count is None or entries.are_squashed or len(set(entries.columns)) != 1:
        return [None]
    return [kept(entries, node, value, entries.axis, entries.columns[:1] * count)]


def repeated(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries behind an Expand or Tile that leaves the shape as it is; None where it repeats elements."""
    source, value = _first(node), node.outputs[0]
    entries = known[source]
    is_same = source.shape is not None and value.shape is not None and list(source.shape) == list(value.shape)
    return [kept(entries, node, value, entries.axis, entries.columns) if is_same else None]


def resampled(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries behind an operator that resizes, pools or pads; None for probabilities: others come of it."""
    entries, value = known[_first(node)], node.outputs[0]
    return [None if entries.are_squashed else kept(entries, node, value, entries.axis, entries.columns)]


def reduced(node: ir.Node, known: Known) -> list[Entries | None]:
    """Return the entries behind a reduction over cells; None where it is over the columns."""
    source, value = _first(node), node.outputs[0]
    entries = known[source]
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None or source.shape is None:
        return [None]
    over = {int(k) % len(source.shape) for k in np.ravel(axes)}
    if entries.axis in over:
        return [None]
    is_shorter = node.attributes.get_int("keepdims", 1) == 0
    axis = entries.axis - sum(k < entries.axis for k in over) if is_shorter else entries.axis
    if not entries.are_squashed:
        return [kept(entries, node, value, axis, entries.columns)]
    return [changed(replace(entries, axis=axis), value, node.op_type)]


def _first(node: ir.Node) -> ir.Value:
    source = node.inputs[0]
    assert source is not None
    return source
