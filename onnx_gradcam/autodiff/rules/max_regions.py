"""The rule of MaxRoiPool. Boxes steer which cells are read; no gradient flows to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import vjp
from onnx_gradcam.autodiff.rules.axes import Dim, dims, one_hot, positions, reshape_like, vector
from onnx_gradcam.autodiff.rules.elementwise import indicator, sign
from onnx_gradcam.autodiff.rules.taps import narrow, widen
from onnx_gradcam.graph.builder import LOWEST, Builder, Value


@vjp("MaxRoiPool", wrt=0)
def max_roi_pool(
    op: Builder, g: Value, y: Value, X: Value, rois: Value, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0
) -> Value:
    """y = maximum of every cell of a box:  x̄ gets g at the first one, the first row that holds it and its first place.

    As for MaxPool, rows are pooled first, then the columns of the result.
    """
    boxes, image = widen(op, rois), widen(op, X)
    down, across = (
        _cells(op, boxes, k, pooled_shape[1 - k], spatial_scale, dims(X)[3 - k]) for k in (1, 0)
    )  # (R, P, H), (R, Q, W)
    number = op.Cast(op.Squeeze(op.Gather(boxes, op.ints(0), axis=1), op.ints(1)), to=ir.DataType.INT64)
    low = op.const(LOWEST, like=image)
    own = op.Unsqueeze(op.Gather(image, number, axis=0), op.ints(3))
    by_column = op.Where(op.Unsqueeze(across, op.ints(1, 2)), own, low)  # (R, C, H, Q, W)
    peaks = op.ReduceMax(by_column, op.ints(4), keepdims=1)
    by_row = op.Where(op.Unsqueeze(down, op.ints(1, 4)), op.Unsqueeze(op.Squeeze(peaks, op.ints(4)), op.ints(2)), low)
    peak = op.ReduceMax(by_row, op.ints(3), keepdims=1)  # (R, C, P, 1, Q)
    filled = indicator(op, op.Greater(peak, op.const(LOWEST / 2, like=image)), like=image)
    share = op.Mul(op.Unsqueeze(widen(op, g), op.ints(3)), filled)
    share = op.ReduceSum(op.Mul(share, _first(op, by_row, peak, 3, dims(X)[2])), op.ints(2), keepdims=0)
    share = op.Mul(op.Unsqueeze(share, op.ints(4)), _first(op, by_column, peaks, 4, dims(X)[3]))
    by_box = op.ReduceSum(share, op.ints(3), keepdims=0)  # (R, C, H, W)
    size = op.Mul(op.Mul(vector(op, [dims(X)[1]]), vector(op, [dims(X)[2]])), vector(op, [dims(X)[3]]))
    rows = op.Reshape(by_box, op.Concat(op.Shape(by_box, end=1), size, axis=0), allowzero=1)  # there may be no boxes
    images = op.Transpose(one_hot(op, number, dims(X)[0], like=image), perm=[1, 0])
    return reshape_like(op, narrow(op, op.MatMul(images, rows), X), X)


def _cells(op: Builder, boxes: Value, k: int, count: int, scale: float, size: Dim) -> Value:
    """Write whether an element of the axis lies in a cell of a box (image, x₁, y₁, x₂, y₂): (R, count, size)."""

    def const(value: object) -> Value:
        return op.const(value, like=boxes)

    first, last = (
        _round(op, op.Mul(op.Gather(boxes, op.ints(column), axis=1), const(scale))) for column in (1 + k, 3 + k)
    )
    cell = op.Div(op.Clip(op.Add(op.Sub(last, first), const(1)), const(1)), const(count))
    start = op.Add(op.Floor(op.Mul(cell, const(np.arange(count)))), first)
    end = op.Add(op.Ceil(op.Mul(cell, const(np.arange(1, count + 1)))), first)
    element = op.Cast(positions(op, size), to=boxes.dtype)
    before = indicator(op, op.Less(element, op.Unsqueeze(start, op.ints(2))), like=boxes)
    within = indicator(op, op.Less(element, op.Unsqueeze(end, op.ints(2))), like=boxes)
    return op.Greater(within, before)


def _round(op: Builder, x: Value) -> Value:
    """Write x rounded to whole numbers, half-way places away from zero."""
    return op.Mul(sign(op, x), op.Floor(op.Add(op.Abs(x), op.const(0.5, like=x))))


def _first(op: Builder, values: Value, peak: Value, axis: int, size: Dim) -> Value:
    """Write 1 at the first place along ``axis`` where ``values`` is ``peak``: of places numbered n … 1 the highest."""
    hit = indicator(op, op.Equal(values, peak), like=values)
    number = op.Cast(op.Sub(vector(op, [size]), positions(op, size)), to=values.dtype)
    numbered = op.Mul(hit, op.Unsqueeze(number, op.ints(*range(1, 5 - axis))) if axis < 4 else number)
    highest = op.ReduceMax(numbered, op.ints(axis), keepdims=1)
    return op.Mul(hit, indicator(op, op.Equal(numbered, highest), like=values))
