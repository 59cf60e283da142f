"""The rule of Resize. Along one axis it is a matrix, so its gradient is a product with that matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_gradcam.autodiff.registry import Refused, Unwritten, vjp
from onnx_gradcam.autodiff.rules.axes import contract, dims, length, vector
from onnx_gradcam.autodiff.rules.elementwise import indicator
from onnx_gradcam.graph.attributes import Resizing
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
    at: Resizing,
) -> Value:
    """y = A x along every axis:  x̄ = Aᵀ g, axis by axis; where A only repeats elements, an AveragePool sums them."""
    lines = _lines(x, y, roi, scales, sizes, at)
    if all(line.keeps_length for line in lines):
        return g  # onnxruntime copies x then, whatever the scales and the region are
    is_changed = any(None not in (line.size, line.count) and line.size != line.count for line in lines)
    times = [1] * (rank(x) - 2)
    matrices: dict[int, Value] = {}
    for i, line in enumerate(lines):
        if line.scale == 1 and line.region == WHOLE:
            continue
        if line.keeps_length and (at.antialias or not is_changed):
            raise Unwritten("a scale that leaves the length as it was beside axes of unknown length or antialiased,")
        if line.axis > 1 and (repeats := _repeats(line, at)):
            times[line.axis - 2] = repeats
        elif line.scale is not None and line.size is not None and line.count is not None and not at.antialias:
            matrices[line.axis] = op.const(resize_matrix(line.size, line.count, line.scale, line.region, at), like=g)
        else:
            if at.keep_aspect_ratio_policy != "stretch":
                raise Unwritten("keep_aspect_ratio_policy with antialias, or for an image of unknown size,")
            scale = op.Gather(scales, op.ints(i)) if sizes is None and scales is not None else None
            matrices[line.axis] = _matrix_at_run_time(op, y, x, line, scale, at)
    if max(times, default=1) > 1:
        g = op.Mul(op.AveragePool(g, kernel_shape=times, strides=times), op.const(math.prod(times), like=g))
    for axis, matrix in matrices.items():
        g = contract(op, g, matrix, axis)
    return g


@dataclass(frozen=True)
class _Line:
    """What is known of the Resize along one axis.

    Attributes:
        axis: the axis.
        size: its length in x, None where it is known at run time only.
        count: its length in y, likewise.
        scale: the scale, likewise.
        region: start and end of the part that is resized, as fractions of the axis.
    """

    axis: int
    size: int | None
    count: int | None
    scale: float | None
    region: tuple[float, float]

    @property
    def keeps_length(self) -> bool:
        """Tell whether the axis is known to be as long in y as in x."""
        return self.scale == 1 or (self.size is not None and self.size == self.count)


def _lines(
    x: Value, y: Value, roi: Value | None, scales: Value | None, sizes: Value | None, at: Resizing
) -> list[_Line]:
    """Return what is known along each axis that the node resizes."""
    axes = [k % rank(x) for k in at.axes or range(rank(x))]
    is_cropped = at.coordinate_transformation_mode == "tf_crop_and_resize"
    regions = _regions(roi, len(axes)) if is_cropped else [WHOLE] * len(axes)
    factors = _factors(x, y, axes, scales, sizes, at.keep_aspect_ratio_policy)
    return [
        _Line(k, length(x, k), length(y, k), scale, region)
        for k, scale, region in zip(axes, factors, regions, strict=True)
    ]


def _factors(
    x: Value, y: Value, axes: Sequence[int], scales: Value | None, sizes: Value | None, policy: str
) -> list[float | None]:
    """Return the scale of each resized axis, None where it is known at run time only."""
    if sizes is None:
        factors = constant(scales)
        return [None] * len(axes) if factors is None else [float(scale) for scale in factors]
    lengths = [(length(x, k), length(y, k)) for k in axes]
    targets = ints_of(sizes)
    if policy != "stretch":  # the smallest or largest ratio holds for all axes
        known = [n for n, _ in lengths if n]
        if targets is None or len(known) < len(axes):
            return [None] * len(axes)
        ratios = [np.float32(count) / np.float32(n) for count, n in zip(targets, known, strict=True)]
        return [float(min(ratios) if policy == "not_larger" else max(ratios))] * len(axes)
    return [count / n if n and count else None for n, count in lengths]


def _regions(roi: Value | None, count: int) -> list[tuple[float, float]]:
    """Return start and end of the part of each axis that is resized, as fractions of it."""
    ends = constant(roi)
    if ends is None:
        raise Refused("tf_crop_and_resize with a region that is not constant")
    return [(float(ends[i]), float(ends[count + i])) for i in range(count)]


def _repeats(line: _Line, at: Resizing) -> int:
    """Return how many times in a row y has every element of x; 0 where y is something else."""
    scale = line.scale
    if scale is None or scale != int(scale) or at.mode != "nearest" or line.region != WHOLE:
        return 0
    matrix = resize_matrix(PROBE, PROBE * int(scale), scale, WHOLE, at)
    return int(scale) if np.array_equal(matrix, np.repeat(np.eye(PROBE), int(scale), axis=0)) else 0


def _matrix_at_run_time(op: Builder, y: Value, x: Value, line: _Line, scale: Value | None, at: Resizing) -> Value:
    """Write the matrix of an antialiased Resize, or of a length that is known at run time only.

    It is what the Resize makes of the identity.
    """
    form = vars(replace(at, axes=None, extrapolation_value=0.0))
    size = vector(op, [dims(x)[line.axis]])
    zero, one = op.array(np.array(0)), op.array(np.array(1))
    row = op.Unsqueeze(op.Range(zero, op.Squeeze(size, op.ints(0)), one), op.ints(0, 1, 2))
    identity = indicator(op, op.Equal(row, op.Transpose(row, perm=[0, 1, 3, 2])), like=x)
    start, end = line.region
    roi = None
    if at.coordinate_transformation_mode == "tf_crop_and_resize":
        roi = op.array(np.array([0, 0, start, 0, 1, 1, end, 1], np.float32))
    if scale is None:
        sizes = op.Concat(op.ints(1, 1), vector(op, [dims(y)[line.axis]]), size, axis=0)
        return op.Squeeze(op.Resize(identity, roi, None, sizes, **form), op.ints(0, 1))
    ones = [op.array(np.ones(n, np.float32)) for n in (2, 1)]
    scales = op.Concat(ones[0], scale, ones[1], axis=0)
    return op.Squeeze(op.Resize(identity, roi, scales, **form), op.ints(0, 1))


def resize_matrix(
    size: int, count: int, scale: float, region: tuple[float, float] = WHOLE, at: Resizing | None = None
) -> np.ndarray:
    """Return Resize along one axis as a float64 matrix (count, size), by the formulas of the ONNX specification.

    Args:
        size: the length of the axis in x.
        count: its length in y.
        scale: the scale.
        region: what tf_crop_and_resize takes of the axis.
        at: the attributes, those of the specification by default; antialias is ignored.
    """
    at = at or Resizing()
    kind = np.float32 if at.mode == "nearest" else np.float64  # a rounding decides which element is the nearest
    place = _places(size, count, scale, region, at.coordinate_transformation_mode, kind)
    inside = (place >= 0) & (place <= size - 1)
    if at.mode == "nearest":
        place = ROUNDINGS[at.nearest_mode](place)
    if at.mode != "cubic":
        place = np.clip(place, 0, size - 1)
    low = np.floor(place).astype(int)
    t = place - low
    weights = _cubic(t, at.cubic_coeff_a) if at.mode == "cubic" else np.stack([1 - t, t], axis=1)
    taps = low[:, None] + (np.arange(-1, 3) if at.mode == "cubic" else np.arange(2))
    if at.exclude_outside:
        weights = weights * ((taps >= 0) & (taps < size))
        weights = weights / weights.sum(axis=1, keepdims=True)
    if at.coordinate_transformation_mode == "tf_crop_and_resize":
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
    """Return where in x each element of y is read (count,)."""
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
    """Return the weights of the elements at −1, 0, 1 and 2 for a place t in [0, 1): Keys' cubic convolution, 1981."""
    far = np.stack([t + 1, 2 - t])
    near = np.stack([t, 1 - t])
    far = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    near = ((a + 2) * near - (a + 3)) * near * near + 1
    return np.stack([far[0], near[0], near[1], far[1]], axis=1)
