"""Rules of quantization. The cotangent of a quantized tensor belongs to the real numbers that it stands for."""

from __future__ import annotations

from onnx_gradcam.autodiff.registry import Unwritten, vjp
from onnx_gradcam.autodiff.rules.elementwise import indicator
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.quantization import BOUNDS


@vjp("QuantizeLinear", wrt=0, broadcasts=True)
def quantize_linear(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    y_scale: Value,
    y_zero_point: Value | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    saturate: int = 1,
) -> Value:
    """q = clip(round(x/s) + z):  x̄ = g · [qmin < q < qmax], the straight-through gradient of the clip.

    The rule reads q, never x: integer kernels do not make x. A Relu that was folded into the clip lies at qmin.
    Bengio, Léonard and Courville 2013.
    """
    if y.dtype not in BOUNDS:
        raise Unwritten(f"quantization to {y.dtype}")
    low, high = BOUNDS[y.dtype]
    kind = x.dtype
    assert kind is not None
    distance = op.Abs(op.Sub(op.Cast(y, to=kind), op.const((low + high) / 2, like=x)))
    inside = indicator(op, op.Less(distance, op.const((high - low) / 2, like=x)), like=x)
    return op.Mul(op.Cast(g, to=kind) if g.dtype != kind else g, inside)


@vjp("DequantizeLinear", wrt=0, broadcasts=True)
def dequantize_linear(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    x_scale: Value,
    x_zero_point: Value | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
) -> Value:
    """y = s · (q − z) is what q stands for:  x̄ = g."""
    return g


@vjp("DynamicQuantizeLinear", wrt=0, broadcasts=True)
def dynamic_quantize_linear(op: Builder, g: Value, y: Value, x: Value) -> Value:
    """The scale is chosen so that nothing is clipped, and is taken for a constant:  x̄ = g."""
    return g
