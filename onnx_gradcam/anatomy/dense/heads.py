"""The entries of a dense or detector output that are scores: they pass through a Sigmoid or Softmax, unmixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnx_gradcam.anatomy.axes import axis_after, joined_axis
from onnx_gradcam.anatomy.dense.tensors import Joined, Repeated, Tensor, columns_of
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.flow import captured, is_float, upstream
from onnx_gradcam.graph.operators import (
    CONVOLUTIONS,
    COPIES,
    IN_PLACE,
    POOLINGS,
    REORDERS,
    RESHAPES,
    AxisEffect,
    operators,
)

MAKES_PROBABILITIES = ("Softmax", "LogSoftmax", "Sigmoid")
# Operators that keep the axis of the features where it is.
KEEPS_FEATURES = IN_PLACE | operators(
    AxisEffect.SQUASHED, AxisEffect.SELECTED, AxisEffect.RESIZED, AxisEffect.PADDED, AxisEffect.REGROUPED
)
# What stands behind the scores of a detector or segmenter: it picks among entries, and changes none.
PICKING = operators(
    AxisEffect.COPIED,
    AxisEffect.RESHAPED,
    AxisEffect.TRANSPOSED,
    AxisEffect.JOINED,
    AxisEffect.CUT,
    AxisEffect.SELECTED,
    AxisEffect.PICKED,
    AxisEffect.REPEATED,
) | frozenset(
    "ArgMax NonMaxSuppression TopK ReduceMax Max Where Greater GreaterOrEqual Less LessOrEqual NonZero Mul Sqrt Loop "
    "If Scan Shape Add Sub Div Mod Min Clip Not And Equal".split()
)
BOX = 4  # columns of a box


@dataclass(frozen=True)
class Entries:
    """The entries of a value that are, in some columns, probabilities that nothing has changed since.

    Attributes:
        logits: what they were before, of the same shape; in other columns anything.
        axis: the axis of the columns.
        squashed_by: for each column the Sigmoid or Softmax that it passed through, None for others (boxes).
        others: what the other columns hold.
        objectness: logits of one column, by whose probabilities they were multiplied; None where they were not.
    """

    logits: Tensor
    axis: int
    squashed_by: tuple[ir.Node | None, ...]
    others: tuple[Value, ...] = ()
    objectness: Tensor | None = None


def channel_axis(value: Value) -> int | None:
    """Return the axis of the features that a convolution or linear layer made, followed through reshapes.

    Where a reshape takes that axis apart, it is the minor part: exporters write anchors × classes. None: not known.
    """
    node = value.producer()
    if node is None or not node.inputs or value.shape is None:
        return None
    if node.op_type in CONVOLUTIONS | POOLINGS:
        return 1
    if node.op_type in ("MatMul", "Gemm"):
        return len(value.shape) - 1
    for source in node.inputs:
        if source is None or source.shape is None or source.is_initializer():
            continue
        if node.op_type in REORDERS:
            axis = channel_axis(source)
            return None if axis is None else axis_after(node, axis)
        if len(source.shape) == len(value.shape) and node.op_type in KEEPS_FEATURES:
            axis = channel_axis(source)
            if axis is not None:
                return axis
    return None


def trace(value: Value) -> Entries | None:
    """Return the entries of ``value``, or None where it holds no probabilities, or changed ones."""
    node = value.producer()
    if node is None or node.domain != "" or value.shape is None or not is_float(value):
        return None
    if node.op_type in MAKES_PROBABILITIES:
        return _squashed(node, value)
    if node.op_type == "Concat":
        return _joined(node, [trace(x) for x in node.inputs if x is not None])
    if node.op_type == "Mul":
        return _weighted([trace(x) for x in node.inputs if x is not None])
    if node.op_type not in REORDERS | COPIES | {"Slice", "Split", "Sqrt"} or node.inputs[0] is None:
        return None
    entries = trace(node.inputs[0])
    if entries is None or node.op_type == "Sqrt":
        return entries
    return _moved(node, value, entries)


def _squashed(node: ir.Node, value: Value) -> Entries | None:
    """Return the entries of what a Sigmoid or Softmax makes, where the axis of the columns is known."""
    x = node.inputs[0]
    assert x is not None
    assert value.shape is not None
    axis = channel_axis(x) if node.op_type == "Sigmoid" else node.attributes.get_int("axis", -1) % len(value.shape)
    count = None if axis is None else value.shape[axis]
    if axis is None or not isinstance(count, int) or len(value.shape) < 3:
        return None
    if count == 1 and node.op_type != "Sigmoid":
        return None
    return Entries(x, axis, (node,) * count)


def _moved(node: ir.Node, value: Value, entries: Entries) -> Entries | None:
    """Return the entries behind an operator that moves them or takes some of them."""
    assert value.shape is not None
    axis = axis_after(node, entries.axis) if node.op_type in REORDERS else entries.axis
    if axis is None or (node.op_type in RESHAPES and entries.objectness is not None):
        return None
    kept = columns_of(node, value, entries.axis)
    count = value.shape[axis]
    if kept is None or not isinstance(count, int):
        return None
    squashed_by = entries.squashed_by[kept]
    if count != len(squashed_by) and len(set(squashed_by)) != 1:
        return None
    logits = entries.logits if node.op_type in COPIES else Repeated(node, value, entries.logits)
    objectness = entries.objectness
    if objectness is not None and node.op_type == "Transpose":
        objectness = Repeated(node, value, objectness)
    return replace(entries, logits=logits, axis=axis, squashed_by=squashed_by[-count:], objectness=objectness)


def _joined(node: ir.Node, parts: Sequence[Entries | None]) -> Entries | None:
    """Return the entries of a Concat of levels, or of columns: boxes beside classes."""
    known = [part for part in parts if part is not None]
    if not known or any(part.axis != known[0].axis for part in known):
        return None
    sources = [x for x in node.inputs if x is not None]
    along = joined_axis(node)
    columns = _joined_cells(known, parts) if along != known[0].axis else _joined_columns(parts, sources, along)
    if columns is None:
        return None
    logits = Joined(tuple(x if part is None else part.logits for part, x in zip(parts, sources, strict=True)), along)
    gates = [part.objectness for part in known]
    objectness = gates[0]
    if along != known[0].axis and objectness is not None:
        objectness = Joined(tuple(g for g in gates if g is not None), along)
    return Entries(logits, known[0].axis, *columns, objectness)


def _joined_cells(
    known: Sequence[Entries], parts: Sequence[Entries | None]
) -> tuple[tuple[ir.Node | None, ...], tuple[Value, ...]] | None:
    """Return ``squashed_by`` and ``others`` of parts that are joined cell by cell; None where their columns differ."""
    kinds = [[node and node.op_type for node in part.squashed_by] for part in known]
    if len(known) < len(parts) or any(kind != kinds[0] for kind in kinds):
        return None
    return known[0].squashed_by, tuple(x for part in known for x in part.others)


def _joined_columns(
    parts: Sequence[Entries | None], sources: Sequence[Value], along: int
) -> tuple[tuple[ir.Node | None, ...], tuple[Value, ...]] | None:
    """Return ``squashed_by`` and ``others`` of parts that are joined column by column; None where a count is open."""
    squashed_by: list[ir.Node | None] = []
    others = [x for part in parts if part is not None for x in part.others]
    for part, x in zip(parts, sources, strict=True):
        count = x.shape[along] if x.shape is not None else None
        if not isinstance(count, int):
            return None
        squashed_by += part.squashed_by if part is not None else [None] * count
        others += [] if part is not None else [x]
    return tuple(squashed_by), tuple(others)


def _weighted(parts: Sequence[Entries | None]) -> Entries | None:
    """Return the entries of objectness × class, as some detectors multiply them themselves."""
    a, b = parts if len(parts) == 2 else (None, None)
    if a is None or b is None or a.axis != b.axis or None in (*a.squashed_by, *b.squashed_by):
        return None
    gate, scores = (a, b) if len(a.squashed_by) == 1 else (b, a)
    return replace(scores, objectness=gate.logits) if len(gate.squashed_by) == 1 else None


def classes(entries: Entries, nodes: Sequence[ir.Node]) -> tuple[list[int], int | None]:
    """Return the columns of the classes, and the column of an objectness; None where there is none.

    An objectness is one column with a Sigmoid of its own beside those of the classes, or, where boxes and classes come
    out of one Sigmoid, the column behind the box.
    """
    groups: dict[ir.Node, list[int]] = {}
    for k, node in enumerate(entries.squashed_by):
        if node is not None:
            groups.setdefault(node, []).append(k)
    source, largest = max(groups.items(), key=lambda item: len(item[1]))
    single = [columns[0] for columns in groups.values() if columns is not largest and len(columns) == 1]
    if single or entries.objectness is not None:
        return largest, single[0] if single else None
    boxes = largest[0] == BOX and entries.squashed_by[:BOX] == (None,) * BOX and len(largest) > 1
    if boxes and any(source.outputs[0] in upstream(nodes, other) for other in entries.others):
        return largest[1:], largest[0]
    return largest, None


def ends(outputs: Sequence[Value]) -> list[tuple[Value, Entries]]:
    """Return the last values with such entries on the way to ``outputs``; behind them entries are only picked."""
    traced: dict[Value, Entries] = {}
    seen: set[Value] = set()
    pending = list(outputs)
    while pending:
        value = pending.pop(0)
        if value in seen:
            continue
        seen.add(value)
        entries = trace(value)
        if entries is not None and any(entries.squashed_by):
            traced[value] = entries
            continue
        node = value.producer()
        if node is not None and node.op_type in PICKING:
            pending.extend(v for v in [*node.inputs, *captured(node)] if v is not None and not v.is_initializer())
    return list(traced.items())


def before_argmax(outputs: Sequence[Value]) -> tuple[Value, int] | None:
    """Return what an ArgMax over classes reads on the way to one of ``outputs``, and the axis of the classes."""
    pending, seen = list(outputs), set[Value]()
    while pending:
        value = pending.pop(0)
        node = value.producer()
        if value in seen or node is None:
            continue
        seen.add(value)
        x = node.inputs[0] if node.inputs else None
        if node.op_type == "ArgMax" and x is not None and x.shape is not None and len(x.shape) > 2:
            return x, node.attributes.get_int("axis", 0) % len(x.shape)
        if node.op_type in PICKING and x is not None:
            pending.append(x)
    return None
