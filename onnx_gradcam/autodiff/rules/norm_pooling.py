"""Rules of the pools that take p-norms."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_gradcam.autodiff.registry import vjp
from onnx_gradcam.autodiff.rules.elementwise import nonzero, sign
from onnx_gradcam.autodiff.rules.pooling import padded_as_same, same_at_run_time, spread, taps_of_spread
from onnx_gradcam.autodiff.rules.windows import windows
from onnx_gradcam.graph.builder import Builder, Value, rank


@vjp("LpPool", wrt=0)
def lp_pool(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """y(o) = (Σ_t |x(s·o + d·t − p)|ᵖ)^(1/p):  x̄ = sign(x) · |x|^(p − 1) · Σ g(o) · y(o)^(1 − p); 0 where x is 0."""
    whole, inside = x, None
    if same_at_run_time(x, auto_pad, strides):
        whole, *inside = padded_as_same(op, x, kernel_shape, strides, auto_pad, 0.0)
        at = windows(whole, kernel_shape, strides, None, dilations, "VALID")
    else:
        at = windows(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    share = _by_norm(op, g, y, p)
    taps = taps_of_spread(at)
    share = spread(op, share if taps == 1 else op.Mul(share, op.const(taps, like=x)), y, whole, at)
    if inside is not None:
        share = op.Slice(share, *inside, op.ints(*range(2, rank(x))))
    return op.Mul(share, _slope(op, x, p))


@vjp("GlobalLpPool", wrt=0)
def global_lp_pool(op: Builder, g: Value, y: Value, x: Value, *, p: int = 2) -> Value:
    """y = (Σ |x|ᵖ)^(1/p) over all positions:  x̄ = g · y^(1 − p) · sign(x) · |x|^(p − 1); 0 where x is 0."""
    return op.Mul(_by_norm(op, g, y, p), _slope(op, x, p))


def _by_norm(op: Builder, g: Value, y: Value, p: int) -> Value:
    """g · y^(1 − p); where the norm is 0, all that it is multiplied with is, too."""
    if p == 1:
        return g
    norm = nonzero(op, y)
    return op.Div(g, norm if p == 2 else op.Pow(norm, op.const(p - 1, like=y)))


def _slope(op: Builder, x: Value, p: int) -> Value:
    """sign(x) · |x|^(p − 1)."""
    if p == 1:
        return sign(op, x)
    return x if p == 2 else op.Mul(x, op.Pow(op.Abs(x), op.const(p - 2, like=x)))
