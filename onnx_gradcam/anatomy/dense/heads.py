"""Which entries of a dense or detector output are scores: those that pass through a Sigmoid or Softmax, unmixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnx_gradcam.anatomy.axes import (
    CONVOLUTIONS,
    COPIES,
    IN_PLACE,
    POOLINGS,
    RESHAPES,
    AxisEffect,
    axis_after,
    axis_before,
    joined_axis,
    operators,
)
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import captured, is_float, upstream

SQUASHES = ("Softmax", "LogSoftmax", "Sigmoid")
MOVES_ENTRIES = RESHAPES | operators(AxisEffect.TRANSPOSED)
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
    """A value whose entries are, in some columns, probabilities that nothing has changed since.

    ``logits``: of the same shape, what they were before; in other columns anything. ``axis``: that of the columns.
    ``made``: for each column the Sigmoid or Softmax that it passed through, None for others (boxes). ``others``: what
    these are. ``objectness``: logits of one column that the probabilities were multiplied with.
    """

    logits: Value
    axis: int
    made: tuple[ir.Node | None, ...]
    others: tuple[Value, ...] = ()
    objectness: Value | None = None


def channel_axis(value: Value) -> int | None:
    """The axis of the features that a convolution or linear layer made, followed through reshapes; None: not known.

    Where a reshape takes that axis apart, the minor part: exporters write anchors × classes.
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
        if node.op_type in MOVES_ENTRIES:
            axis = channel_axis(source)
            return None if axis is None else axis_after(node, axis)
        if len(source.shape) == len(value.shape) and node.op_type in KEEPS_FEATURES:
            axis = channel_axis(source)
            if axis is not None:
                return axis
    return None


def step_back(value: Value, axis: int, column: int) -> tuple[Value, int, int] | None:
    """What a column was before the operator that made ``value``, where that only moves entries."""
    node = value.producer()
    if node is None or value.shape is None or not node.inputs or node.inputs[0] is None:
        return None
    source = node.inputs[0]
    if node.op_type == "Concat" and joined_axis(node) == axis:
        for part in node.inputs:
            count = None if part is None or part.shape is None else part.shape[axis]
            if part is None or not isinstance(count, int):
                return None
            if column < count:
                return part, axis, column
            column -= count
    if node.op_type in MOVES_ENTRIES | COPIES:
        before = axis_before(node, source, axis)
        return None if before is None else (source, before, column)
    if node.op_type in ("Slice", "Split"):
        kept = columns_of(node, value, axis)
        return None if kept is None else (source, axis, column + (kept.start or 0))
    return None


def trace(op: Builder, value: Value) -> Entries | None:
    """The entries of ``value``; the operators between them and their Sigmoid or Softmax are written again on logits."""
    node = value.producer()
    if node is None or node.domain != "" or value.shape is None or not is_float(value):
        return None
    if node.op_type in SQUASHES:
        return _squashed(node, value)
    if node.op_type == "Concat":
        return _joined(op, node, [trace(op, x) for x in node.inputs if x is not None])
    if node.op_type == "Mul":
        return _weighted([trace(op, x) for x in node.inputs if x is not None])
    if node.op_type not in MOVES_ENTRIES | COPIES | {"Slice", "Split", "Sqrt"} or node.inputs[0] is None:
        return None
    entries = trace(op, node.inputs[0])
    if entries is None or node.op_type == "Sqrt":
        return entries
    return _moved(op, node, value, entries)


def _squashed(node: ir.Node, value: Value) -> Entries | None:
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


def _moved(op: Builder, node: ir.Node, value: Value, entries: Entries) -> Entries | None:
    """Behind an operator that moves entries or takes some of them."""
    assert value.shape is not None
    reshapes = node.op_type in RESHAPES
    axis = axis_after(node, entries.axis) if node.op_type in MOVES_ENTRIES else entries.axis
    if axis is None or (reshapes and entries.objectness is not None):
        return None
    kept = columns_of(node, value, entries.axis)
    count = value.shape[axis]
    if kept is None or not isinstance(count, int):
        return None
    made = entries.made[kept]
    if count != len(made) and len(set(made)) != 1:
        return None
    logits = entries.logits if node.op_type in COPIES else _again(op, node, value, entries.logits)
    objectness = entries.objectness
    if objectness is not None and node.op_type == "Transpose":
        objectness = _again(op, node, value, objectness)
    return replace(entries, logits=logits, axis=axis, made=made[-count:], objectness=objectness)


def columns_of(node: ir.Node, value: Value, columns: int) -> slice | None:
    """Which columns ``value``, made by ``node``, holds of those along that axis; None: not known."""
    if node.op_type == "Split" and node.attributes.get_int("axis", 0) % _rank(value) == columns:
        start = 0
        for output in node.outputs:
            size = output.shape[columns] if output.shape is not None else None
            if not isinstance(size, int):
                return None
            if output is value:
                return slice(start, start + size)
            start += size
    if node.op_type == "Slice":
        starts, ends, axes, steps = [_numbers(node, i) for i in (1, 2, 3, 4)]
        if starts is None or ends is None:
            return None
        for k, axis in enumerate(axes or range(len(starts))):
            if axis % _rank(value) == columns:
                return slice(starts[k], ends[k], steps[k] if steps else 1)
    return slice(None)


def _numbers(node: ir.Node, i: int) -> list[int] | None:
    array = constant(node.inputs[i]) if i < len(node.inputs) else None
    return None if array is None else [int(n) for n in array.ravel()]


def _rank(value: Value) -> int:
    assert value.shape is not None
    return len(value.shape)


def _again(op: Builder, node: ir.Node, value: Value, first: Value) -> Value:
    """``node`` once more, on another first input."""
    attributes = {name: a.value for name, a in node.attributes.items()}
    outputs = op.node(node.op_type, first, *node.inputs[1:], outputs=len(node.outputs), **attributes)
    found = outputs[list(node.outputs).index(value)]
    if found.shape is None:
        found.shape = value.shape
    return found


def _joined(op: Builder, node: ir.Node, parts: Sequence[Entries | None]) -> Entries | None:
    """A Concat of levels, or of columns: boxes beside classes."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    first = known[0]
    along = joined_axis(node)
    if any(part.axis != first.axis for part in known):
        return None
    sources = [x for x in node.inputs if x is not None]
    made: list[ir.Node | None] = []
    others = [x for part in known for x in part.others]
    if along != first.axis:
        kinds = [[m and m.op_type for m in part.made] for part in known]
        if len(known) < len(parts) or any(k != kinds[0] for k in kinds):
            return None
        made = list(first.made)
    else:
        for part, x in zip(parts, sources, strict=True):
            count = x.shape[along] if x.shape is not None else None
            if not isinstance(count, int):
                return None
            made += part.made if part is not None else [None] * count
            others += [] if part is not None else [x]
    logits = [x if part is None else part.logits for part, x in zip(parts, sources, strict=True)]
    gates = [part.objectness for part in known]
    objectness = gates[0]
    if along != first.axis and objectness is not None:
        objectness = op.Concat(*(g for g in gates if g is not None), axis=along)
    return Entries(op.Concat(*logits, axis=along), first.axis, tuple(made), tuple(others), objectness)


def _weighted(parts: Sequence[Entries | None]) -> Entries | None:
    """objectness × class, as some detectors multiply them themselves."""
    a, b = parts if len(parts) == 2 else (None, None)
    if a is None or b is None or a.axis != b.axis or None in (*a.made, *b.made):
        return None
    gate, scores = (a, b) if len(a.made) == 1 else (b, a)
    return replace(scores, objectness=gate.logits) if len(gate.made) == 1 else None


def classes(entries: Entries, nodes: Sequence[ir.Node]) -> tuple[list[int], int | None]:
    """The columns of the classes, and that of an objectness.

    An objectness is one column with a Sigmoid of its own beside those of the classes, or, where boxes and classes come
    out of one Sigmoid, the column behind the box.
    """
    groups: dict[ir.Node, list[int]] = {}
    for k, node in enumerate(entries.made):
        if node is not None:
            groups.setdefault(node, []).append(k)
    source, largest = max(groups.items(), key=lambda item: len(item[1]))
    single = [columns[0] for columns in groups.values() if columns is not largest and len(columns) == 1]
    if single or entries.objectness is not None:
        return largest, single[0] if single else None
    boxes = largest[0] == BOX and entries.made[:BOX] == (None,) * BOX and len(largest) > 1
    if boxes and any(source.outputs[0] in upstream(nodes, other) for other in entries.others):
        return largest[1:], largest[0]
    return largest, None


def ends(op: Builder, outputs: Sequence[Value]) -> list[tuple[Value, Entries]]:
    """The last values with such entries on the way to each of ``outputs``, behind which entries are only picked."""
    found: dict[Value, Entries] = {}
    seen: set[Value] = set()
    pending = list(outputs)
    while pending:
        value = pending.pop(0)
        if value in seen:
            continue
        seen.add(value)
        entries = trace(op, value)
        if entries is not None and any(entries.made):
            found[value] = entries
            continue
        node = value.producer()
        if node is not None and node.op_type in PICKING:
            pending.extend(v for v in [*node.inputs, *captured(node)] if v is not None and not v.is_initializer())
    return list(found.items())


def before_argmax(outputs: Sequence[Value]) -> tuple[Value, int] | None:
    """What an ArgMax over classes reads on the way to one of ``outputs``, and the axis of the classes."""
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
