"""The table of the Rescale rule for one graph with a second forward pass.   Shrikumar et al. 2017, arXiv:1704.02685.

Values of the second pass, that of the baseline, have the index 0; Δx = x − x₀.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from onnx_gradcam.autodiff.broadcast import sum_to
from onnx_gradcam.autodiff.guard import maker
from onnx_gradcam.autodiff.multipliers.twins import Twins
from onnx_gradcam.autodiff.precision import narrowed, widened
from onnx_gradcam.autodiff.registry import Key, Refused, Rule, Rules, Unwritten
from onnx_gradcam.autodiff.rules import RULES
from onnx_gradcam.autodiff.rules.normalization import TAKEN_APART
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.quantization import real_range

# Functions of one number → the least |Δx| by which is divided. In float32 a quotient of differences loses what these
# have in common with x; nearer than that the mean of the two derivatives is closer, but for straight pieces.
STRAIGHT = dict.fromkeys("Abs Clip HardSigmoid LeakyRelu PRelu Relu ThresholdedRelu".split(), 1e-10)
BENT = dict.fromkeys(
    "Acos Acosh Asin Atanh Celu Cosh Elu Exp HardSwish Log Pow Reciprocal Selu Sinh Softsign Sqrt Tan".split(), 3e-4
)
ROUND = dict.fromkeys("Asinh Atan Cos Erf Gelu Mish Sigmoid Sin Softplus Tanh".split(), 1e-2)
LEAST: Mapping[str, float] = {**STRAIGHT, **BENT, **ROUND}
LEAST_OF_MAXIMA = 1e-10
MAXIMA = frozenset("GlobalMaxPool MaxPool ReduceMax".split())
PRODUCTS = frozenset("Conv ConvTranspose Gemm MatMul Mul".split())
REFUSED = frozenset(
    "CumProd DeformConv Det Einsum GRU GlobalLpPool GridSample If InstanceNormalization LRN LSTM LogSoftmax "
    "LpNormalization LpPool Max MaxRoiPool MaxUnpool Min Mod RNN Range ReduceL1 ReduceLogSum ReduceLogSumExp ReduceMin "
    "ReduceProd TopK Unique".split()
)
LEAST_LOGARITHM = 1e-3  # below it the mean of two numbers is their logarithmic mean, but for 1e-7 of it


def rescale_rules(names: Mapping[str, str]) -> Callable[[Sequence[ir.Node]], Rules]:
    """Return what makes the table for the nodes of a graph, whose second pass has these names."""

    def table_for(nodes: Sequence[ir.Node]) -> Rules:
        twins = Twins(nodes, names)
        table = {key: rule for key, rule in RULES.items() if key[0] not in TAKEN_APART}
        return {key: _rule(key, rule, twins) for key, rule in table.items()}

    return table_for


def _rule(key: Key, rule: Rule, twins: Twins) -> Rule:
    """Return the rule of one input; ``rule`` is that of the gradient."""
    op_type, i = key
    if op_type in REFUSED:
        return replace(rule, function=_refusing)
    if op_type in LEAST and i == 0:
        return _quotient(rule, twins, LEAST[op_type], op_type in STRAIGHT)
    if op_type in MAXIMA:
        return _maximum(rule, twins)
    if op_type in PRODUCTS and i < 2:
        return _of_product(rule, twins, 1 - i)
    own = {
        ("Div", 0): _numerator,
        ("Div", 1): _divisor,
        ("Softmax", 0): _softmax,
        ("QuantizeLinear", 0): _quantized,
        ("ReduceL2", 0): _reduce_l2,
        ("ReduceSumSquare", 0): _reduce_sum_square,
        ("Where", 1): _where,
        ("Where", 2): _where,
    }.get(key)
    return rule if own is None else own(rule, twins)


def _refusing(op: Builder, *values: Any, **attributes: Any) -> Value:
    raise Refused("DeepLIFT has no rule")


def _original(y: Value, i: int) -> Value:
    """Return the input of the node that made ``y``."""
    node = maker(y)
    x = None if node is None else node.inputs[i]
    if x is None:
        raise Unwritten("a value that was written in the place of another")
    return x


def _mean(op: Builder, a: Value, b: Value) -> Value:
    return a if a is b else op.Mul(op.Add(a, b), op.const(0.5, like=a))


def _divided(op: Builder, numerator: Value, delta: Value, least: float, near: Value) -> Value:
    """Write numerator / Δ, and ``near`` where |Δ| is below ``least``."""
    is_near = op.Less(op.Abs(delta), op.const(least, like=delta))
    safe = op.Where(is_near, op.const(1, like=delta), delta)
    return op.Where(is_near, near, op.Div(numerator, safe))


def _quotient(rule: Rule, twins: Twins, least: float, is_straight: bool) -> Rule:
    """x̄ = g · Δy / Δx; where Δx is near 0 the gradient, or the mean of the gradients of both passes."""

    def function(op: Builder, g: Value, y: Value, x: Value, *others: Value | None, **attributes: Any) -> Value:
        own, y0 = _original(y, 0), twins.of(op, y)
        x0 = twins.of(op, own)
        near = widened(op, rule.function(op, g, y, x, *others, **attributes))
        if not is_straight:
            near = _mean(op, near, widened(op, rule.function(op, g, y0, x0, *others, **attributes)))
        change = op.Mul(widened(op, g), op.Sub(widened(op, y), widened(op, y0)))
        share = _divided(op, change, op.Sub(widened(op, own), widened(op, x0)), least, near)
        return narrowed(op, share, x)

    return replace(rule, function=function)


def _maximum(rule: Rule, twins: Twins) -> Rule:
    """x̄ = g · Δy / Δx at the element that is the largest where y is: in x for y > y₀, in x₀ for y < y₀; else 0."""

    def function(op: Builder, g: Value, y: Value, x: Value, *others: Value | None, **attributes: Any) -> Value:
        y0, x0 = twins.of(op, y), twins.of(op, x)
        change = op.Mul(widened(op, g), op.Sub(widened(op, y), widened(op, y0)))
        is_above = op.Less(y0, y)
        zero = op.const(0, like=change)
        above, below = op.Where(is_above, change, zero), op.Where(is_above, zero, change)
        of_x = rule.function(op, narrowed(op, above, g), y, x, *others, **attributes)
        of_x0 = rule.function(op, narrowed(op, below, g), y0, x0, *others, **attributes)
        delta = op.Sub(widened(op, x), widened(op, x0))
        shares = op.Add(widened(op, of_x), widened(op, of_x0))
        return narrowed(op, _divided(op, shares, delta, LEAST_OF_MAXIMA, op.const(0, like=delta)), x)

    return replace(rule, function=function)


def _of_product(rule: Rule, twins: Twins, other: int) -> Rule:
    """y = a · b:  ā = g · (b + b₀) / 2, so that Δy = Δa · (b + b₀) / 2 + Δb · (a + a₀) / 2."""

    def function(op: Builder, g: Value, y: Value, *inputs: Value, **attributes: Any) -> Value:
        mixed = list(inputs)
        mixed[other] = _mean(op, inputs[other], twins.of(op, inputs[other]))
        return rule.function(op, g, y, *mixed, **attributes)

    return replace(rule, function=function)


def _numerator(rule: Rule, twins: Twins) -> Rule:
    """y = a / b:  ā = g · (1/b + 1/b₀) / 2."""

    def function(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
        b0 = twins.of(op, _original(y, 1))
        share = op.Div(g, b)
        return sum_to(op, share if b0 is b else _mean(op, share, op.Div(g, b0)), like=a, full=y)

    return replace(rule, function=function)


def _divisor(rule: Rule, twins: Twins) -> Rule:
    """y = a / b:  b̄ = −g · (a + a₀) / (2 · b · b₀)."""

    def function(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
        a0, b0 = (twins.of(op, _original(y, i)) for i in (0, 1))
        share = op.Div(op.Div(op.Mul(g, _mean(op, a, a0)), b), b0)
        return op.Neg(sum_to(op, share, like=b, full=y))

    return replace(rule, function=function)


def _softmax(rule: Rule, twins: Twins) -> Rule:
    """x̄ = m · (g − Σ g·m / Σ m), m = Δy / Δ ln y the logarithmic mean of y and y₀.

    Δy = m · (Δx − Δ ln Z), and Δ ln Z = Σ m·Δx / Σ m, since all Δy add up to 0: as the gradient, with m for y.
    """

    def function(op: Builder, g: Value, y: Value, input: Value, *, axis: int = -1) -> Value:
        g = widened(op, g)
        logarithms = [op.LogSoftmax(widened(op, x), axis=axis) for x in (input, twins.of(op, input))]
        shares = [op.Exp(each) for each in logarithms]
        m = _divided(op, op.Sub(*shares), op.Sub(*logarithms), LEAST_LOGARITHM, _mean(op, *shares))
        axes = op.ints(axis)
        weighted = op.ReduceSum(op.Mul(g, m), axes, keepdims=1)
        mean = op.Div(weighted, op.ReduceSum(m, axes, keepdims=1))
        return narrowed(op, op.Mul(m, op.Sub(g, mean)), input)

    return replace(rule, function=function)


def _quantized(rule: Rule, twins: Twins) -> Rule:
    """x̄ = g · Δf / Δx, f the clip to the range of the number format: without its rounding."""

    def function(op: Builder, g: Value, y: Value, x: Value, *parameters: Value | None, **attributes: Any) -> Value:
        bounds = real_range(y)
        if bounds is None:
            return rule.function(op, g, y, x, *parameters, **attributes)
        own = _original(y, 0)
        ends = [op.const(bound, like=own) for bound in bounds]
        x0 = twins.of(op, own)
        change = op.Sub(op.Clip(own, *ends), op.Clip(x0, *ends))
        return _divided(op, op.Mul(narrowed(op, g, own), change), op.Sub(own, x0), LEAST["Clip"], narrowed(op, g, own))

    return replace(rule, function=function)


def _reduce_l2(rule: Rule, twins: Twins) -> Rule:
    """y = √Σx²:  x̄ = g · (x + x₀) / (y + y₀), 0 where both are 0."""

    def function(op: Builder, g: Value, y: Value, x: Value, *others: Value | None, **attributes: Any) -> Value:
        total = op.Add(y, twins.of(op, y))
        return rule.function(op, g, total, op.Add(x, twins.of(op, _original(y, 0))), *others, **attributes)

    return replace(rule, function=function)


def _reduce_sum_square(rule: Rule, twins: Twins) -> Rule:
    """y = Σx²:  x̄ = g · (x + x₀)."""

    def function(op: Builder, g: Value, y: Value, x: Value, *others: Value | None, **attributes: Any) -> Value:
        return rule.function(op, g, y, _mean(op, x, twins.of(op, _original(y, 0))), *others, **attributes)

    return replace(rule, function=function)


def _where(rule: Rule, twins: Twins) -> Rule:
    """As the gradient, where the condition is the same in both passes for certain."""

    def function(op: Builder, g: Value, y: Value, condition: Value, X: Value, Y: Value) -> Value:
        if twins.of(op, condition) is not condition:
            raise Refused("DeepLIFT has no rule, for a condition that depends on the input,")
        return rule.function(op, g, y, condition, X, Y)

    return replace(rule, function=function)
