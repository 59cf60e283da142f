"""Rules of the pools that take p-norms."""

from __future__ import annotations

from dataclasses import replace

from onnx_gradcam.autodiff.registry import vjp
from onnx_gradcam.autodiff.rules.elementwise import nonzero, sign
from onnx_gradcam.autodiff.rules.pooling import pad_as_same, spread, taps_of_spread
from onnx_gradcam.autodiff.rules.windows import is_padded_at_run_time, place_windows, pool_windows
from onnx_gradcam.graph.attributes import Pool
from onnx_gradcam.graph.builder import Builder, Value, rank


@vjp("LpPool", wrt=0)
def lp_pool(op: Builder, g: Value, y: Value, x: Value, *, at: Pool, p: int = 2) -> Value:
    """y(o) = (Σ_t |x(s·o + d·t − p)|ᵖ)^(1/p):  x̄ = sign(x) · |x|^(p − 1) · Σ g(o) · y(o)^(1 − p); 0 where x is 0."""
    padded, ends = x, None
    if is_padded_at_run_time(x, at):
        padded, *ends = pad_as_same(op, x, at, 0.0)
        windows = place_windows(padded, at.kernel_shape, replace(at, auto_pad="VALID"))
    else:
        windows = pool_windows(x, at)
    share = _divide_by_norm(op, g, y, p)
    taps = taps_of_spread(windows)
    share = spread(op, share if taps == 1 else op.Mul(share, op.const(taps, like=x)), y, padded, windows)
    if ends is not None:
        share = op.Slice(share, *ends, op.ints(*range(2, rank(x))))
    return op.Mul(share, _slope(op, x, p))


@vjp("GlobalLpPool", wrt=0)
def global_lp_pool(op: Builder, g: Value, y: Value, x: Value, *, p: int = 2) -> Value:
    """y = (Σ |x|ᵖ)^(1/p) over all positions:  x̄ = g · y^(1 − p) · sign(x) · |x|^(p − 1); 0 where x is 0."""
    return op.Mul(_divide_by_norm(op, g, y, p), _slope(op, x, p))


def _divide_by_norm(op: Builder, g: Value, y: Value, p: int) -> Value:
    """Write g · y^(1 − p); where the norm is 0, so is all that this is multiplied with."""
    if p == 1:
        return g
    norm = nonzero(op, y)
    return op.Div(g, norm if p == 2 else op.Pow(norm, op.const(p - 1, like=y)))


def _slope(op: Builder, x: Value, p: int) -> Value:
    """Write sign(x) · |x|^(p − 1)."""
    if p == 1:
        return sign(op, x)
    return x if p == 2 else op.Mul(x, op.Pow(op.Abs(x), op.const(p - 2, like=x)))
