"""The rules of GridSample, which reads an image at places that another tensor holds."""

from __future__ import annotations

import functools

import numpy as np

from onnx_gradcam.autodiff.registry import vjp
from onnx_gradcam.autodiff.rules.axes import dims, reshape_like
from onnx_gradcam.autodiff.rules.elementwise import indicator
from onnx_gradcam.autodiff.rules.taps import Samples, Tap, as_float, linear, narrow, tap, widen
from onnx_gradcam.graph.builder import Builder, Value, rank

CUBIC_A = -0.75  # Keys' parameter, as onnxruntime and torch have it


@vjp("GridSample", wrt=0)
def grid_sample_x(
    op: Builder,
    g: Value,
    y: Value,
    X: Value,
    grid: Value,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Value:
    """y(o) = Σ w(o, i) · x(i) around the place grid(o):  x̄(i) = Σ w(o, i) · g(o)."""
    samples, _ = _samples(op, X, grid, align_corners, mode, padding_mode)
    return samples.add_back(op, op.Reshape(g, op.ints(0, 0, -1)), X)


@vjp("GridSample", wrt=1)
def grid_sample_grid(
    op: Builder,
    g: Value,
    y: Value,
    X: Value,
    grid: Value,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Value:
    """The grid's cotangent at o is Σ g(o) · x(i) · ∂w(o, i)/∂grid(o); 0 where the nearest element is read."""
    if mode == "nearest":
        return op.Mul(grid, op.const(0, like=grid))
    samples, steps = _samples(op, X, grid, align_corners, mode, padding_mode)
    wide, image = (widen(op, op.Reshape(v, op.ints(0, 0, -1))) for v in (g, X))
    by_axis = [op.Mul(slope, step) for slope, step in zip(samples.slopes(op, wide, image), steps, strict=True)]
    columns = [op.Unsqueeze(slope, op.ints(2)) for slope in reversed(by_axis)]  # the grid has the last axis first
    return reshape_like(op, narrow(op, op.Concat(*columns, axis=2), grid), grid)


def _samples(
    op: Builder, x: Value, grid: Value, align_corners: int, mode: str, padding: str
) -> tuple[Samples, list[Value]]:
    """Return the taps of all places, and ∂place/∂grid for each axis."""
    n, wide = rank(x) - 2, widen(op, grid)
    sizes = dims(x)[2:]
    axes, steps = [], []
    for k, dim in enumerate(sizes):
        size = as_float(op, dim, wide)
        column = op.Gather(wide, op.array(np.array(n - 1 - k)), axis=-1)
        place, step = _place(op, op.Reshape(column, op.ints(0, -1)), size, align_corners)
        if mode in ("cubic", "bicubic"):
            axes.append(_cubic(op, place, size, align_corners, padding))
            steps.append(step)
            continue
        if mode == "nearest":
            place = op.Round(place)
        place, slope = _move_inside(op, place, size, align_corners, padding)
        steps.append(step if slope is None else op.Mul(step, slope))
        outside = padding != "zeros"
        if mode == "nearest":
            ones = op.Expand(op.const(1, like=place), op.Shape(place))
            axes.append([tap(op, place, ones, None, size, outside=outside)])
        else:
            axes.append(linear(op, place, size, outside=outside))
    return Samples(axes, sizes), steps


def _place(op: Builder, grid: Value, size: Value, align_corners: int) -> tuple[Value, Value]:
    """Write [−1, 1] stretched over the axis, to its outer elements' centres or edges, and the derivative."""
    one, half = op.const(1, like=grid), op.const(0.5, like=grid)
    if align_corners:
        step = op.Mul(op.Sub(size, one), half)
        return op.Mul(op.Add(grid, one), step), step
    step = op.Mul(size, half)
    return op.Sub(op.Mul(op.Add(grid, one), step), half), step


def _move_inside(
    op: Builder, place: Value, size: Value, align_corners: int, padding: str
) -> tuple[Value, Value | None]:
    """Write where padding sends a place, and the derivative, which is 0 from the outer elements on (torch)."""
    if padding == "zeros":
        return place, None
    slope = None
    if padding == "reflection":
        place, slope = _reflect(op, place, size, align_corners)
    zero, last = op.const(0, like=place), op.Sub(size, op.const(1, like=place))
    inside = op.Mul(indicator(op, op.Greater(place, zero), like=place), indicator(op, op.Less(place, last), like=place))
    return op.Clip(place, zero, last), inside if slope is None else op.Mul(slope, inside)


def _reflect(op: Builder, place: Value, size: Value, align_corners: int) -> tuple[Value, Value]:
    """Write a place mirrored until it lies between the outer elements' centres or edges, and the derivative.

    The derivative is 1 or −1.
    """
    one = op.const(1, like=place)
    low, length = (op.const(0, like=place), op.Sub(size, one)) if align_corners else (op.const(-0.5, like=place), size)
    period = op.Clip(op.Mul(length, op.const(2, like=place)), one)  # an axis of one element has the length 0
    way = op.Sub(place, low)
    way = op.Sub(way, op.Mul(period, op.Floor(op.Div(way, period))))
    back = op.Sub(way, length)  # > 0 on the way back
    mirrored = op.Add(op.Sub(length, op.Abs(back)), low)
    return mirrored, op.Sub(
        indicator(op, op.Less(back, op.const(0, like=place)), like=place),
        indicator(op, op.Greater(back, op.const(0, like=place)), like=place),
    )


def _cubic(op: Builder, place: Value, size: Value, align_corners: int, padding: str) -> list[Tap]:
    """Return taps at the four elements around each place; padding moves each of them."""
    low = op.Floor(place)
    t = op.Sub(place, low)
    taps = []
    for k in (-1, 0, 1, 2):
        distance = op.Sub(t, op.const(k, like=t)) if k <= 0 else op.Sub(op.const(k, like=t), t)
        weight, slope = _keys(op, distance, far=k in (-1, 2))
        index = op.Add(low, op.const(k, like=t))
        if padding == "reflection":
            index, _ = _reflect(op, index, size, align_corners)
            index = op.Round(index)
        taps.append(tap(op, index, weight, slope if k <= 0 else op.Neg(slope), size, outside=padding != "zeros"))
    return taps


def _keys(op: Builder, d: Value, *, far: bool) -> tuple[Value, Value]:
    """Write the weight of an element at distance d, and its derivative: Keys' cubic convolution, 1981."""
    a = CUBIC_A
    terms = (a, -5 * a, 8 * a, -4 * a) if far else (a + 2, -(a + 3), 0, 1)
    return _polynomial(op, d, terms), _polynomial(op, d, (3 * terms[0], 2 * terms[1], terms[2]))


def _polynomial(op: Builder, d: Value, terms: tuple[float, ...]) -> Value:
    first, *rest = [op.const(term, like=d) for term in terms]
    return functools.reduce(lambda sum_, term: op.Add(op.Mul(sum_, d), term), rest, first)
