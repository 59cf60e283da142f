"""Rules of trigonometric and hyperbolic functions and their inverses."""

from __future__ import annotations

from onnx_gradcam.autodiff.registry import vjp
from onnx_gradcam.graph.builder import Builder, Value


@vjp("Sin", wrt=0, broadcasts=True)
def sin(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = sin x:  x̄ = g · cos x."""
    return op.Mul(g, op.Cos(input))


@vjp("Cos", wrt=0, broadcasts=True)
def cos(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = cos x:  x̄ = −g · sin x."""
    return op.Neg(op.Mul(g, op.Sin(input)))


@vjp("Tan", wrt=0, broadcasts=True)
def tan(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = tan x:  x̄ = g · (1 + y²)."""
    return op.Mul(g, op.Add(op.Mul(y, y), op.const(1, like=y)))


@vjp("Sinh", wrt=0, broadcasts=True)
def sinh(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = sinh x:  x̄ = g · cosh x, (eˣ + e⁻ˣ)/2."""
    return op.Mul(g, op.Mul(op.Add(op.Exp(input), op.Exp(op.Neg(input))), op.const(0.5, like=input)))


@vjp("Cosh", wrt=0, broadcasts=True)
def cosh(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = cosh x:  x̄ = g · sinh x, (eˣ − e⁻ˣ)/2."""
    return op.Mul(g, op.Mul(op.Sub(op.Exp(input), op.Exp(op.Neg(input))), op.const(0.5, like=input)))


@vjp("Asin", wrt=0, broadcasts=True)
def asin(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = arcsin x:  x̄ = g / √(1 − x²)."""
    return op.Div(g, op.Sqrt(_one_minus_square(op, input)))


@vjp("Acos", wrt=0, broadcasts=True)
def acos(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = arccos x:  x̄ = −g / √(1 − x²)."""
    return op.Neg(op.Div(g, op.Sqrt(_one_minus_square(op, input))))


@vjp("Atan", wrt=0, broadcasts=True)
def atan(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = arctan x:  x̄ = g / (1 + x²)."""
    return op.Div(g, op.Add(op.Mul(input, input), op.const(1, like=input)))


@vjp("Asinh", wrt=0, broadcasts=True)
def asinh(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = arsinh x:  x̄ = g / √(1 + x²)."""
    return op.Div(g, op.Sqrt(op.Add(op.Mul(input, input), op.const(1, like=input))))


@vjp("Acosh", wrt=0, broadcasts=True)
def acosh(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = arcosh x:  x̄ = g / √(x² − 1)."""
    return op.Div(g, op.Sqrt(op.Neg(_one_minus_square(op, input))))


@vjp("Atanh", wrt=0, broadcasts=True)
def atanh(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = artanh x:  x̄ = g / (1 − x²)."""
    return op.Div(g, _one_minus_square(op, input))


def _one_minus_square(op: Builder, x: Value) -> Value:
    """Write 1 − x² as (1 − x)(1 + x), which keeps its digits near 1."""
    one = op.const(1, like=x)
    return op.Mul(op.Sub(one, x), op.Add(one, x))
