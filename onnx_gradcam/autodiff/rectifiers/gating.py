"""Guided backpropagation and deconvolution: the same walk, by tables in which the rectifiers have other rules.

With f a rectifier and g the cotangent of y = f(x):

    gradient                 x̄ = f′(x) · g
    guided backpropagation   x̄ = f′(x) · relu(g)     Springenberg et al. 2015, section 3
    deconvolution            x̄ = relu(g)             Zeiler and Fergus 2014, section 2.1

``operators`` and ``composites`` tell which activations are rectifiers. All others (a Sigmoid that gates, a Softmax of
attention, the number format of a quantized tensor) keep their gradient. Which rectifiers are gated is a choice of the
user (``GATES``): all of them, or max(x, 0) alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

from onnx_gradcam.autodiff.rectifiers.composites import Composite
from onnx_gradcam.autodiff.rectifiers.operators import (
    CUTTING,
    OTHER,
    PIECEWISE,
    SMOOTH,
    Activation,
    activation,
    is_relu,
)
from onnx_gradcam.autodiff.registry import COMPOSITE, EACH, Key, PullBack, Rule, Rules, vjp
from onnx_gradcam.autodiff.rules import RULES
from onnx_gradcam.graph.builder import Builder, Value

RECTIFYING = PIECEWISE | SMOOTH | CUTTING
Gate = Callable[[Value, Composite | None], bool]
"""Tells whether an activation is gated, by its output and, where it is written as several nodes, these."""


def _is_rectifier(y: Value, composite: Composite | None) -> bool:
    """Tell whether ``y`` is the output of a rectifier of any form."""
    if composite is not None:
        return True
    node = y.producer()
    role = None if node is None else activation(node)
    return role is not None and role.kind != "other"


def _is_relu(y: Value, composite: Composite | None) -> bool:
    """Tell whether ``y`` is max(x, 0)."""
    if composite is not None:
        return composite.curve.name == "Relu"
    node = y.producer()
    return node is not None and is_relu(node)


GATES: Mapping[str, Gate] = {"all": _is_rectifier, "relu": _is_relu}
"""Which activations are gated: all rectifiers, or max(x, 0) alone, as libraries do that gate modules by their class."""


def _guided_rule(rule: Rule, gates: Gate) -> Rule:
    """x̄ = f′(x) · relu(g) where f is gated."""

    def function(op: Builder, g: Value, y: Value, *inputs: Value | None, **attributes: Any) -> Value:
        return rule.function(op, op.Relu(g) if gates(y, None) else g, y, *inputs, **attributes)

    return replace(rule, function=function, gates=gates)


def _deconvolution_rule(rule: Rule, gates: Gate) -> Rule:
    """x̄ = relu(g) where f is gated."""

    def function(op: Builder, g: Value, y: Value, *inputs: Value | None, **attributes: Any) -> Value:
        return op.Relu(g) if gates(y, None) else rule.function(op, g, y, *inputs, **attributes)

    return replace(rule, function=function, gates=gates)


def _deconvolution_rule_of_format(rule: Rule, gates: Gate) -> Rule:
    """x̄ = relu(g) where a Relu was folded into the number format, else g.

    It ignores which numbers the format cut off, as deconvolution ignores where a rectifier was active.
    """

    def function(op: Builder, g: Value, y: Value, x: Value, *steps: Value | None, **attributes: Any) -> Value:
        cotangent = op.Relu(g) if gates(y, None) else g
        return op.Cast(cotangent, to=x.dtype) if g.dtype != x.dtype else cotangent

    return replace(rule, function=function, gates=gates)


def _rectifier_rules() -> dict[Key, Rule]:
    """Return the ordinary rules of all operators that may be rectifiers."""
    return {(name, i): rule for (name, i), rule in RULES.items() if name in RECTIFYING and i in (0, EACH)}


def guided_rules(gates: Gate) -> dict[Key, Rule]:
    """Return the rules of guided backpropagation."""
    table = RULES | {key: _guided_rule(rule, gates) for key, rule in _rectifier_rules().items()}

    @vjp(COMPOSITE, wrt=0, broadcasts=True, nested=True, table=table)
    def composite_rule(
        op: Builder, g: Value, y: Value, x: Value, *, composite: Composite, pull_back: PullBack
    ) -> Value:
        """x̄ = f′(x) · relu(g) where f is gated, f′ the exact derivative of all the nodes by the ordinary rules."""
        (cotangent,) = pull_back(op, composite.nodes, {y: op.Relu(g) if gates(y, composite) else g}, [x])
        return cotangent

    table[COMPOSITE, 0] = replace(table[COMPOSITE, 0], gates=gates)
    return table


def deconvolution_rules(gates: Gate) -> dict[Key, Rule]:
    """Return the rules of deconvolution."""
    table = RULES | {key: _deconvolution_rule(rule, gates) for key, rule in _rectifier_rules().items()}
    table["QuantizeLinear", 0] = _deconvolution_rule_of_format(RULES["QuantizeLinear", 0], gates)

    @vjp(COMPOSITE, wrt=0, broadcasts=True, nested=True, table=table)
    def composite_rule(
        op: Builder, g: Value, y: Value, x: Value, *, composite: Composite, pull_back: PullBack
    ) -> Value:
        """x̄ = relu(g) where f is gated, whatever the nodes are; else their gradient."""
        if not gates(y, composite):
            (cotangent,) = pull_back(op, composite.nodes, {y: g}, [x])
            return cotangent
        cotangent = op.Relu(g)
        is_cast = x.dtype is not None and x.dtype.is_floating_point() and x.dtype != g.dtype
        return op.Cast(cotangent, to=x.dtype) if is_cast else cotangent

    table[COMPOSITE, 0] = replace(table[COMPOSITE, 0], gates=gates)
    return table


GUIDED_RULES = guided_rules(GATES["all"])
DECONVOLUTION_RULES = deconvolution_rules(GATES["all"])


@dataclass(frozen=True)
class Gating:
    """The activations that a gradient passed through: their names, and how many there were of each.

    Attributes:
        piecewise: piecewise linear rectifiers that were gated.
        smooth: other rectifiers that were gated.
        left_alone: activations that kept their gradient.
    """

    piecewise: Mapping[str, int]
    smooth: Mapping[str, int]
    left_alone: Mapping[str, int]


def watch_activations(table: Rules, seen: MutableMapping[str, tuple[Activation, bool]]) -> Rules:
    """Return ``table`` with rules that note the activations that they are applied to.

    Args:
        table: the VJP rules.
        seen: where they note each activation, and whether it was gated, by the name of its output. So a body that is
            differentiated for several values counts once.
    """
    watched = {key: _watch(rule, seen) for key, rule in table.items() if key[0] in RECTIFYING | OTHER | {COMPOSITE}}
    return {**table, **watched}


def _watch(rule: Rule, seen: MutableMapping[str, tuple[Activation, bool]]) -> Rule:
    """Return a rule that notes the activation in ``seen``, then does what ``rule`` does."""

    def function(op: Builder, g: Any, y: Any, *inputs: Value | None, **attributes: Any) -> Value:
        first: Value = y[0] if rule.multi else y
        composite = attributes.get("composite")
        role = _activation_of(first, composite)
        if role is not None:
            seen[first.name or ""] = (role, rule.gates is not None and rule.gates(first, composite))
        return rule.function(op, g, y, *inputs, **attributes)

    return replace(rule, function=function)


def _activation_of(y: Value, composite: Composite | None) -> Activation | None:
    """Return which activation made ``y``, or None."""
    if composite is not None:
        return Activation("piecewise" if composite.curve.piecewise else "smooth", composite.curve.name)
    node = y.producer()
    return None if node is None else activation(node)


def summary(seen: Iterable[tuple[Activation, bool]]) -> Gating:
    """Return the counts of the activations that ``watch_activations`` noted."""
    piecewise, smooth, left_alone = Counter[str](), Counter[str](), Counter[str]()
    for (kind, name), is_gated in seen:
        (left_alone if not is_gated else piecewise if kind == "piecewise" else smooth)[name] += 1
    return Gating(*(dict(sorted(c.items())) for c in (piecewise, smooth, left_alone)))
