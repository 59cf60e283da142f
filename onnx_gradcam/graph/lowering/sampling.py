"""Grids of points to sample at, and inverses of the matrices that move them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.builder import Builder, Value, ints_of, rank
from onnx_gradcam.graph.lowering.registry import MICROSOFT, Unlowered, lowering


@lowering("AffineGrid")
def affine_grid(op: Builder, theta: Value, size: Value, *, align_corners: int = 0) -> Value:
    """y = θ · (x, y[, z], 1) at every point of a grid over [−1, 1] of the ``size`` (N, C, *space)."""
    sizes, transposed = ints_of(size), op.Transpose(theta, perm=[0, 2, 1])
    if sizes is None:
        return _affine_grid_at_run_time(op, transposed, size, align_corners)
    space = sizes[2:]
    along = [_points(n, align_corners) for n in space]
    points = np.stack([*reversed(np.meshgrid(*along, indexing="ij")), np.ones(space)], axis=-1)
    rows = op.const(points.reshape(1, -1, len(space) + 1), like=theta)
    return op.Reshape(op.MatMul(rows, transposed), op.ints(-1, *space, len(space)))


def _affine_grid_at_run_time(op: Builder, theta: Value, size: Value, align_corners: int) -> Value:
    """Write the grid of a size that is known in the run only; ``theta`` is transposed, (N, D + 1, D)."""
    count = None if theta.shape is None else theta.shape[-1]
    if not isinstance(count, int) or theta.dtype is None:
        raise Unlowered("no VJP rule for a size that is known in the run only beside a θ of unknown shape,")
    space = op.Slice(size, op.ints(2), op.ints(2 + count), op.ints(0))
    ones = op.ConstantOfShape(op.Concat(space, op.ints(1), axis=0), value=ir.tensor(np.ones(1, theta.dtype.numpy())))
    along = [_coordinates(op, op.Gather(size, op.array(np.array(2 + k))), theta, align_corners) for k in range(count)]
    shaped = [op.Reshape(v, op.ints(*(-1 if i == k else 1 for i in range(count + 1)))) for k, v in enumerate(along)]
    points = op.Concat(*(op.Mul(v, ones) for v in reversed(shaped)), ones, axis=-1)
    rows = op.Reshape(points, op.ints(1, -1, count + 1))
    return op.Reshape(op.MatMul(rows, theta), op.Concat(op.ints(-1), space, op.ints(count), axis=0))


def _coordinates(op: Builder, count: Value, like: Value, align_corners: int) -> Value:
    """Write ``_points`` for a ``count`` (no axes) that is known in the run only."""
    zero, one, two = op.array(np.array(0)), op.const(1, like=like), op.const(2, like=like)
    doubled = op.Mul(op.Cast(op.Range(zero, count, op.array(np.array(1))), to=like.dtype), two)
    n = op.Cast(count, to=like.dtype)
    if align_corners:
        spread = op.Sub(op.Div(doubled, op.Max(op.Sub(n, one), one)), one)
        return op.Where(op.Greater(n, one), spread, one)
    return op.Sub(op.Div(op.Add(doubled, one), n), one)


def _points(count: int, align_corners: int) -> np.ndarray:
    """Return points over [−1, 1], both ends among them or half a step away; a single one is 1, as in onnxruntime."""
    if align_corners:
        return np.linspace(-1, 1, count) if count > 1 else np.ones(count)
    return (2 * np.arange(count) + 1) / count - 1


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
