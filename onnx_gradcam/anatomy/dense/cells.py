"""The levels that the cells of a dense output lie on: pixels, anchors, steps in time."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.anatomy.axes import joined_axis
from onnx_gradcam.anatomy.dense.tensors import Joined, Tensor, joined_values, source_axis, step_back
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.operators import IN_PLACE, JOINS


@dataclass(frozen=True, eq=False)
class Level:
    """A level: the part of a tensor that holds its cells.

    Attributes:
        tensor: the part.
        cells: its axis of the cells.
        columns: its axis of the columns.
        column: the number of the first column.
    """

    tensor: Tensor
    cells: int
    columns: int
    column: int = 0

    def origin(self) -> Tensor:
        """Return what a convolution or linear layer made of the column, before it was moved and joined."""
        tensor, axis, column = self.tensor, self.columns, self.column
        while (back := step_back(tensor, axis, column)) is not None:
            tensor, axis, column = back
        return tensor


def levels(
    tensor: Tensor, cells: int = 2, columns: int = 1, column: int = 0, through_arithmetic: bool = False
) -> tuple[Level, ...]:
    """Return the parts that are joined along the axis of the cells; none where nothing is.

    Args:
        tensor: the tensor.
        cells: its axis of the cells.
        columns: its axis of the columns.
        column: the number of the column that is followed.
        through_arithmetic: also follow the arithmetic by which numbers become boxes.
    """
    if parts := _joined_along(tensor, cells):
        return tuple(Level(part, cells, columns, column) for part in parts)
    back = step_back(tensor, columns, column)
    if back is not None:
        before, axis, column = back
        along = source_axis(tensor, before, cells)
        return () if along is None else levels(before, along, axis, column, through_arithmetic)
    decoded = _decoded_from(tensor) if through_arithmetic else None
    return () if decoded is None else levels(decoded, cells, columns, column, through_arithmetic)


def _joined_along(tensor: Tensor, axis: int) -> tuple[Tensor, ...]:
    """Return the parts that are joined to a tensor along ``axis``; none where it is not joined so."""
    if isinstance(tensor, Joined):
        return tensor.parts if tensor.axis == axis else ()
    node = tensor.producer() if isinstance(tensor, ir.Value) else None
    if node is None or node.op_type not in JOINS or joined_axis(node) != axis:
        return ()
    return tuple(joined_values(node))


def _decoded_from(tensor: Tensor) -> ir.Value | None:
    """Return what elementwise arithmetic was done to; of two operands (centre − half the size) the first."""
    node = tensor.producer() if isinstance(tensor, ir.Value) else None
    varying = [v for v in node.inputs if v is not None and constant(v) is None] if node is not None else []
    return varying[0] if node is not None and node.op_type in IN_PLACE and varying else None
