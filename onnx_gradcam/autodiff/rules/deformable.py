"""The rule of DeformConv, a convolution whose taps read the image at places of their own.

With the columns K(c, t, o) = x(c, place(t, o)) · mask(t, o), it is y(o) = Σ W(c, t) · K(c, t, o) + b. Offset groups are
taken as images: x is (N · G', C / G', elements), the places are (N · G', taps · outputs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnx_gradcam.autodiff.registry import EACH, Unwritten, vjp
from onnx_gradcam.autodiff.rules.axes import dims, length, positions, reshape_like, vector
from onnx_gradcam.autodiff.rules.taps import Samples, as_float, linear, narrow, widen
from onnx_gradcam.graph.builder import Builder, Value


@vjp("DeformConv", wrt=EACH)
def deform_conv(
    op: Builder,
    g: Value,
    y: Value,
    X: Value,
    W: Value,
    offset: Value,
    B: Value | None = None,
    mask: Value | None = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    i: int,
) -> Value:
    """K̄ = Wᵀ g:  x̄ gets K̄ · mask where its taps read, the offset its slope there, the mask Σ K̄ · x, W̄ = Σ g · K."""
    if i == 3:
        return op.ReduceSum(g, op.ints(0, 2, 3), keepdims=0)
    target = (X, W, offset, B, mask)[i]
    assert target is not None
    m, c, *kernel = (length(W, k) or 0 for k in range(4))
    if not m * c * math.prod(kernel):
        raise Unwritten("weights of unknown size")
    channels, taps, area = c * group // offset_group, math.prod(kernel), _area(op, y)
    steps = (strides or (1, 1), dilations or (1, 1), pads or (0, 0))
    places = _places(op, y, widen(op, offset), kernel, *steps, area)
    axes = [linear(op, place, as_float(op, dims(X)[2 + k], place), outside=False) for k, place in enumerate(places)]
    samples = Samples(axes, dims(X)[2:])
    image = op.Reshape(widen(op, X), vector(op, [-1, channels, *dims(X)[2:]]))
    elements = op.Reshape(image, op.ints(0, 0, -1))
    weights = None if mask is None else op.Unsqueeze(op.Reshape(widen(op, mask), op.Shape(places[0])), op.ints(1))
    rows = op.Reshape(widen(op, g), op.ints(0, group, m // group, -1))  # (N, G, m, outputs)
    matrix = op.Reshape(widen(op, W), op.ints(group, m // group, c * taps))
    back = op.MatMul(op.Transpose(matrix, perm=[0, 2, 1]), rows)  # (N, G, c · taps, outputs)
    back = op.Reshape(op.Reshape(back, op.ints(-1, channels, taps, 0)), op.ints(0, 0, -1))
    through = back if weights is None else op.Mul(back, weights)
    if i == 0:
        cotangent = samples.add_back(op, through, image)
    elif i == 2:
        shape = op.Concat(op.ints(-1, taps, 1), area, axis=0)
        cotangent = op.Concat(*[op.Reshape(slope, shape) for slope in samples.slopes(op, through, elements)], axis=2)
    elif i == 4:
        cotangent = op.ReduceSum(op.Mul(back, samples.values(op, elements, op.Shape(back))), op.ints(1), keepdims=0)
    else:
        columns = samples.values(op, elements, op.Shape(back))
        columns = columns if weights is None else op.Mul(columns, weights)
        columns = op.Reshape(columns, op.Concat(op.ints(-1, group, c * taps), area, axis=0))
        cotangent = op.ReduceSum(op.MatMul(rows, op.Transpose(columns, perm=[0, 1, 3, 2])), op.ints(0), keepdims=0)
    return reshape_like(op, narrow(op, cotangent, target), target)


def _area(op: Builder, y: Value) -> Value:
    """Write the number of outputs, as an int64 vector of length 1."""
    height, width = dims(y)[2:]
    if isinstance(height, int) and isinstance(width, int):
        return op.ints(height * width)
    return op.Mul(vector(op, [height]), vector(op, [width]))


def _places(
    op: Builder,
    y: Value,
    offset: Value,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    area: Value,
) -> list[Value]:
    """Write stride · o + dilation · t − pad + offset along both axes (N · G', taps · outputs)."""
    taps = np.array(list(np.ndindex(*kernel)))
    moves = op.Reshape(offset, op.Concat(op.ints(-1, len(taps), 2), area, axis=0))
    lattice = vector(op, dims(y)[2:])
    places = []
    for k in (0, 1):
        number = op.Unsqueeze(op.Cast(positions(op, dims(y)[2 + k]), to=offset.dtype), op.ints(1 - k))
        outputs = op.Reshape(op.Expand(op.Mul(number, op.const(strides[k], like=offset)), lattice), op.ints(-1))
        start = op.const(taps[:, k : k + 1] * dilations[k] - pads[k], like=offset)
        place = op.Add(op.Gather(moves, op.array(np.array(k)), axis=2), op.Add(outputs, start))
        places.append(op.Reshape(place, op.ints(0, -1)))
    return places
