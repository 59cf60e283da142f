"""The rule of RoiAlign. Boxes steer where the image is read; as in torchvision, no gradient flows to them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import vjp
from onnx_gradcam.autodiff.rules.axes import Dim, dims, one_hot, positions, vector
from onnx_gradcam.autodiff.rules.elementwise import indicator
from onnx_gradcam.autodiff.rules.scatter import put_elements
from onnx_gradcam.autodiff.rules.taps import Samples, Tap, as_float, linear, narrow, widen
from onnx_gradcam.graph.builder import LOWEST, Builder, Value


@dataclass(frozen=True)
class BoxSamples:
    """The samples of R boxes along one axis, S for each of P cells.

    Attributes:
        place: where each sample lies (R, P, S).
        exists: 1 where it exists, else 0.
        inside: 1 where it lies on the image, else 0.
        count: the number of samples of a cell (R, 1, 1) or (1).
        size: the length of the axis.
    """

    place: Value
    exists: Value
    inside: Value
    count: Value
    size: Dim


@vjp("RoiAlign", wrt=0)
def roi_align(
    op: Builder,
    g: Value,
    y: Value,
    X: Value,
    rois: Value,
    batch_indices: Value,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Value:
    """y = mean or maximum of samples in every cell of a box:  x̄ = Aᵀ g B, the samples' weights by row and column."""
    wide, boxes = widen(op, g), widen(op, rois)
    half = coordinate_transformation_mode == "half_pixel"
    rows, columns = (
        _box_samples(op, boxes, k, spatial_scale, cells, sampling_ratio, size, half=half)
        for k, cells, size in ((1, output_height, dims(X)[2]), (0, output_width, dims(X)[3]))
    )
    back = _average if mode == "avg" else _maximum
    return narrow(op, back(op, wide, widen(op, X), batch_indices, rows, columns), X)


def _box_samples(
    op: Builder, boxes: Value, k: int, scale: float, cells: int, ratio: int, size: Dim, *, half: bool
) -> BoxSamples:
    """Return the samples along coordinate ``k`` of the boxes (x₁, y₁, x₂, y₂)."""

    def const(value: object) -> Value:
        return op.const(value, like=boxes)

    def edge(column: int) -> Value:
        scaled = op.Mul(op.Gather(boxes, op.ints(column), axis=1), const(scale))
        return op.Unsqueeze(op.Sub(scaled, const(0.5)) if half else scaled, op.ints(2))

    first = edge(k)
    extent = op.Sub(edge(k + 2), first)
    if not half:
        extent = op.Clip(extent, const(1))
    cell = op.Div(extent, const(cells))
    if ratio > 0:
        count, number = const([ratio]), const(np.arange(ratio))
    else:
        count = op.Ceil(cell)
        most = op.ReduceMax(op.Concat(const([1]), op.Reshape(count, op.ints(-1)), axis=0), op.ints(0), keepdims=0)
        zero, one = op.array(np.array(0)), op.array(np.array(1))
        number = op.Cast(op.Range(zero, op.Cast(most, to=ir.DataType.INT64), one), to=boxes.dtype)
    step = op.Div(cell, op.Clip(count, const(1)))
    start = op.Add(first, op.Mul(cell, const(np.arange(cells)[:, None])))
    place = op.Add(start, op.Mul(step, op.Add(number, const(0.5))))
    exists = indicator(op, op.Less(number, count), like=boxes)
    length = as_float(op, size, boxes)
    outside = op.Add(
        indicator(op, op.Less(place, const(-1)), like=boxes), indicator(op, op.Greater(place, length), like=boxes)
    )
    on_image = op.Clip(place, const(0), op.Sub(length, const(1)))
    return BoxSamples(on_image, exists, op.Sub(const(1), outside), count, size)


def _average(op: Builder, g: Value, x: Value, batch: Value, rows: BoxSamples, columns: BoxSamples) -> Value:
    """Write x̄(b, c) = Σ Aᵀ g(r, c) B over the boxes r of image b: two products of matrices, without a scatter."""
    down, across = _weights(op, rows), _weights(op, columns)  # (R, P, H), (R, Q, W)
    spread = op.MatMul(g, op.Unsqueeze(across, op.ints(1)))  # (R, C, P, W)
    flat = op.Reshape(op.Transpose(spread, perm=[0, 2, 1, 3]), _product_shape(op, x, [1, 3], first=-1))
    hit = op.Transpose(one_hot(op, batch, dims(x)[0], like=g), perm=[1, 0])  # (N, R)
    own = op.Mul(op.Unsqueeze(hit, op.ints(2, 3)), down)  # (N, R, P, H)
    own = op.Reshape(op.Transpose(own, perm=[0, 3, 1, 2]), vector(op, [dims(x)[0], dims(x)[2], -1]))
    total = op.Reshape(op.MatMul(own, flat), vector(op, [dims(x)[k] for k in (0, 2, 1, 3)]))
    return op.Transpose(total, perm=[0, 2, 1, 3])


def _weights(op: Builder, line: BoxSamples) -> Value:
    """Write how much each element of the axis counts in the mean of each cell (R, P, size)."""
    one = op.const(1, like=line.place)
    element = op.Cast(positions(op, line.size), to=line.place.dtype)
    distance = op.Abs(op.Sub(op.Unsqueeze(line.place, op.ints(3)), element))
    weight = op.Clip(op.Sub(one, distance), op.const(0, like=one))
    counted = op.Mul(weight, op.Unsqueeze(op.Mul(line.exists, line.inside), op.ints(3)))
    return op.Div(op.ReduceSum(counted, op.ints(2), keepdims=0), op.Clip(line.count, one))


def _product_shape(op: Builder, x: Value, axes: list[int], first: int) -> Value:
    """Write the shape (first, product of the lengths of ``axes``)."""
    product = functools.reduce(op.Mul, [vector(op, [dims(x)[k]]) for k in axes])
    return op.Concat(op.ints(first), product, axis=0)


def _maximum(op: Builder, g: Value, x: Value, batch: Value, rows: BoxSamples, columns: BoxSamples) -> Value:
    """Write x̄, which gets g · w of the first sample's element whose w · x is the maximum.

    onnxruntime does not add the four elements around a sample up. All boxes are taken as one: their cells are the
    places (1, R·P·Q·samples), and the image is an axis of its own.
    """
    image = op.Transpose(x, perm=[1, 0, 2, 3])
    image = op.Reshape(image, op.Concat(op.ints(1), vector(op, [dims(x)[1]]), op.ints(-1), axis=0))
    down, across = op.Unsqueeze(rows.place, op.ints(2, 4)), op.Unsqueeze(columns.place, op.ints(1, 3))
    inside = op.Mul(op.Unsqueeze(rows.inside, op.ints(2, 4)), op.Unsqueeze(columns.inside, op.ints(1, 3)))
    own_row, own_column = (op.Expand(line.exists, op.Shape(line.place)) for line in (rows, columns))
    exists = op.Mul(op.Unsqueeze(own_row, op.ints(2, 4)), op.Unsqueeze(own_column, op.ints(1, 3)))
    full, line = op.Shape(exists), op.ints(1, -1)  # (R, P, Q, S, S')

    def flat(value: Value) -> Value:
        return op.Reshape(op.Expand(value, full), line)

    inside, exists = flat(inside), flat(exists)
    own = op.Unsqueeze(op.Cast(batch, to=ir.DataType.INT64), op.ints(1, 2, 3, 4))
    axes = [
        [Tap(flat(own), inside, None)],
        *(
            linear(op, flat(place), as_float(op, along.size, g), outside=True)
            for place, along in ((down, rows), (across, columns))
        ),
    ]
    samples = Samples(axes, [dims(x)[0], dims(x)[2], dims(x)[3]])
    channels = vector(op, [dims(x)[1]])
    wide = op.Concat(op.ints(1), channels, op.Slice(op.Shape(exists), op.ints(1), op.ints(2)), axis=0)
    terms, weights, indices = [], [], []
    for (index, taps), (element, _) in zip(samples.each(op), samples.read(op, image, wide), strict=True):
        weight = op.Unsqueeze(functools.reduce(op.Mul, [t.weight for t in taps]), op.ints(1))
        absent = op.Mul(op.Sub(op.const(1, like=g), exists), op.const(LOWEST, like=g))
        terms.append(op.Add(op.Mul(op.Mul(element, weight), op.Unsqueeze(exists, op.ints(1))), absent))
        weights.append(weight)
        indices.append(index)
    number = op.Mul(op.Mul(op.Gather(full, op.ints(3)), op.Gather(full, op.ints(4))), op.ints(4))
    cells = op.Concat(channels, op.Slice(full, op.ints(0), op.ints(3)), number, axis=0)

    def by_cell(parts: list[Value]) -> Value:
        """Write the parts by cell (C, R, P, Q, samples · 4)."""
        stacked = op.Concat(*[op.Unsqueeze(op.Expand(part, wide), op.ints(3)) for part in parts], axis=3)
        return op.Reshape(stacked, cells, allowzero=1)  # there may be no boxes

    term, weight, index = by_cell(terms), by_cell(weights), by_cell(indices)
    share = op.Unsqueeze(op.Transpose(g, perm=[1, 0, 2, 3]), op.ints(4))
    peak = op.ReduceMax(term, op.ints(4), keepdims=1)  # not y, whose last bit may be another
    hit = op.Mul(indicator(op, op.Equal(term, peak), like=g), _descending(op, term))
    first = op.Mul(
        indicator(op, op.Equal(hit, op.ReduceMax(hit, op.ints(4), keepdims=1)), like=g),
        indicator(op, op.Greater(peak, op.const(LOWEST / 2, like=g)), like=g),
    )
    updates = op.Reshape(op.Mul(op.Mul(share, first), weight), op.ints(0, -1))
    table = op.Expand(op.const(0, like=g), op.Slice(op.Shape(image), op.ints(1), op.ints(3)))
    total = put_elements(op, table, op.Reshape(index, op.ints(0, -1)), updates, 1, "add")
    return op.Transpose(op.Reshape(total, vector(op, [dims(x)[k] for k in (1, 0, 2, 3)])), perm=[1, 0, 2, 3])


def _descending(op: Builder, terms: Value) -> Value:
    """Write n, n − 1, … 1 along the last axis."""
    n = op.Gather(op.Shape(terms), op.array(np.array(4)))
    zero, step = op.array(np.array(0)), op.array(np.array(-1))
    return op.Cast(op.Range(n, zero, step), to=terms.dtype)
