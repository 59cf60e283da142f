"""Relevance rules of activations, products of two values, normalisations and number formats.

Achtibat et al. 2024 (AttnLRP, arXiv:2402.05602): an activation passes on all that it is given; of a product of two
values each gets half; what divides, as the deviation in a normalisation, is taken for a constant; a softmax has the
rule of the gradient. Arras et al. 2017 (arXiv:1706.07206): a gate gets nothing, what it gates gets all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx_ir as ir

from onnx_gradcam.autodiff.guard import maker
from onnx_gradcam.autodiff.precision import narrowed, widened
from onnx_gradcam.autodiff.rectifiers.composites import Composite
from onnx_gradcam.autodiff.rectifiers.operators import is_hard_sigmoid
from onnx_gradcam.autodiff.registry import COMPOSITE, EACH, Key, Refused, Rule, vjp
from onnx_gradcam.autodiff.relevance.linear import stabilized
from onnx_gradcam.autodiff.rules import RULES
from onnx_gradcam.autodiff.rules.elementwise import indicator
from onnx_gradcam.autodiff.rules.normalization import TAKEN_APART
from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.operators import MOVES, STORES

PASSING = frozenset(
    "Acos Acosh Asin Asinh Atan Atanh Celu Clip Cos Cosh Elu Erf Exp Gelu HardSigmoid HardSwish LRN Log "
    "LpNormalization Mish Pow Reciprocal Selu Sigmoid Sin Sinh Softplus Softsign Sqrt Tan Tanh".split()
)
REFUSED = frozenset("CumProd Det GRU LSTM Mod RNN Range ReduceProd".split())
SQUARES = frozenset({"ReduceSumSquare"})
GATES = frozenset("HardSigmoid Reciprocal Sigmoid Softmax".split())
# Inputs that say where another input is read, and how much of it.
STEERING = frozenset({("GridSample", 1), ("DeformConv", 2), ("DeformConv", 4)})


def flow_rules() -> dict[Key, Rule]:
    """Return the ordinary rules, with those of relevance where these are others; layers have theirs in ``linear``."""
    table = {key: rule for key, rule in RULES.items() if key[0] not in TAKEN_APART}
    table |= {key: replace(rule, function=_passing) for key, rule in table.items() if key[0] in PASSING and not key[1]}
    table |= {key: replace(rule, function=_refusing) for key, rule in table.items() if key[0] in REFUSED}
    table |= {key: _half(rule) for key, rule in table.items() if key[0] in SQUARES}
    for i in (0, 1):
        table["Mul", i] = replace(_half_of_two(RULES["Mul", i], i), stops=_is_gate)
        table["MatMul", i] = _half_of_two(RULES["MatMul", i], i)
    table["Div", 1] = replace(RULES["Div", 1], function=_passing_divisor, stops=_divides_what_varies)
    for key in (("GridSample", 1), ("DeformConv", EACH)):
        table[key] = replace(RULES[key], stops=_steers)
    table["QuantizeLinear", 0] = replace(RULES["QuantizeLinear", 0], function=_quantized)
    table["InstanceNormalization", 0] = replace(RULES["InstanceNormalization", 0], function=_instance_normalization)

    @vjp(COMPOSITE, wrt=0, broadcasts=True, table=table)
    def composite_rule(op: Builder, g: Value, y: Value, x: Value, *, composite: Composite) -> Value:
        """x̄ = g · y / x, whatever the nodes are."""
        return _passing(op, g, y, x)

    return table


def _passing(op: Builder, g: Value, y: Value, x: Value, *others: Value | None, **attributes: Any) -> Value:
    """R ↦ R:  x̄ = g · y / x."""
    wide = widened(op, x)
    relevance = op.Mul(widened(op, g), widened(op, y))
    return narrowed(op, op.Div(relevance, stabilized(op, wide)), x)


def _passing_divisor(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
    """y = a / b with a constant a, R ↦ R:  b̄ = g · y / b."""
    return _passing(op, g, y, op.fill(b, y))


def _refusing(op: Builder, *values: Any, **attributes: Any) -> Value:
    raise Refused("relevance has no rule")


def _half(rule: Rule) -> Rule:
    """x̄ = half of the gradient: y = x · x is of degree 2."""

    def function(op: Builder, g: Value, *values: Value | None, **attributes: Any) -> Value:
        return rule.function(op, op.Mul(g, op.const(0.5, like=g)), *values, **attributes)

    return replace(rule, function=function)


def _half_of_two(rule: Rule, i: int) -> Rule:
    """y = a · b:  ā = g · b, and half of that where b is not constant and no gate."""

    def function(op: Builder, g: Value, y: Value, a: Value, b: Value) -> Value:
        other = (b, a)[i]
        node = maker(y)
        if constant(other) is not None or (node is not None and _is_gate(node, 1 - i)):
            return rule.function(op, g, y, a, b)
        return _half(rule).function(op, g, y, a, b)

    return replace(rule, function=function)


def _is_gate(node: ir.Node, i: int) -> bool:
    """Tell whether input ``i`` of a Mul gates the other one; of two gates each gets half."""
    return node.op_type == "Mul" and _is_made_by_gate(node.inputs[i]) and not _is_made_by_gate(node.inputs[1 - i])


def _is_made_by_gate(value: Value | None) -> bool:
    """Tell whether a squashing activation, or a division, made ``value``; what moves or scales it does not count."""
    while value is not None and constant(value) is None and (node := value.producer()) is not None:
        if node.op_type in GATES or is_hard_sigmoid(node):
            return True
        if node.op_type not in MOVES | STORES and not _scales(node):
            return False
        value = next((v for v in node.inputs if v is not None and constant(v) is None), None)
    return False


def _scales(node: ir.Node) -> bool:
    """Tell whether ``node`` multiplies with a constant."""
    return node.op_type in ("Mul", "Div") and any(constant(v) is not None for v in node.inputs)


def _divides_what_varies(node: ir.Node, i: int) -> bool:
    """Tell whether input ``i`` of a Div divides a number that is not constant."""
    return i == 1 and constant(node.inputs[0]) is None


def _steers(node: ir.Node, i: int) -> bool:
    return (node.op_type, i) in STEERING


def _quantized(op: Builder, g: Value, y: Value, x: Value, *parameters: Value | None, **attributes: Any) -> Value:
    """R ↦ R, 0 where the integer stands for 0: there a Relu may have been folded into the number format."""
    kind, zero_point = x.dtype, parameters[1] if len(parameters) > 1 else None
    distance = op.Cast(y, to=kind)
    if zero_point is not None:
        distance = op.Sub(distance, op.Cast(zero_point, to=kind))
    return op.Mul(narrowed(op, g, x), indicator(op, op.Less(op.const(0, like=x), op.Abs(distance)), like=x))


def _instance_normalization(
    op: Builder, g: Value, y: Value, input: Value, scale: Value, b: Value, *, epsilon: float = 1e-5
) -> Value:
    """y = (x − μ) / σ · s + b with σ taken for a constant:  x̄ = (g·s − mean(g·s)) / σ."""
    x, axes = widened(op, input), op.ints(*range(2, rank(input)))
    centred = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
    by_channel = op.Unsqueeze(widened(op, scale), op.ints(*range(1, rank(input) - 1)))
    scaled = op.Mul(widened(op, g), by_channel)
    deviation = op.Sqrt(op.Add(variance, op.const(epsilon, like=x)))
    return narrowed(op, op.Div(op.Sub(scaled, op.ReduceMean(scaled, axes, keepdims=1)), deviation), input)
