"""Activations of com.microsoft, and those that its fused operators end with."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.lowering.registry import MICROSOFT, Unlowered, lowering


def gelu(op: Builder, x: Value) -> Value:
    """Write x · Φ(x), before opset 20 by simpler operators."""
    if op.opset >= 20:
        return op.Gelu(x)
    erf = op.Erf(op.Mul(x, op.const(math.sqrt(0.5), like=x)))
    return op.Mul(op.Mul(x, op.const(0.5, like=x)), op.Add(erf, op.const(1, like=x)))


def tanh_gelu(op: Builder, x: Value) -> Value:
    """Write x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), before opset 20 by simpler operators."""
    if op.opset >= 20:
        return op.Gelu(x, approximate="tanh")
    inner = op.Mul(x, op.Add(op.Mul(op.Mul(x, x), op.const(0.044715, like=x)), op.const(1, like=x)))
    tanh = op.Tanh(op.Mul(inner, op.const(math.sqrt(2 / math.pi), like=x)))
    return op.Mul(op.Mul(x, op.const(0.5, like=x)), op.Add(tanh, op.const(1, like=x)))


def silu(op: Builder, x: Value, alpha: float = 1.0) -> Value:
    """Write x · σ(α·x)."""
    return op.Mul(x, op.Sigmoid(x if alpha == 1 else op.Mul(x, op.const(alpha, like=x))))


def multiply(op: Builder, x: Value, alpha: float | None) -> Value:
    """Write α · x; α is 1 where it is None."""
    return x if alpha is None or alpha == 1 else op.Mul(x, op.const(alpha, like=x))


# The activations without parameters, and the names of the parameters of the others, in their order.
WITHOUT_PARAMETERS = ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign")
NUMBERS = {
    "LeakyRelu": ("alpha",),
    "Elu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Selu": ("alpha", "gamma"),
}


def activate(op: Builder, x: Value, activation: str, numbers: Sequence[float]) -> Value:
    """Write an activation of ``x``.

    Args:
        op: writes the nodes.
        x: the input.
        activation: its name; "" for none.
        numbers: its parameters, in their order.

    Raises:
        Unlowered: the activation is not known, or has another number of parameters.
    """
    if activation == "":
        return x
    if activation in WITHOUT_PARAMETERS:
        return op.node(activation, x, outputs=1)[0]
    if activation in NUMBERS and len(numbers) == len(NUMBERS[activation]):
        return op.node(activation, x, outputs=1, **dict(zip(NUMBERS[activation], numbers, strict=True)))[0]
    if activation == "Celu" and len(numbers) == 1:
        return multiply(op, op.Elu(multiply(op, x, 1 / numbers[0])), numbers[0])
    if activation == "HardSwish" and len(numbers) == 2:
        return op.Mul(x, op.HardSigmoid(x, alpha=numbers[0], beta=numbers[1]))
    if activation == "Clip" and len(numbers) == 2:
        return op.Clip(x, op.const(numbers[0], like=x), op.const(numbers[1], like=x))
    if activation in ("ScaledTanh", "ParametricSoftplus") and len(numbers) == 2:
        alpha, beta = numbers
        inner = multiply(op, x, beta)
        return multiply(op, op.Tanh(inner) if activation == "ScaledTanh" else op.Softplus(inner), alpha)
    raise Unlowered(f"no VJP rule for the activation {activation!r} with {len(numbers)} parameters")


@lowering("Gelu", domain=MICROSOFT)
def gelu_(op: Builder, X: Value) -> Value:
    """y = Gelu(X) = X · Φ(X)."""
    return gelu(op, X)


@lowering("BiasGelu", domain=MICROSOFT)
def bias_gelu(op: Builder, A: Value, B: Value) -> Value:
    """y = Gelu(A + B)."""
    return gelu(op, op.Add(A, B))


@lowering("FastGelu", domain=MICROSOFT)
def fast_gelu(op: Builder, X: Value, bias: Value | None = None) -> Value:
    """y = Gelu(X + bias), approximated by tanh."""
    return tanh_gelu(op, X if bias is None else op.Add(X, bias))


@lowering("QuickGelu", domain=MICROSOFT)
def quick_gelu(op: Builder, X: Value, *, alpha: float = 1.702) -> Value:
    """y = x · σ(α·x); the optimiser of onnxruntime makes this of x · σ(x), too."""
    return silu(op, X, alpha)


@lowering("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(op: Builder, X: Value, bias: Value) -> Value:
    """y = left · Gelu(right), the two halves of X + bias."""
    left, right = op.node("Split", op.Add(X, bias), outputs=2, axis=rank(X) - 1, num_outputs=2)
    return op.Mul(left, gelu(op, right))


@lowering("BiasAdd", domain=MICROSOFT)
def bias_add(op: Builder, X: Value, bias: Value, skip: Value) -> Value:
    """y = X + bias + skip."""
    return op.Add(op.Add(X, bias), skip)


@lowering("BiasSoftmax", domain=MICROSOFT)
def bias_softmax(op: Builder, data: Value, bias: Value, *, axis: int = 1, is_inner_broadcast: int) -> Value:
    """y = Softmax(data + bias) over all axes from ``axis`` on, taken as one; the bias broadcasts as in Add."""
    total = op.Add(data, bias)
    if axis % rank(data) == rank(data) - 1:
        return op.Softmax(total, axis=-1)
    return op.Reshape(op.Softmax(op.Flatten(total, axis=axis), axis=1), op.shape_of(data))
