"""Grids of points to sample at."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.graph.builder import Builder, Value, ints_of
from onnx_gradcam.graph.lower import Unlowered, lowering


@lowering("AffineGrid")
def affine_grid(op: Builder, theta: Value, size: Value, *, align_corners: int = 0) -> Value:
    """θ · (x, y[, z], 1) at every point of a grid over [−1, 1]; ``size`` (N, C, *space) must be constant."""
    sizes = ints_of(size)
    if sizes is None:
        raise Unlowered("no VJP rule for a size that is known in the run only,")
    space = sizes[2:]
    along = [np.linspace(-1, 1, n) if align_corners and n > 1 else (2 * np.arange(n) + 1) / n - 1 for n in space]
    points = np.stack([*reversed(np.meshgrid(*along, indexing="ij")), np.ones(space)], axis=-1)
    rows = op.const(points.reshape(1, -1, len(space) + 1), like=theta)
    return op.Reshape(op.MatMul(rows, op.Transpose(theta, perm=[0, 2, 1])), op.ints(-1, *space, len(space)))
