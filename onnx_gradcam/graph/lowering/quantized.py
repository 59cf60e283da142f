"""Operators on quantized tensors: dequantize, compute in real numbers, quantize again."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_gradcam.graph.attributes import Convolution
from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.lowering.registry import MICROSOFT, lowering
from onnx_gradcam.graph.lowering.table import dequantize
from onnx_gradcam.graph.quantization import quantization


@lowering("QLinearConv")
@lowering("QLinearConv", domain=MICROSOFT)
def qlinear_conv(
    op: Builder,
    x: Value,
    x_scale: Value,
    x_zero_point: Value,
    w: Value,
    w_scale: Value,
    w_zero_point: Value,
    y_scale: Value,
    y_zero_point: Value,
    b: Value | None = None,
    *,
    at: Convolution,
    channels_last: int = 0,
) -> Value:
    """y = Conv(x, w, b); b is in units of x_scale · w_scale, the weights are as for channels first."""
    real_x = op.DequantizeLinear(x, x_scale, x_zero_point)
    bias = None if b is None else op.Mul(op.Cast(b, to=x_scale.dtype), op.Mul(x_scale, w_scale))
    y = op.Conv(
        to_channels_first(op, real_x) if channels_last else real_x,
        op.DequantizeLinear(w, w_scale, w_zero_point, axis=0),
        bias,
        **vars(at),
    )
    return op.QuantizeLinear(to_channels_last(op, y) if channels_last else y, y_scale, y_zero_point)


@lowering("QLinearMatMul")
def qlinear_matmul(
    op: Builder,
    a: Value,
    a_scale: Value,
    a_zero_point: Value,
    b: Value,
    b_scale: Value,
    b_zero_point: Value,
    y_scale: Value,
    y_zero_point: Value,
) -> Value:
    """y = a·b; b may be quantized column by column."""
    last = rank(b) - 1
    product = op.MatMul(
        op.DequantizeLinear(a, a_scale, a_zero_point),
        op.DequantizeLinear(b, b_scale, b_zero_point, axis=last),
    )
    return op.QuantizeLinear(product, y_scale, y_zero_point)


@lowering("QGemm", domain=MICROSOFT)
def qgemm(
    op: Builder,
    a: Value,
    a_scale: Value,
    a_zero_point: Value,
    b: Value,
    b_scale: Value,
    b_zero_point: Value,
    c: Value | None = None,
    y_scale: Value | None = None,
    y_zero_point: Value | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Value:
    """y = Gemm(a, b, c); c is in units of α · a_scale · b_scale. Without y_scale y stays in real numbers."""
    bias = None if c is None else op.Mul(op.Cast(c, to=a_scale.dtype), op.Mul(a_scale, b_scale))
    if bias is not None and alpha != 1:
        bias = op.Mul(bias, op.const(alpha, like=bias))
    y = op.Gemm(
        op.DequantizeLinear(a, a_scale, a_zero_point),
        op.DequantizeLinear(b, b_scale, b_zero_point, axis=0 if transB else 1),
        bias,
        alpha=alpha,
        transA=transA,
        transB=transB,
    )
    return y if y_scale is None else op.QuantizeLinear(y, y_scale, y_zero_point)


def _of_two(op_type: str) -> None:
    """Register the lowering of QLinear<op_type>: ``op_type`` of two quantized tensors."""

    @lowering(f"QLinear{op_type}", domain=MICROSOFT)
    def lowered(
        op: Builder,
        A: Value,
        A_scale: Value,
        A_zero_point: Value | None,
        B: Value,
        B_scale: Value,
        B_zero_point: Value | None,
        C_scale: Value,
        C_zero_point: Value | None = None,
    ) -> Value:
        a, b = op.DequantizeLinear(A, A_scale, A_zero_point), op.DequantizeLinear(B, B_scale, B_zero_point)
        return op.QuantizeLinear(getattr(op, op_type)(a, b), C_scale, C_zero_point)

    lowered.__doc__ = f"y = {op_type}(A, B)."  # for docs/operators.md


_of_two("Add")
_of_two("Mul")


@lowering("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(op: Builder, Y_scale: Value, Y_zero_point: Value, *inputs: Value, axis: int) -> Value:
    """y = Concat of tensors that come as (integers, scale, zero point)."""
    parts = [op.DequantizeLinear(*inputs[k : k + 3]) for k in range(0, len(inputs), 3)]
    return op.QuantizeLinear(op.Concat(*parts, axis=axis), Y_scale, Y_zero_point)


@lowering("QLinearSigmoid", domain=MICROSOFT)
def qlinear_sigmoid(
    op: Builder,
    X: Value,
    X_scale: Value,
    X_zero_point: Value | None,
    Y_scale: Value,
    Y_zero_point: Value | None = None,
) -> Value:
    """y = Sigmoid(X)."""
    return op.QuantizeLinear(op.Sigmoid(op.DequantizeLinear(X, X_scale, X_zero_point)), Y_scale, Y_zero_point)


@lowering("QLinearLeakyRelu", domain=MICROSOFT)
def qlinear_leaky_relu(
    op: Builder,
    X: Value,
    X_scale: Value,
    X_zero_point: Value | None,
    Y_scale: Value,
    Y_zero_point: Value | None = None,
    *,
    alpha: float = 0.01,
) -> Value:
    """y = LeakyRelu(X)."""
    y = op.LeakyRelu(op.DequantizeLinear(X, X_scale, X_zero_point), alpha=alpha)
    return op.QuantizeLinear(y, Y_scale, Y_zero_point)


@lowering("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(
    op: Builder,
    X: Value,
    X_scale: Value,
    x_zero_point: Value | None,
    y_scale: Value,
    y_zero_point: Value,
    *,
    axis: int = -1,
    opset: int,
) -> Value:
    """y = Softmax(X), as the ai.onnx opset ``opset`` has it: before 13 over all axes from ``axis`` on."""
    x = op.DequantizeLinear(X, X_scale, x_zero_point)
    if opset >= 13:
        return op.QuantizeLinear(op.Softmax(x, axis=axis), y_scale, y_zero_point)
    flat = op.Softmax(op.Flatten(x, axis=axis), axis=1)
    return op.QuantizeLinear(op.Reshape(flat, op.shape_of(x)), y_scale, y_zero_point)


@lowering("QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_global_average_pool(
    op: Builder,
    X: Value,
    x_scale: Value,
    x_zero_point: Value,
    y_scale: Value,
    y_zero_point: Value,
    *,
    channels_last: int = 0,
) -> Value:
    """y = the mean of X over the spatial axes."""
    space = range(1, rank(X) - 1) if channels_last else range(2, rank(X))
    mean = op.ReduceMean(op.DequantizeLinear(X, x_scale, x_zero_point), op.ints(*space), keepdims=1)
    return op.QuantizeLinear(mean, y_scale, y_zero_point)


@lowering("QLinearAveragePool", domain=MICROSOFT)
def qlinear_average_pool(
    op: Builder,
    X: Value,
    x_scale: Value,
    x_zero_point: Value | None,
    y_scale: Value,
    y_zero_point: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """y = AveragePool(X)."""
    x = op.DequantizeLinear(X, x_scale, x_zero_point)
    if channels_last:
        x = to_channels_first(op, x)
    y = op.AveragePool(
        x,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return op.QuantizeLinear(to_channels_last(op, y) if channels_last else y, y_scale, y_zero_point)


@lowering("QLinearReduceMean", domain=MICROSOFT)
def qlinear_reduce_mean(
    op: Builder,
    data: Value,
    data_scale: Value,
    data_zero_point: Value | None,
    reduced_scale: Value,
    reduced_zero_point: Value | None = None,
    *,
    axes: Sequence[int],
    keepdims: int,
) -> Value:
    """y = ReduceMean(data)."""
    mean = op.ReduceMean(op.DequantizeLinear(data, data_scale, data_zero_point), op.ints(*axes), keepdims=keepdims)
    return op.QuantizeLinear(mean, reduced_scale, reduced_zero_point)


@lowering("QLinearWhere", domain=MICROSOFT)
def qlinear_where(
    op: Builder,
    condition: Value,
    X: Value,
    x_scale: Value,
    x_zero_point: Value,
    Y: Value,
    y_scale: Value,
    y_zero_point: Value,
    z_scale: Value,
    z_zero_point: Value,
) -> Value:
    """y = Where(condition, X, Y)."""
    x, y = op.DequantizeLinear(X, x_scale, x_zero_point), op.DequantizeLinear(Y, y_scale, y_zero_point)
    return op.QuantizeLinear(op.Where(condition, x, y), z_scale, z_zero_point)


@lowering("ConvInteger")
def conv_integer(
    op: Builder,
    x: Value,
    w: Value,
    x_zero_point: Value | None = None,
    w_zero_point: Value | None = None,
    *,
    at: Convolution,
) -> Value:
    """y = Conv(x − zero point, w − zero point)."""
    return op.Conv(_steps(op, x), _centre(op, w, w_zero_point, axis=0, like=x), **vars(at))


@lowering("MatMulInteger")
def matmul_integer(
    op: Builder, A: Value, B: Value, a_zero_point: Value | None = None, b_zero_point: Value | None = None
) -> Value:
    """Y = (A − zero point)·(B − zero point)."""
    return op.MatMul(_steps(op, A), _centre(op, B, b_zero_point, axis=rank(B) - 1, like=A))


def _steps(op: Builder, x: Value) -> Value:
    """Write x − zero point, as a number of steps: what x stands for, divided by its scale."""
    q = quantization(x)
    assert q is not None
    assert q.scale is not None
    return op.Div(dequantize(op, x), q.scale)


def _centre(op: Builder, w: Value, zero_point: Value | None, axis: int, like: Value) -> Value:
    """Write w − zero point as floating-point numbers: dequantized with steps of 1; of its own where it is computed."""
    if (own := quantization(w)) is not None and own.scale is not None:
        return _steps(op, w)
    q = quantization(like)
    assert q is not None
    assert q.scale is not None
    one = op.const(1, like=q.scale)
    if zero_point is not None and rank(zero_point) > 0:
        one = op.Expand(one, op.shape_of(zero_point))
    return op.DequantizeLinear(w, one, zero_point, axis=axis)


def to_channels_first(op: Builder, x: Value) -> Value:
    """Write ``x`` (N, *space, C) as (N, C, *space)."""
    return op.Transpose(x, perm=[0, rank(x) - 1, *range(1, rank(x) - 1)])


def to_channels_last(op: Builder, x: Value) -> Value:
    """Write ``x`` (N, C, *space) as (N, *space, C)."""
    return op.Transpose(x, perm=[0, *range(2, rank(x)), 1])
