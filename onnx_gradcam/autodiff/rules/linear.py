"""Rules of matrix products."""

from __future__ import annotations

from onnx_gradcam.autodiff.broadcast import sum_to
from onnx_gradcam.autodiff.registry import vjp
from onnx_gradcam.graph.builder import Builder, Value, rank, same_dim


@vjp("MatMul", wrt=0)
def matmul_a(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
    """Y = A·B:  Ā = g·Bᵀ, summed over the batch axes that broadcasting added to A.

    A vector a counts as a row, a vector b as a column.
    """
    row = op.Unsqueeze(b, op.ints(0)) if rank(b) == 1 else _transpose(op, b)
    product = op.MatMul(_cotangent(op, g, a, b), row)
    return _sum_batch(op, product, like=a, other=b)


@vjp("MatMul", wrt=1)
def matmul_b(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
    """B̄ = Aᵀ·g, summed over the batch axes that broadcasting added to B."""
    column = op.Unsqueeze(a, op.ints(1)) if rank(a) == 1 else _transpose(op, a)
    product = op.MatMul(column, _cotangent(op, g, a, b))
    if rank(b) == 1:
        product = op.Squeeze(product, op.ints(-1))
    return _sum_batch(op, product, like=b, other=a)


def _cotangent(op: Builder, g: Value, a: Value, b: Value) -> Value:
    """Write g with the axes that MatMul dropped for vectors, as size 1."""
    if rank(b) == 1:
        g = op.Unsqueeze(g, op.ints(-1))
    return op.Unsqueeze(g, op.ints(-2)) if rank(a) == 1 else g


def _transpose(op: Builder, x: Value) -> Value:
    """Write x with its last two axes exchanged."""
    *batch, row, column = range(rank(x))
    return op.Transpose(x, perm=[*batch, column, row])


def _sum_batch(op: Builder, product: Value, like: Value, other: Value) -> Value:
    """Write the sum over the batch axes along which ``like`` was broadcast; nothing where none was."""
    assert like.shape is not None
    assert other.shape is not None
    own, others = like.shape[:-2], other.shape[:-2]
    aligned = zip(reversed(own), reversed(others), strict=False)
    if rank(like) > 1 and len(own) >= len(others) and all(b == 1 or same_dim(a, b) for a, b in aligned):
        return product
    return sum_to(op, product, like=like, full=product)


@vjp("Gemm", wrt=0)
def gemm_a(
    op: Builder,
    g: Value,
    y: Value,
    a: Value,
    b: Value,
    c: Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Value:
    """Y = α·A'·B' + β·C, A' and B' transposed on request:  Ā' = α·g·B'ᵀ."""
    if transA:
        return op.Gemm(b, g, alpha=alpha, transA=transB, transB=1)
    return op.Gemm(g, b, alpha=alpha, transB=1 - transB)


@vjp("Gemm", wrt=1)
def gemm_b(
    op: Builder,
    g: Value,
    y: Value,
    a: Value,
    b: Value,
    c: Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Value:
    """B̄' = α·A'ᵀ·g."""
    if transB:
        return op.Gemm(g, a, alpha=alpha, transA=1, transB=transA)
    return op.Gemm(a, g, alpha=alpha, transA=1 - transA)


@vjp("Gemm", wrt=2)
def gemm_c(
    op: Builder,
    g: Value,
    y: Value,
    a: Value,
    b: Value,
    c: Value,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Value:
    """C̄ = β·g, summed over the axes that broadcasting added to C."""
    return op.Mul(sum_to(op, g, like=c, full=y), op.const(beta, like=y))
