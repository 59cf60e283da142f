"""Matrix products of com.microsoft: fused, transposed, and with packed or quantized weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.lowering.activation import NUMBERS, activate, multiply, tanh_gelu
from onnx_gradcam.graph.lowering.registry import MICROSOFT, Unlowered, lowering


@lowering("FusedGemm", domain=MICROSOFT)
def fused_gemm(
    op: Builder,
    A: Value,
    B: Value,
    C: Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
) -> Value:
    """y = f(Gemm(A, B, C)), f an activation."""
    y = op.Gemm(A, B, C, alpha=alpha, beta=beta, transA=transA, transB=transB)
    return activate(op, y, activation, _numbers(activation, activation_alpha, activation_beta, activation_gamma))


def _numbers(activation: str, *values: float | None) -> Sequence[float]:
    """Return those of the values (alpha, beta, gamma) that the activation takes."""
    by_name = dict(zip(("alpha", "beta", "gamma"), values, strict=True))
    numbers = [by_name[name] for name in NUMBERS.get(activation, ("alpha", "beta"))]
    return [number for number in numbers if number is not None]


@lowering("TransposeMatMul", domain=MICROSOFT)
@lowering("FusedMatMul", domain=MICROSOFT)
def fused_matmul(
    op: Builder,
    A: Value,
    B: Value,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Value:
    """y = α · A'·B', A' and B' transposed on request."""
    return multiply(op, op.MatMul(_operand(op, A, transA, transBatchA), _operand(op, B, transB, transBatchB)), alpha)


def _operand(op: Builder, x: Value, trans: int, batch: int) -> Value:
    """Write an operand as (batch…, m, k).

    ``trans`` exchanges its last two axes. ``batch`` moves the first axis, which is m or with ``trans`` k, behind the
    batch axes.
    """
    axes = list(range(rank(x)))
    if len(axes) > 1 and batch:
        axes = [*axes[1:-1], 0, axes[-1]]
    if len(axes) > 1 and trans:
        axes[-2:] = axes[-1], axes[-2]
    return x if axes == sorted(axes) else op.Transpose(x, perm=axes)


@lowering("FusedMatMulActivation", domain=MICROSOFT)
def fused_matmul_activation(
    op: Builder,
    A: Value,
    B: Value,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
    activation: str,
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    activation_axis: int = -1,
) -> Value:
    """y = f(FusedMatMul(A, B)), f an activation."""
    y = fused_matmul(
        op, A, B, alpha=alpha, transA=transA, transB=transB, transBatchA=transBatchA, transBatchB=transBatchB
    )
    if activation == "Softmax":
        return op.Softmax(y, axis=activation_axis)
    return activate(op, y, activation, _numbers(activation, activation_alpha, activation_beta, activation_gamma))


@lowering("GemmFastGelu", domain=MICROSOFT)
def gemm_fast_gelu(op: Builder, X: Value, W: Value, bias: Value | None = None) -> Value:
    """y = Gelu(X·W + bias), approximated by tanh."""
    return tanh_gelu(op, _add_bias(op, op.MatMul(X, W), bias))


@lowering("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(
    op: Builder, A: Value, B: Value, b_scale: Value, b_zero_point: Value | None = None, bias: Value | None = None
) -> Value:
    """y = A·B + bias; the operator quantizes A on the way."""
    integers, scale, zero_point = op.node("DynamicQuantizeLinear", A, outputs=3)
    return matmul_integer_to_float(op, integers, B, scale, b_scale, zero_point, b_zero_point, bias)


@lowering("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(
    op: Builder,
    A: Value,
    B: Value,
    a_scale: Value,
    b_scale: Value,
    a_zero_point: Value | None = None,
    b_zero_point: Value | None = None,
    bias: Value | None = None,
) -> Value:
    """y = A·B + bias of what A and B stand for; B may be quantized column by column."""
    product = op.MatMul(
        op.DequantizeLinear(A, _scalar(op, a_scale), None if a_zero_point is None else _scalar(op, a_zero_point)),
        op.DequantizeLinear(B, b_scale, b_zero_point, axis=rank(B) - 1),
    )
    return _add_bias(op, product, bias)


def _scalar(op: Builder, x: Value) -> Value:
    """Write one number as a scalar, where it comes as a vector of one."""
    return x if rank(x) == 0 else op.Reshape(x, op.array(np.zeros(0, np.int64)))


def _add_bias(op: Builder, x: Value, bias: Value | None) -> Value:
    return x if bias is None else op.Add(x, bias)


@lowering("MatMulNBits", domain=MICROSOFT)
def matmul_n_bits(
    op: Builder,
    A: Value,
    B: Value,
    scales: Value,
    zero_points: Value | None = None,
    g_idx: Value | None = None,
    bias: Value | None = None,
    *,
    K: int,
    N: int,
    bits: int = 4,
    block_size: int,
    accuracy_level: int = 0,
    weight_prepacked: int = 0,
) -> Value:
    """y = A·W with W = scale · (q − zero point) in blocks of the K axis; the packed weights are unpacked at build time.

    At an ``accuracy_level`` of 4 a runtime may round A to 8 bits; its derivative is the same.
    """
    packed, scale, zeros = constant(B), constant(scales), constant(zero_points)
    if packed is None or scale is None or (zero_points is not None and zeros is None):
        raise Unlowered("no VJP rule for weights that are computed in the graph,")
    if g_idx is not None or weight_prepacked:
        raise Unlowered("no VJP rule for reordered or prepacked weights,")
    blocks = -(-K // block_size)
    q = _unpack(packed.reshape(N, -1), bits, blocks * block_size).reshape(N, blocks, block_size)
    if zeros is None:
        zeros = np.full((N, blocks), 1 << (bits - 1))
    elif zeros.dtype == np.uint8:
        zeros = _unpack(zeros.reshape(N, -1), bits, blocks)
    weights = (q - zeros.reshape(N, blocks, 1).astype(np.float32)) * scale.reshape(N, blocks, 1).astype(np.float32)
    columns = weights.reshape(N, blocks * block_size)[:, :K].T
    return _add_bias(op, op.MatMul(A, op.const(columns, like=A)), bias)


def _unpack(rows: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Return the first ``count`` numbers of ``bits`` bits in every row of bytes, the lowest bits of a byte first."""
    shifts = np.arange(0, 8, bits)
    numbers = (rows[..., None] >> shifts) & ((1 << bits) - 1)
    return numbers.reshape(len(rows), -1)[:, :count].astype(np.float32)
