"""Grids of points to sample at, and inverses of the matrices that move them."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.graph.builder import Builder, Value, ints_of, rank
from onnx_gradcam.graph.lowering.registry import MICROSOFT, Unlowered, lowering


@lowering("AffineGrid")
def affine_grid(op: Builder, theta: Value, size: Value, *, align_corners: int = 0) -> Value:
    """y = θ · (x, y[, z], 1) at every point of a grid over [−1, 1]; ``size`` (N, C, *space) must be constant."""
    sizes = ints_of(size)
    if sizes is None:
        raise Unlowered("no VJP rule for a size that is known in the run only,")
    space = sizes[2:]
    along = [np.linspace(-1, 1, n) if align_corners and n > 1 else (2 * np.arange(n) + 1) / n - 1 for n in space]
    points = np.stack([*reversed(np.meshgrid(*along, indexing="ij")), np.ones(space)], axis=-1)
    rows = op.const(points.reshape(1, -1, len(space) + 1), like=theta)
    return op.Reshape(op.MatMul(rows, op.Transpose(theta, perm=[0, 2, 1])), op.ints(-1, *space, len(space)))


@lowering("Inverse", domain=MICROSOFT)
def inverse(op: Builder, X: Value) -> Value:
    """y = X⁻¹ of 2 × 2 and 3 × 3 matrices, the transposed cofactors over the determinant."""
    size = None if X.shape is None else X.shape[-1]
    last = rank(X) - 1
    if size == 2:
        swapped = _reorder(op, _reorder(op, X, (1, 0), last - 1), (1, 0), last)
        cofactors = op.Mul(swapped, op.const([[1, -1], [-1, 1]], like=X))
    elif size == 3:
        a, b = _reorder(op, X, (1, 2, 0), last - 1), _reorder(op, X, (2, 0, 1), last - 1)
        one = op.Mul(_reorder(op, a, (1, 2, 0), last), _reorder(op, b, (2, 0, 1), last))
        other = op.Mul(_reorder(op, a, (2, 0, 1), last), _reorder(op, b, (1, 2, 0), last))
        cofactors = op.Sub(one, other)
    else:
        raise Unlowered("no VJP rule for matrices other than 2 × 2 and 3 × 3")
    products = op.ReduceSum(op.Mul(X, cofactors), op.ints(last), keepdims=1)  # each row's is the determinant
    determinant = op.Slice(products, op.ints(0), op.ints(1), op.ints(last - 1))
    return op.Div(op.Transpose(cofactors, perm=[*range(last - 1), last, last - 1]), determinant)


def _reorder(op: Builder, x: Value, order: tuple[int, ...], axis: int) -> Value:
    """Write ``x`` with its elements along ``axis`` in another order."""
    return op.Gather(x, op.ints(*order), axis=axis)
