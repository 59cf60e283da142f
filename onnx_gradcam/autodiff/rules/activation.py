"""Rules of activation functions. They read masks from the output where possible: Conv and activation stay fused."""

from __future__ import annotations

import math

from onnx_gradcam.autodiff.broadcast import sum_to
from onnx_gradcam.autodiff.registry import Unwritten, vjp
from onnx_gradcam.autodiff.rules.elementwise import indicator, positive
from onnx_gradcam.graph.builder import Builder, Value


def _blend(op: Builder, mask: Value, yes: Value, no: Value) -> Value:
    """Write ``yes`` where the mask is 1 and ``no`` where it is 0."""
    return op.Add(no, op.Mul(mask, op.Sub(yes, no)))


@vjp("Relu", wrt=0, broadcasts=True)
def relu(op: Builder, g: Value, y: Value, x: Value) -> Value:
    """y = max(x, 0):  x̄ = g · [y > 0], 0 at 0."""
    return op.Mul(g, positive(op, y))


@vjp("LeakyRelu", wrt=0, broadcasts=True)
def leaky_relu(op: Builder, g: Value, y: Value, x: Value, *, alpha: float = 0.01) -> Value:
    """y = x where x > 0, else αx:  x̄ = g where x > 0, else αg."""
    if 0 <= alpha <= 1:
        return op.Mul(g, positive(op, y, below=alpha))
    return op.Mul(g, _blend(op, positive(op, x), op.const(1, like=x), op.const(alpha, like=x)))


@vjp("PRelu", wrt=0, broadcasts=True)
def prelu_x(op: Builder, g: Value, y: Value, x: Value, slope: Value) -> Value:
    """y = x where x > 0, else s·x:  x̄ = g where x > 0, else g · s."""
    return op.Mul(g, _blend(op, positive(op, x), op.const(1, like=x), slope))


@vjp("PRelu", wrt=1, broadcasts=True)
def prelu_slope(op: Builder, g: Value, y: Value, x: Value, slope: Value) -> Value:
    """s̄ = g · x where x ≤ 0, else 0."""
    below = op.Sub(op.const(1, like=x), positive(op, x))
    return sum_to(op, op.Mul(g, op.Mul(x, below)), like=slope, full=y)


@vjp("ThresholdedRelu", wrt=0, broadcasts=True)
def thresholded_relu(op: Builder, g: Value, y: Value, x: Value, *, alpha: float = 1.0) -> Value:
    """y = x where x > α, else 0:  x̄ = g · [x > α]."""
    return op.Mul(g, positive(op, op.Sub(x, op.const(alpha, like=x))))


@vjp("Clip", wrt=0, broadcasts=True)
def clip(op: Builder, g: Value, y: Value, input: Value, min: Value | None = None, max: Value | None = None) -> Value:
    """y = min(max(x, low), high):  x̄ = g · [x = y], 1 at the bounds (torch's clamp, not its relu6)."""
    return op.Mul(g, indicator(op, op.Equal(input, y), y))


@vjp("Sigmoid", wrt=0, broadcasts=True)
def sigmoid(op: Builder, g: Value, y: Value, x: Value) -> Value:
    """y = σ(x):  x̄ = g · y · (1 − y)."""
    return op.Mul(g, op.Mul(y, op.Sub(op.const(1, like=y), y)))


@vjp("HardSigmoid", wrt=0, broadcasts=True)
def hard_sigmoid(op: Builder, g: Value, y: Value, x: Value, *, alpha: float = 0.2, beta: float = 0.5) -> Value:
    """y = min(max(αx + β, 0), 1):  x̄ = g · α · [0 < y < 1]; y (1 − y) is above 0 just there."""
    inside = positive(op, op.Mul(y, op.Sub(op.const(1, like=y), y)))
    return op.Mul(g, op.Mul(inside, op.const(alpha, like=y)))


@vjp("Tanh", wrt=0, broadcasts=True)
def tanh(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = tanh(x):  x̄ = g · (1 − y²)."""
    return op.Mul(g, op.Sub(op.const(1, like=y), op.Mul(y, y)))


@vjp("HardSwish", wrt=0, broadcasts=True)
def hard_swish(op: Builder, g: Value, y: Value, x: Value) -> Value:
    """y = x · min(max(x/6 + ½, 0), 1):  x̄ = 0 for x ≤ −3, g for x ≥ 3, else g · (x/3 + ½).

    |x| < 3 just where 9 − x² > 0, in floating point too, and then it is more than 2⁻²².
    """
    inside = positive(op, op.Sub(op.const(9, like=x), op.Mul(x, x)), large=2.0**22)
    line = op.Add(op.Mul(x, op.const(1 / 3, like=x)), op.const(0.5, like=x))
    return op.Mul(g, _blend(op, inside, line, positive(op, x)))


@vjp("Softplus", wrt=0, broadcasts=True)
def softplus(op: Builder, g: Value, y: Value, x: Value) -> Value:
    """y = ln(1 + eˣ):  x̄ = g · σ(x)."""
    return op.Mul(g, op.Sigmoid(x))


@vjp("Softsign", wrt=0, broadcasts=True)
def softsign(op: Builder, g: Value, y: Value, input: Value) -> Value:
    """y = x / (1 + |x|):  x̄ = g / (1 + |x|)²."""
    root = op.Reciprocal(op.Add(op.Abs(input), op.const(1, like=y)))
    return op.Mul(g, op.Mul(root, root))


@vjp("Elu", wrt=0, broadcasts=True)
def elu(op: Builder, g: Value, y: Value, x: Value, *, alpha: float = 1.0) -> Value:
    """y = x where x > 0, else α(eˣ − 1):  x̄ = g where x > 0, else g · (y + α)."""
    return selu(op, g, y, x, alpha=alpha, gamma=1.0)


@vjp("Selu", wrt=0, broadcasts=True)
def selu(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    *,
    alpha: float = 1.6732631921768188,
    gamma: float = 1.0507010221481323,
) -> Value:
    """y = γx where x > 0, else γα(eˣ − 1):  x̄ = γg where x > 0, else g · (y + γα)."""
    below = op.Add(y, op.const(gamma * alpha, like=y))
    return op.Mul(g, _blend(op, positive(op, x), op.const(gamma, like=y), below))


@vjp("Celu", wrt=0, broadcasts=True)
def celu(op: Builder, g: Value, y: Value, x: Value, *, alpha: float = 1.0) -> Value:
    """y = x where x > 0, else α(eˣᐟᵅ − 1):  x̄ = g where x > 0, else g · (y/α + 1)."""
    one = op.const(1, like=y)
    below = op.Add(op.Mul(y, op.const(1 / alpha, like=y)), one)
    return op.Mul(g, _blend(op, positive(op, x), one, below))


@vjp("Mish", wrt=0, broadcasts=True)
def mish(op: Builder, g: Value, y: Value, x: Value) -> Value:
    """y = x·t, t = tanh(ln(1 + eˣ)):  x̄ = g · (t + x · σ(x) · (1 − t²)).

    With n = σ(x)(2 − σ(x)) t is n / (2 − n) and 1 − t² is (2(1 − σ(x)) / (2 − n))²: nothing overflows or cancels.
    """
    one, two = op.const(1, like=x), op.const(2, like=x)
    s = op.Sigmoid(x)
    n = op.Mul(s, op.Sub(two, s))
    rest = op.Sub(two, n)
    root = op.Div(op.Mul(two, op.Sub(one, s)), rest)
    return op.Mul(g, op.Add(op.Div(n, rest), op.Mul(op.Mul(x, s), op.Mul(root, root))))


@vjp("Gelu", wrt=0, broadcasts=True)
def gelu(op: Builder, g: Value, y: Value, x: Value, *, approximate: str = "none") -> Value:
    """y = x · Φ(x):  x̄ = g · (Φ(x) + x · φ(x)), Φ and φ the normal distribution and density.

    approximate="tanh":  Φ ≈ (1 + t)/2, t = tanh(√(2/π) · (x + 0.044715 x³)), and φ is the derivative of that.
    """
    if approximate not in ("none", "tanh"):
        raise Unwritten(f"approximate={approximate!r}")
    distribution, density = (_normal_tanh if approximate == "tanh" else _normal)(op, x)
    return op.Mul(g, op.Add(distribution, op.Mul(x, density)))


def _normal(op: Builder, x: Value) -> tuple[Value, Value]:
    """Write Φ(x) = (1 + erf(x/√2))/2 and φ(x) = exp(−x²/2)/√2π."""
    half = op.const(0.5, like=x)
    distribution = op.Add(op.Mul(op.Erf(op.Mul(x, op.const(math.sqrt(0.5), like=x))), half), half)
    bell = op.Exp(op.Mul(op.Mul(x, x), op.const(-0.5, like=x)))
    return distribution, op.Mul(bell, op.const(1 / math.sqrt(2 * math.pi), like=x))


def _normal_tanh(op: Builder, x: Value) -> tuple[Value, Value]:
    """Write (1 + t)/2 and its derivative.

    Beyond ±10, t is ±1 in every dtype, and x³ would overflow float16: there x is clipped.
    """
    half, one = op.const(0.5, like=x), op.const(1, like=x)
    x = op.Clip(x, op.const(-10, like=x), op.const(10, like=x))
    scale = math.sqrt(2 / math.pi)
    square = op.Mul(x, x)
    inner = op.Add(op.Mul(square, op.const(0.044715 * scale, like=x)), op.const(scale, like=x))
    slope = op.Add(op.Mul(square, op.const(3 * 0.044715 * scale, like=x)), op.const(scale, like=x))
    t = op.Tanh(op.Mul(x, inner))
    distribution = op.Add(op.Mul(t, half), half)
    return distribution, op.Mul(op.Mul(slope, half), op.Sub(one, op.Mul(t, t)))


@vjp("Softmax", wrt=0, broadcasts=True)
def softmax(op: Builder, g: Value, y: Value, input: Value, *, axis: int = -1) -> Value:
    """y = softmax(x):  x̄ = y·g − y · Σ y·g, summed along the axis."""
    weighted = op.Mul(g, y)
    return op.Sub(weighted, op.Mul(y, op.ReduceSum(weighted, op.ints(axis), keepdims=1)))


@vjp("LogSoftmax", wrt=0)
def log_softmax(op: Builder, g: Value, y: Value, input: Value, *, axis: int = -1) -> Value:
    """y = ln softmax(x):  x̄ = g − eʸ · Σ g, summed along the axis."""
    return op.Sub(g, op.Mul(op.Exp(y), op.ReduceSum(g, op.ints(axis), keepdims=1)))
