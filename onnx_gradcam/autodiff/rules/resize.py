"""The rule of Resize. Along one axis it is a matrix, so its gradient is a product with that matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onnx_gradcam.autodiff.registry import Refused, Unwritten, vjp
from onnx_gradcam.autodiff.rules.axes import contract, dims, length, vector
from onnx_gradcam.autodiff.rules.elementwise import indicator
from onnx_gradcam.graph.builder import Builder, Value, ints_of, rank
from onnx_gradcam.graph.constants import constant

WHOLE = (0.0, 1.0)  # the region of an axis that is not cropped
PROBE = 5  # a length that shows whether a Resize only repeats elements


@vjp("Resize", wrt=0)
def resize(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    roi: Value | None = None,
    scales: Value | None = None,
    sizes: Value | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Value:
    """y = A x along every axis:  x̄ = Aᵀ g, axis by axis; where A only repeats elements, an AveragePool sums them."""
    form: dict[str, Any] = {
        "antialias": antialias,
        "coordinate_transformation_mode": coordinate_transformation_mode,
        "cubic_coeff_a": cubic_coeff_a,
        "exclude_outside": exclude_outside,
        "mode": mode,
        "nearest_mode": nearest_mode,
    }
    along = [k % rank(x) for k in axes or range(rank(x))]
    regions = _regions(roi, len(along)) if coordinate_transformation_mode == "tf_crop_and_resize" else {}
    factors = _factors(x, y, along, scales, sizes, keep_aspect_ratio_policy)
    lengths = [(length(x, k), length(y, k)) for k in along]
    kept = [scale == 1 or (n is not None and n == count) for scale, (n, count) in zip(factors, lengths, strict=True)]
    if all(kept):
        return g  # onnxruntime copies x then, whatever the scales and the region are
    changes = any(n is not None and count is not None and n != count for n, count in lengths)
    times = [1] * (rank(x) - 2)
    matrices: dict[int, Value] = {}
    for i, k in enumerate(along):
        scale, region, (size, count) = factors[i], regions.get(i, WHOLE), lengths[i]
        if scale == 1 and region == WHOLE:
            continue
        if kept[i] and (antialias or not changes):
            raise Unwritten("a scale that leaves the length as it was beside axes of unknown length or antialiased,")
        if scale is not None and k > 1 and region == WHOLE and _repeats(scale, form):
            times[k - 2] = int(scale)
        elif scale is not None and size is not None and count is not None and not antialias:
            matrices[k] = op.const(resize_matrix(size, count, scale, region, **_without_antialias(form)), like=g)
        else:
            by_scale = sizes is None and scales is not None
            if keep_aspect_ratio_policy != "stretch":
                raise Unwritten("keep_aspect_ratio_policy with antialias, or for an image of unknown size,")
            given = op.Gather(scales, op.ints(i)) if by_scale else None
            matrices[k] = _matrix_at_run_time(op, y, x, k, given, region, form)
    if max(times, default=1) > 1:
        g = op.Mul(op.AveragePool(g, kernel_shape=times, strides=times), op.const(math.prod(times), like=g))
    for k, matrix in matrices.items():
        g = contract(op, g, matrix, k)
    return g


def _without_antialias(form: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in form.items() if name != "antialias"}


def _factors(
    x: Value, y: Value, along: Sequence[int], scales: Value | None, sizes: Value | None, policy: str
) -> list[float | None]:
    """The scale of each resized axis, None where it is known at run time only."""
    if sizes is None:
        given = constant(scales)
        return [None] * len(along) if given is None else [float(scale) for scale in given]
    lengths = [(length(x, k), length(y, k)) for k in along]
    wanted = ints_of(sizes)
    if policy != "stretch":  # the smallest or largest ratio holds for all axes
        known = [n for n, _ in lengths if n]
        if wanted is None or len(known) < len(along):
            return [None] * len(along)
        ratios = [np.float32(count) / np.float32(n) for count, n in zip(wanted, known, strict=True)]
        return [float(min(ratios) if policy == "not_larger" else max(ratios))] * len(along)
    return [count / n if n and count else None for n, count in lengths]


def _regions(roi: Value | None, count: int) -> dict[int, tuple[float, float]]:
    """Start and end of the part of each axis that is resized, as fractions of it."""
    given = constant(roi)
    if given is None:
        raise Refused("tf_crop_and_resize with a region that is not constant")
    return {i: (float(given[i]), float(given[count + i])) for i in range(count)}


def _repeats(scale: float, form: Mapping[str, Any]) -> bool:
    """Whether y is every element of x, ``scale`` times in a row."""
    if scale != int(scale) or form["mode"] != "nearest":
        return False
    matrix = resize_matrix(PROBE, PROBE * int(scale), scale, **_without_antialias(form))
    return np.array_equal(matrix, np.repeat(np.eye(PROBE), int(scale), axis=0))


def _matrix_at_run_time(
    op: Builder,
    y: Value,
    x: Value,
    k: int,
    scale: Value | None,
    region: tuple[float, float],
    form: Mapping[str, Any],
) -> Value:
    """The matrix of an antialiased Resize, or of a length that is not known before the run: what it makes of the
    identity."""
    size = vector(op, [dims(x)[k]])
    zero, one = op.array(np.array(0)), op.array(np.array(1))
    row = op.Unsqueeze(op.Range(zero, op.Squeeze(size, op.ints(0)), one), op.ints(0, 1, 2))
    identity = indicator(op, op.Equal(row, op.Transpose(row, perm=[0, 1, 3, 2])), like=x)
    roi = None if region == WHOLE else op.array(np.array([0, 0, region[0], 0, 1, 1, region[1], 1], np.float32))
    if form["coordinate_transformation_mode"] == "tf_crop_and_resize" and roi is None:
        roi = op.array(np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32))
    if scale is None:
        sizes = op.Concat(op.ints(1, 1), vector(op, [dims(y)[k]]), size, axis=0)
        return op.Squeeze(op.Resize(identity, roi, None, sizes, **form), op.ints(0, 1))
    ones = [op.array(np.ones(n, np.float32)) for n in (2, 1)]
    scales = op.Concat(ones[0], scale, ones[1], axis=0)
    return op.Squeeze(op.Resize(identity, roi, scales, **form), op.ints(0, 1))


def resize_matrix(
    size: int,
    count: int,
    scale: float,
    region: tuple[float, float] = WHOLE,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> np.ndarray:
    """Resize along one axis, from ``size`` to ``count`` elements, as a float64 matrix (count, size).

    The formulas are the ONNX specification's. ``region``: what tf_crop_and_resize takes of the axis.
    """
    kind = np.float32 if mode == "nearest" else np.float64  # a rounding decides which element is the nearest
    place = _places(size, count, scale, region, coordinate_transformation_mode, kind)
    inside = (place >= 0) & (place <= size - 1)
    if mode == "nearest":
        place = ROUNDINGS[nearest_mode](place)
    if mode != "cubic":
        place = np.clip(place, 0, size - 1)
    low = np.floor(place).astype(int)
    t = place - low
    weights = _cubic(t, cubic_coeff_a) if mode == "cubic" else np.stack([1 - t, t], axis=1)
    taps = low[:, None] + (np.arange(-1, 3) if mode == "cubic" else np.arange(2))
    if exclude_outside:
        weights = weights * ((taps >= 0) & (taps < size))
        weights = weights / weights.sum(axis=1, keepdims=True)
    if coordinate_transformation_mode == "tf_crop_and_resize":
        weights = weights * inside[:, None]  # elsewhere y is the extrapolation_value, a constant
    matrix = np.zeros((count, size))
    np.add.at(matrix, (np.arange(count)[:, None], np.clip(taps, 0, size - 1)), weights)
    return matrix


HALF_WAY = 0.5 + 1e-6  # what lies half-way between two elements is decided with this tolerance, as ONNX Runtime does

ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda place: np.ceil(place - HALF_WAY),
    "round_prefer_ceil": lambda place: np.floor(place + HALF_WAY),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _places(
    size: int, count: int, scale: float, region: tuple[float, float], transformation: str, kind: type[np.floating]
) -> np.ndarray:
    """Where in x each element of y is read (count,)."""
    i, step, half = np.arange(count, dtype=kind), kind(scale), kind(0.5)
    places: np.ndarray = (i + half) / step - half
    if transformation == "asymmetric":
        places = i / step
    elif transformation == "align_corners":
        places = i * kind(size - 1) / kind(max(count - 1, 1))
    elif transformation == "pytorch_half_pixel" and count == 1:
        places = np.zeros(1)
    elif transformation == "half_pixel_symmetric":
        offset = kind(size) * half * (1 - kind(count) / (step * kind(size)))  # for what rounding cut off the length
        places = (float(offset) + (np.arange(count) + 0.5) / float(step) - 0.5).astype(kind)  # as onnxruntime rounds
    elif transformation == "tf_crop_and_resize":
        start, end = kind(region[0]), kind(region[1])
        places = half * (start + end) * kind(size - 1) + 0 * i
        if count > 1:
            places = start * kind(size - 1) + i * (end - start) * kind(size - 1) / kind(count - 1)
    return places.astype(np.float64)


def _cubic(t: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution, 1981: the weights of the elements at −1, 0, 1 and 2 for a place t in [0, 1)."""

    far = np.stack([t + 1, 2 - t])
    near = np.stack([t, 1 - t])
    far = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    near = ((a + 2) * near - (a + 3)) * near * near + 1
    return np.stack([far[0], near[0], near[1], far[1]], axis=1)
