"""The cells of a model with many scores per image: pixels, anchors, steps in time; and the levels that they lie on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.axes import IN_PLACE, axis_before, joined_axis
from onnx_gradcam.anatomy.dense import heads
from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.constants import constant


class Part(NamedTuple):
    """A level: a value, its axes of the cells and of the columns, and the column of the first class."""

    value: Value
    cells: int
    classes: int
    column: int

    def origin(self) -> Value:
        """What a convolution or linear layer made of the column, before it was moved and joined."""
        value, axis, column = self.value, self.classes, self.column
        while (back := heads.step_back(value, axis, column)) is not None:
            value, axis, column = back
        return value


def levels(value: Value, cells: int, classes: int, column: int = 0, decoded: bool = False) -> tuple[Part, ...]:
    """The parts that are joined along the axis of the cells; none where nothing is.

    ``decoded``: also through the arithmetic by which numbers become boxes.
    """
    node = value.producer()
    if node is not None and node.op_type == "Concat" and joined_axis(node) == cells:
        return tuple(Part(v, cells, classes, column) for v in node.inputs if v is not None)
    back = heads.step_back(value, classes, column)
    if node is not None and back is None and decoded and (source := _decoded_from(node)) is not None:
        return levels(source, cells, classes, column, decoded)
    if node is None or back is None:
        return ()
    source, axis, column = back
    along = axis_before(node, source, cells)
    return () if along is None else levels(source, along, axis, column, decoded)


def _decoded_from(node: ir.Node) -> Value | None:
    """What elementwise arithmetic was done to; of two operands (centre − half the size) the first."""
    varying = [v for v in node.inputs if v is not None and constant(v) is None]
    return varying[0] if node.op_type in IN_PLACE and varying else None


def level_of(op: Builder, place: Value, parts: Sequence[Part]) -> Value:
    """Which of the parts a place (N, K, 1) lies in."""
    zero = op.Mul(place, op.ints(0))
    if len(parts) == 1:
        return zero
    counts = [op.Gather(op.shape_of(part.value), op.ints(part.cells)) for part in parts]
    total = op.Concat(*counts, axis=0)
    level, start = zero, None
    for k in range(len(parts) - 1):
        start = op.Gather(total, op.ints(k)) if start is None else op.Add(start, op.Gather(total, op.ints(k)))
        level = op.Add(level, op.Cast(op.GreaterOrEqual(place, start), to=int(ir.DataType.INT64)))
    return level


def sides(op: Builder, grids: Sequence[Value]) -> Value:
    """(outputs, n): the lengths of the axes of the cells."""
    shapes = [op.Slice(op.shape_of(grid), op.ints(2), op.ints(rank(grid))) for grid in grids]
    return op.Concat(*(op.Unsqueeze(s, op.ints(0)) for s in shapes), axis=0)


def cell_of(op: Builder, place: Value, parts: Sequence[Part], table: Value) -> Value:
    """The index of the cell in its output, (N, K, n); the number of the output goes before it if there are several.

    ``parts``: of each output; ``table``: the ``sides`` of its cells.
    """
    level = level_of(op, place, parts)
    counts = op.ReduceProd(table, op.ints(1), keepdims=0)
    starts = op.Sub(op.CumSum(counts, op.array(np.array(0, np.int64))), counts)
    local = op.Sub(place, op.Gather(starts, level))
    lengths = op.Gather(table, op.Squeeze(level, op.ints(2)), axis=0)  # (N, K, n)
    columns: list[Value] = []
    for k in reversed(range(_width(table))):
        side = op.Slice(lengths, op.ints(k), op.ints(k + 1), op.ints(2))
        columns.insert(0, op.Mod(local, side))
        local = op.Div(local, side)
    return op.Concat(*([level] if len(parts) > 1 else []), *columns, axis=2)


def grids(op: Builder, parts: Sequence[Part]) -> Value | None:
    """(levels, 3): how many cells each level has, and the height and width of the map that they were made in.

    None where what made them is no map of two axes.
    """
    rows: list[Value] = []
    for part in parts:
        origin = part.origin()
        if origin.shape is None or len(origin.shape) != 4:
            return None
        count = op.Gather(op.shape_of(part.value), op.ints(part.cells))
        rows.append(op.Concat(count, op.Slice(op.shape_of(origin), op.ints(2), op.ints(4)), axis=0))
    return op.Concat(*(op.Unsqueeze(row, op.ints(0)) for row in rows), axis=0)


def _width(table: Value) -> int:
    assert table.shape is not None
    width = table.shape[1]
    assert isinstance(width, int)
    return width
