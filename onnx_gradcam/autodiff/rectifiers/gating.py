"""Guided backpropagation and deconvolution: the same walk, by tables in which the rectifiers have other rules.

With f a rectifier and g the cotangent of y = f(x):

    gradient                 x̄ = f′(x) · g
    guided backpropagation   x̄ = f′(x) · relu(g)     Springenberg et al. 2015, section 3
    deconvolution            x̄ = relu(g)             Zeiler and Fergus 2014, section 2.1

Which activations are rectifiers, ``graph.rectifiers`` and ``graph.composites`` say. What is none (a Sigmoid that gates,
a Softmax of attention, the number format of a quantized tensor) keeps its gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

from onnx_gradcam.autodiff.rectifiers.composites import Composite
from onnx_gradcam.autodiff.rectifiers.operators import CUTTING, OTHER, PIECEWISE, SMOOTH, Activation, activation
from onnx_gradcam.autodiff.registry import COMPOSITE, EACH, Key, PullBack, Rule, Rules, vjp
from onnx_gradcam.autodiff.rules import RULES
from onnx_gradcam.graph.builder import Builder, Value

RECTIFYING = PIECEWISE | SMOOTH | CUTTING


def _rectifies(y: Value) -> bool:
    node = y.producer()
    found = None if node is None else activation(node)
    return found is not None and found.kind != "other"


def _guided(rule: Rule) -> Rule:
    """x̄ = f′(x) · relu(g) where f is a rectifier."""

    def function(op: Builder, g: Value, y: Value, *inputs: Value | None, **attributes: Any) -> Value:
        return rule.function(op, op.Relu(g) if _rectifies(y) else g, y, *inputs, **attributes)

    return replace(rule, function=function)


def _deconvolution(rule: Rule) -> Rule:
    """x̄ = relu(g) where f is a rectifier."""

    def function(op: Builder, g: Value, y: Value, *inputs: Value | None, **attributes: Any) -> Value:
        return op.Relu(g) if _rectifies(y) else rule.function(op, g, y, *inputs, **attributes)

    return replace(rule, function=function)


def _deconvolved_format(rule: Rule) -> Rule:
    """x̄ = relu(g) where a Relu was folded into the format, else g: where numbers reach the ends of their format is no
    more asked than where a rectifier was active."""

    def function(op: Builder, g: Value, y: Value, x: Value, *steps: Value | None, **attributes: Any) -> Value:
        passed = op.Relu(g) if _rectifies(y) else g
        return op.Cast(passed, to=x.dtype) if g.dtype != x.dtype else passed

    return replace(rule, function=function)


def _overridden() -> dict[Key, Rule]:
    return {(name, i): rule for (name, i), rule in RULES.items() if name in RECTIFYING and i in (0, EACH)}


GUIDED_RULES: dict[Key, Rule] = RULES | {key: _guided(rule) for key, rule in _overridden().items()}
DECONVOLUTION_RULES: dict[Key, Rule] = RULES | {key: _deconvolution(rule) for key, rule in _overridden().items()}
DECONVOLUTION_RULES["QuantizeLinear", 0] = _deconvolved_format(RULES["QuantizeLinear", 0])


@vjp(COMPOSITE, wrt=0, broadcasts=True, nested=True, table=GUIDED_RULES)
def guided_composite(op: Builder, g: Value, y: Value, x: Value, *, composite: Composite, pull_back: PullBack) -> Value:
    """x̄ = f′(x) · relu(g), f′ the exact derivative of all the nodes by the ordinary rules."""
    (cotangent,) = pull_back(op, composite.nodes, {y: op.Relu(g)}, [x])
    return cotangent


@vjp(COMPOSITE, wrt=0, broadcasts=True, table=DECONVOLUTION_RULES)
def deconvolved_composite(op: Builder, g: Value, y: Value, x: Value, *, composite: Composite) -> Value:
    """x̄ = relu(g): the nodes are passed over."""
    passed = op.Relu(g)
    is_cast = x.dtype is not None and x.dtype.is_floating_point() and x.dtype != g.dtype
    return op.Cast(passed, to=x.dtype) if is_cast else passed


@dataclass(frozen=True)
class Gating:
    """The activations that a gradient passed through, by name, with how many there were of each.

    ``piecewise``: piecewise linear rectifiers that were gated; ``smooth``: others that were gated; ``left_alone``:
    activations that have their gradient.
    """

    piecewise: Mapping[str, int]
    smooth: Mapping[str, int]
    left_alone: Mapping[str, int]


def noting(table: Rules, seen: MutableMapping[str, tuple[Activation, bool]]) -> Rules:
    """``table``, with rules that write into ``seen`` which activations they are applied to, and whether they gate.

    By the names of what these return: a body that is differentiated for several values counts once.
    """
    noted = {}
    for key, rule in table.items():
        if key[0] in RECTIFYING | OTHER | {COMPOSITE}:
            noted[key] = _noting(rule, rule is not RULES.get(key), seen)
    return {**table, **noted}


def _noting(rule: Rule, gates: bool, seen: MutableMapping[str, tuple[Activation, bool]]) -> Rule:
    def function(op: Builder, g: Any, y: Any, *inputs: Value | None, **attributes: Any) -> Value:
        first: Value = y[0] if rule.multi else y
        found = _activation(first, attributes.get("composite"))
        if found is not None:
            seen[first.name or ""] = (found, gates and found.kind != "other")
        return rule.function(op, g, y, *inputs, **attributes)

    return replace(rule, function=function)


def _activation(y: Value, composite: Composite | None) -> Activation | None:
    if composite is not None:
        return Activation("piecewise" if composite.curve.piecewise else "smooth", composite.curve.name)
    node = y.producer()
    return None if node is None else activation(node)


def summary(noted: Iterable[tuple[Activation, bool]]) -> Gating:
    """The activations that ``noting`` wrote down, counted."""
    piecewise, smooth, left_alone = Counter[str](), Counter[str](), Counter[str]()
    for (kind, name), gated in noted:
        (left_alone if not gated else piecewise if kind == "piecewise" else smooth)[name] += 1
    return Gating(*(dict(sorted(c.items())) for c in (piecewise, smooth, left_alone)))
