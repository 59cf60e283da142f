"""Rules of arithmetic, element by element. ``sum_to`` takes back what NumPy broadcasting spread."""

from __future__ import annotations

import functools
import math

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.broadcast import sum_to
from onnx_gradcam.autodiff.registry import EACH, Unwritten, vjp
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import step
from onnx_gradcam.graph.quantization import quantization

LARGE = 3e38  # × the smallest normal float32 number is more than 1


def indicator(op: Builder, condition: Value, like: Value) -> Value:
    """Write 1 where ``condition`` holds, else 0, in the dtype of ``like``."""
    return op.Cast(condition, to=like.dtype)


def positive(op: Builder, x: Value, below: float = 0.0, large: float = LARGE) -> Value:
    """Write 1 where x > 0, else ``below``.

    In float32 that is one Mul and one Clip: the fastest form measured, and one that runtimes without booleans have. It
    is exact except for x under 3.4e-39, which are subnormal.

    Args:
        op: writes the nodes.
        x: any tensor.
        below: from 0 to 1.
        large: 1 / the smallest positive x that occurs. It matters where x is a constant minus something: OpenVINO
            multiplies both parts by ``large``, and ∞ − ∞ is not a number.
    """
    if x.dtype == ir.DataType.FLOAT:
        return step(op.Clip(op.Mul(x, op.const(large, like=x)), op.const(below, like=x), op.const(1, like=x)))
    mask = indicator(op, op.Greater(x, op.const(0, like=x)), x)
    return op.Clip(mask, op.const(below, like=x), op.const(1, like=x)) if below else mask


def sign(op: Builder, x: Value) -> Value:
    """Write −1, 0 or 1 as x is below, at or above 0; the operator Sign lacks kernels and is slow."""
    if x.dtype == ir.DataType.FLOAT:
        return step(op.Clip(op.Mul(x, op.const(LARGE, like=x)), op.const(-1, like=x), op.const(1, like=x)))
    zero = op.const(0, like=x)
    return op.Sub(indicator(op, op.Greater(x, zero), x), indicator(op, op.Less(x, zero), x))


def nonzero(op: Builder, x: Value) -> Value:
    """Write x with 1 in place of 0: a divisor for quotients whose numerator is 0 there."""
    return op.Add(x, indicator(op, op.Equal(x, op.const(0, like=x)), x))


@vjp("Identity", wrt=0, broadcasts=True)
def identity(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = x:  x̄ = g."""
    return g


@vjp("Dropout", wrt=0, broadcasts=True)
def dropout(
    op: Builder,
    g: Value,
    y: Value,
    data: Value,
    ratio: Value | None = None,
    training_mode: Value | None = None,
    *,
    seed: int | None = None,
) -> Value:
    """In inference y = x:  x̄ = g."""
    if training_mode is not None and (constant(training_mode) is None or constant(training_mode)):
        raise Unwritten("training_mode that is not constantly false")
    return g


@vjp("Cast", wrt=0, broadcasts=True)
def cast(op: Builder, g: Value, y: Value, input: Value, *, to: int, saturate: int = 1) -> Value:
    """y = x in another dtype:  x̄ = g in the dtype of x; divided by its scale where x holds quantized integers."""
    if (q := quantization(input)) is None:
        return op.Cast(g, to=input.dtype)
    return g if q.scale is None else op.Div(g, q.scale)


@vjp("CastLike", wrt=0, broadcasts=True)
def cast_like(op: Builder, g: Value, y: Value, input: Value, target_type: Value, *, saturate: int = 1) -> Value:
    """As Cast:  x̄ = g in the dtype of x."""
    return op.Cast(g, to=input.dtype)


@vjp("Neg", wrt=0, broadcasts=True)
def neg(op: Builder, g: Value, y: Value, x: Value) -> Value:
    """y = −x:  x̄ = −g."""
    return op.Neg(g)


@vjp("Abs", wrt=0, broadcasts=True)
def abs_(op: Builder, g: Value, y: Value, x: Value) -> Value:
    """y = |x|:  x̄ = g · sign(x), 0 at 0."""
    return op.Mul(g, sign(op, x))


@vjp("Exp", wrt=0, broadcasts=True)
def exp(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = eˣ:  x̄ = g · y."""
    return op.Mul(g, y)


@vjp("Log", wrt=0, broadcasts=True)
def log(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = ln x:  x̄ = g / x."""
    return op.Div(g, input)


@vjp("Sqrt", wrt=0, broadcasts=True)
def sqrt(op: Builder, g: Value, y: Value, x: Value) -> Value:
    """y = √x:  x̄ = g / 2y, infinite at 0."""
    return op.Div(op.Mul(g, op.const(0.5, like=y)), y)


@vjp("Reciprocal", wrt=0, broadcasts=True)
def reciprocal(op: Builder, g: Value, y: Value, x: Value) -> Value:
    """y = 1/x:  x̄ = −g · y²."""
    return op.Neg(op.Mul(g, op.Mul(y, y)))


@vjp("Erf", wrt=0, broadcasts=True)
def erf(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = erf(x):  x̄ = g · 2/√π · exp(−x²)."""
    bell = op.Exp(op.Neg(op.Mul(input, input)))
    return op.Mul(g, op.Mul(bell, op.const(2 / math.sqrt(math.pi), like=y)))


@vjp("Add", wrt=0, broadcasts=True)
def add_a(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
    """y = a + b:  ā = g."""
    return sum_to(op, g, like=a, full=y)


@vjp("Add", wrt=1, broadcasts=True)
def add_b(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
    """b̄ = g."""
    return sum_to(op, g, like=b, full=y)


@vjp("Sub", wrt=0, broadcasts=True)
def sub_a(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
    """y = a − b:  ā = g."""
    return sum_to(op, g, like=a, full=y)


@vjp("Sub", wrt=1, broadcasts=True)
def sub_b(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
    """b̄ = −g."""
    return op.Neg(sum_to(op, g, like=b, full=y))


@vjp("Mul", wrt=0, broadcasts=True)
def mul_a(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
    """y = a · b:  ā = g · b."""
    return sum_to(op, op.Mul(g, b), like=a, full=y)


@vjp("Mul", wrt=1, broadcasts=True)
def mul_b(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
    """b̄ = g · a."""
    return sum_to(op, op.Mul(g, a), like=b, full=y)


@vjp("Div", wrt=0, broadcasts=True)
def div_a(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
    """y = a / b:  ā = g / b."""
    return sum_to(op, op.Div(g, b), like=a, full=y)


@vjp("Div", wrt=1, broadcasts=True)
def div_b(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
    """b̄ = −g · y / b."""
    return op.Neg(sum_to(op, op.Div(op.Mul(g, y), b), like=b, full=y))


@vjp("Mod", wrt=0, broadcasts=True)
def mod_a(op: Builder, g: Value, y: Value, a: Value, b: Value, *, fmod: int = 0) -> Value:
    """y = a − n·b with a whole number n:  ā = g."""
    return sum_to(op, g, like=a, full=y)


@vjp("Mod", wrt=1, broadcasts=True)
def mod_b(op: Builder, g: Value, y: Value, a: Value, b: Value, *, fmod: int = 0) -> Value:
    """b̄ = −g · n, n = (a − y) / b."""
    return op.Neg(sum_to(op, op.Mul(g, op.Div(op.Sub(a, y), b)), like=b, full=y))


@vjp("Pow", wrt=0, broadcasts=True)
def pow_x(op: Builder, g: Value, y: Value, x: Value, Y: Value) -> Value:
    """y = xⁿ:  x̄ = g · n · xⁿ⁻¹, and 0 for n = 0, at x = 0 too."""
    n = _exponent(op, Y, x)
    reduced = constant(n)
    if reduced is not None:
        power = op.const(reduced - 1 + (reduced == 0), like=x)
        slope = x if np.all(reduced == 2) else op.Pow(x, power)
    else:
        zero_exponent = indicator(op, op.Equal(n, op.const(0, like=n)), n)
        slope = op.Pow(x, op.Add(op.Sub(n, op.const(1, like=n)), zero_exponent))
    return sum_to(op, op.Mul(g, op.Mul(n, slope)), like=x, full=y)


@vjp("Pow", wrt=1, broadcasts=True)
def pow_y(op: Builder, g: Value, y: Value, x: Value, Y: Value) -> Value:
    """y = xⁿ:  n̄ = g · y · ln x, and 0 at x = 0."""
    slope = op.Mul(y, op.Log(nonzero(op, x)))
    return op.Cast(sum_to(op, op.Mul(g, slope), like=Y, full=y), to=Y.dtype)


def _exponent(op: Builder, n: Value, x: Value) -> Value:
    """Write the exponent in the dtype of x; the specification lets the two differ."""
    if n.dtype == x.dtype:
        return n
    array = constant(n)
    return op.Cast(n, to=x.dtype) if array is None else op.const(array, like=x)


@vjp("Sum", wrt=EACH, broadcasts=True)
def sum_(op: Builder, g: Value, y: Value, *data_0: Value, i: int) -> Value:
    """y = Σⱼ xⱼ:  x̄ᵢ = g."""
    return sum_to(op, g, like=data_0[i], full=y)


@vjp("Mean", wrt=EACH, broadcasts=True)
def mean(op: Builder, g: Value, y: Value, *data_0: Value, i: int) -> Value:
    """y = Σⱼ xⱼ / n:  x̄ᵢ = g / n."""
    return sum_to(op, op.Mul(g, op.const(1 / len(data_0), like=y)), like=data_0[i], full=y)


@vjp("Max", wrt=EACH, broadcasts=True)
@vjp("Min", wrt=EACH, broadcasts=True)
def extremum(op: Builder, g: Value, y: Value, *data_0: Value, i: int) -> Value:
    """y = max or min of all xⱼ:  x̄ᵢ = g · [xᵢ = y] / Σⱼ [xⱼ = y]; inputs that tie share evenly."""
    if len(data_0) == 1:
        return g
    hits = [indicator(op, op.Equal(x, y), y) for x in data_0]
    share = op.Div(hits[i], functools.reduce(op.Add, hits))
    return sum_to(op, op.Mul(g, share), like=data_0[i], full=y)


@vjp("Where", wrt=1, broadcasts=True)
def where_x(op: Builder, g: Value, y: Value, condition: Value, X: Value, Y: Value) -> Value:
    """y = X where c, else Y:  X̄ = g · c."""
    return sum_to(op, op.Mul(g, indicator(op, condition, y)), like=X, full=y)


@vjp("Where", wrt=2, broadcasts=True)
def where_y(op: Builder, g: Value, y: Value, condition: Value, X: Value, Y: Value) -> Value:
    """Ȳ = g · (1 − c)."""
    return sum_to(op, op.Mul(g, indicator(op, op.Not(condition), y)), like=Y, full=y)
