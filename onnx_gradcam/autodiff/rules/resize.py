"""The rule of Resize. Along one axis it is a matrix, so its gradient is a product with that matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onnx_gradcam.autodiff.registry import Unwritten, vjp
from onnx_gradcam.autodiff.rules.axes import contract, dims, length, vector
from onnx_gradcam.autodiff.rules.elementwise import indicator
from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.constants import constant

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
    if antialias or keep_aspect_ratio_policy != "stretch" or (exclude_outside and mode != "cubic"):
        raise Unwritten("antialias, keep_aspect_ratio_policy, or exclude_outside without cubic,")
    if coordinate_transformation_mode in ("tf_crop_and_resize", "half_pixel_symmetric"):
        raise Unwritten(coordinate_transformation_mode)
    form: dict[str, Any] = {
        "coordinate_transformation_mode": coordinate_transformation_mode,
        "cubic_coeff_a": cubic_coeff_a,
        "exclude_outside": exclude_outside,
        "mode": mode,
        "nearest_mode": nearest_mode,
    }
    scale_of = None if scales is None or sizes is not None else constant(scales)
    times = [1] * (rank(x) - 2)
    matrices: dict[int, Value] = {}
    for i, k in enumerate(axes or range(rank(x))):
        k, size, count = k % rank(x), length(x, k), length(y, k)
        scale = float(scale_of[i]) if scale_of is not None else count / size if size and count else None
        if scale == 1:
            continue
        if size is not None and size == count:
            raise Unwritten("a scale that leaves the length as it was, on which the runtimes disagree,")
        if scale is not None and k > 1 and _repeats(scale, form):
            times[k - 2] = int(scale)
        elif scale is not None and size is not None and count is not None:
            matrices[k] = op.const(resize_matrix(size, count, scale, **form), like=g)
        else:
            given = None if sizes is not None or scales is None else op.Gather(scales, op.ints(i))
            matrices[k] = _matrix_at_run_time(op, y, x, k, given, form)
    if max(times, default=1) > 1:
        g = op.Mul(op.AveragePool(g, kernel_shape=times, strides=times), op.const(math.prod(times), like=g))
    for k, matrix in matrices.items():
        g = contract(op, g, matrix, k)
    return g


def _repeats(scale: float, form: Mapping[str, Any]) -> bool:
    """Whether y is every element of x, ``scale`` times in a row."""
    if scale != int(scale) or form["mode"] != "nearest":
        return False
    matrix = resize_matrix(PROBE, PROBE * int(scale), scale, **form)
    return np.array_equal(matrix, np.repeat(np.eye(PROBE), int(scale), axis=0))


def _matrix_at_run_time(op: Builder, y: Value, x: Value, k: int, scale: Value | None, form: Mapping[str, Any]) -> Value:
    """The matrix of a length that is not known before the run: what Resize makes of the identity."""
    size = vector(op, [dims(x)[k]])
    zero, one = op.array(np.array(0)), op.array(np.array(1))
    row = op.Unsqueeze(op.Range(zero, op.Squeeze(size, op.ints(0)), one), op.ints(0, 1, 2))
    identity = indicator(op, op.Equal(row, op.Transpose(row, perm=[0, 1, 3, 2])), like=x)
    if scale is None:
        matrix = op.Resize(
            identity, None, None, op.Concat(op.ints(1, 1), vector(op, [dims(y)[k]]), size, axis=0), **form
        )
    else:
        ones = [op.array(np.ones(n, np.float32)) for n in (2, 1)]
        matrix = op.Resize(identity, None, op.Concat(ones[0], scale, ones[1], axis=0), **form)
    return op.Squeeze(matrix, op.ints(0, 1))


def resize_matrix(
    size: int,
    count: int,
    scale: float,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> np.ndarray:
    """Resize along one axis, from ``size`` to ``count`` elements, as a float64 matrix (count, size).

    The formulas are the ONNX specification's.
    """
    kind = np.float32 if mode == "nearest" else np.float64  # a rounding decides which element is the nearest
    place = _places(size, count, scale, coordinate_transformation_mode, kind)
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
    matrix = np.zeros((count, size))
    np.add.at(matrix, (np.arange(count)[:, None], np.clip(taps, 0, size - 1)), weights)
    return matrix


HALF = 0.5 + 1e-6  # what lies half-way between two elements is decided with this tolerance, as ONNX Runtime does

ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda place: np.ceil(place - HALF),
    "round_prefer_ceil": lambda place: np.floor(place + HALF),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _places(size: int, count: int, scale: float, transformation: str, kind: type[np.floating]) -> np.ndarray:
    """Where in x each element of y is read (count,)."""
    i, step, half = np.arange(count, dtype=kind), kind(scale), kind(0.5)
    places: np.ndarray = (i + half) / step - half
    if transformation == "asymmetric":
        places = i / step
    elif transformation == "align_corners":
        places = i * kind(size - 1) / kind(max(count - 1, 1))
    elif transformation == "pytorch_half_pixel" and count == 1:
        places = np.zeros(1)
    return places.astype(np.float64)


def _cubic(t: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution, 1981: the weights of the elements at −1, 0, 1 and 2 for a place t in [0, 1)."""

    far = np.stack([t + 1, 2 - t])
    near = np.stack([t, 1 - t])
    far = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    near = ((a + 2) * near - (a + 3)) * near * near + 1
    return np.stack([far[0], near[0], near[1], far[1]], axis=1)
