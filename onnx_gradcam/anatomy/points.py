"""Coordinates of points: a row of numbers from a linear layer that is returned as (N, points, 2 or 3)."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnx_gradcam.anatomy.natures import FUNCTIONS, VALUES, Nature
from onnx_gradcam.anatomy.vectors import PASSED_OVER, Batches, Vector, describe
from onnx_gradcam.anatomy.wording import CLASS_WORDS, word_in
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.operators import PRODUCTS

COORDINATES = (2, 3)
LINEAR = PRODUCTS | {"Add"}
ELEMENTWISE = FUNCTIONS | {"Add", "Div", "Mul", "Sub"}


def row_of_points(output: ir.Value, batches: Batches) -> Vector | None:
    """Return the row of numbers that an output holds as points; None where it holds something else.

    What lies between is only reshaped, and each number by itself shifted, scaled or squashed.
    """
    count, length = _lengths(output)
    if count < 2 or length not in COORDINATES or word_in((output.name or "",), CLASS_WORDS).word:
        return None
    for value in _before(output):
        row, node = describe(value, "", output.name or "", batches), value.producer()
        is_whole = row is not None and row.class_axis is not None and row.count == count * length
        if is_whole and node is not None and node.op_type in LINEAR:
            return row
    return None


def _lengths(output: ir.Value) -> tuple[int, int]:
    """Return the number of points and of their coordinates; (0, 0) where the output does not tell."""
    lengths = [d for d in list(output.shape or ())[1:] if isinstance(d, int)]
    return (lengths[0], lengths[1]) if len(lengths) == 2 and len(output.shape or ()) == 3 else (0, 0)


def nature_of_points(output: ir.Value) -> Nature:
    """Return what the numbers of an output are for which ``row_of_points`` has a row."""
    count, length = _lengths(output)
    return Nature(
        VALUES,
        f"{count} points of {length} coordinates, from one linear layer, which makes them row by row: number K is "
        f"coordinate K mod {length} of point K div {length}",
    )


def _before(value: ir.Value) -> Iterator[ir.Value]:
    """Yield what a value was made of by operators that leave each number in its place, the nearest first."""
    while (node := value.producer()) is not None:
        data = [v for v in node.inputs if v is not None and constant(v) is None]
        is_moved = node.op_type in PASSED_OVER and node.op_type != "Transpose"
        if not data or not (is_moved or (node.op_type in ELEMENTWISE and len(data) == 1)):
            return
        value = data[0]
        yield value
