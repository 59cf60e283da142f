"""Relevance rules of linear layers y = W·x + b.

R = g ⊙ y is the relevance of the outputs. Each rule returns x̄, such that x̄ ⊙ x is the relevance of the inputs; rules
of the first layer, whose relevance does not vanish where x does, divide by ``divisor(x)`` in its place. W⁺, W⁻, x⁺ and
x⁻ are the positive and the negative parts, and / is a division that is kept away from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnx_gradcam.autodiff import registry
from onnx_gradcam.autodiff.registry import PullBack
from onnx_gradcam.autodiff.relevance.layers import LinearLayer
from onnx_gradcam.autodiff.relevance.settings import STABILIZER, RelevanceSettings
from onnx_gradcam.autodiff.rules import RULES
from onnx_gradcam.graph.builder import Builder, Value, rank

Part = Callable[[np.ndarray], np.ndarray]
LEAST_DIVISOR = 2.0**-10  # of a number of the input, by which a relevance is divided and multiplied again


@dataclass(frozen=True, eq=False)
class Step:
    """One layer on the way back.

    Attributes:
        op: writes the nodes.
        layer: the layer.
        x: what it reads; not in 16 bits.
        g: the cotangent of ``layer.y``, likewise.
        y: what it hands on, likewise.
        pull_back: the walk, for the rule of the gradient.
        settings: the numbers of the rules.
        is_positive: whether no number of ``x`` is negative.
        is_rectified: whether nothing but a Relu reads ``layer.y``, so that negative outputs have no relevance.
    """

    op: Builder
    layer: LinearLayer
    x: Value
    g: Value
    y: Value
    pull_back: PullBack
    settings: RelevanceSettings
    is_positive: bool
    is_rectified: bool

    def const(self, weights: np.ndarray) -> Value:
        """Return weights as a value."""
        return self.op.const(weights, like=self.x)

    def forward(self, x: Value, w: Value, bias: np.ndarray | None = None) -> Value:
        """Write the layer with other inputs, weights and biases."""
        op, node = self.op, self.layer.node
        if node.op_type in ("Gemm", "MatMul"):
            product = op.MatMul(w, x) if self.layer.position else op.MatMul(x, w)
            return product if bias is None or not bias.any() else op.Add(product, op.const(bias, like=x))
        attributes = {a.name: a.value for a in node.attributes.values()}
        b = None if bias is None else op.const(bias, like=x)
        return op.node(node.op_type, x, w, b, outputs=1, **attributes)[0]

    def backward(self, s: Value, w: Value) -> Value:
        """Write Wᵀ·s with other weights."""
        op, node, i = self.op, self.layer.node, self.layer.position
        if node.op_type == "Gemm":
            return op.Gemm(s, w, transB=1)
        inputs = [w, self.x] if i else [self.x, w]
        return registry.call(RULES[node.op_type, i], op, node, i, ([s], [self.y], inputs), {}, self.pull_back)

    def share(self, z: Value, epsilon: float = STABILIZER) -> Value:
        """Write g · y / z, with z kept away from 0 by ε."""
        return self.op.Div(self.op.Mul(self.g, self.y), stabilized(self.op, z, epsilon))


def stabilized(op: Builder, z: Value, epsilon: float = STABILIZER) -> Value:
    """Write z + ε · sign z, with sign 0 = 1."""
    away = op.Where(op.Less(z, op.const(0, like=z)), op.const(-epsilon, like=z), op.const(epsilon, like=z))
    return op.Add(z, away)


def divisor(op: Builder, x: Value) -> Value:
    """Write x with 1 in the place of all that is near 0."""
    is_far = op.Less(op.const(LEAST_DIVISOR, like=x), op.Abs(x))
    return op.Where(is_far, x, op.const(1, like=x))


def epsilon(step: Step) -> Value:
    """R ↦ x ⊙ Wᵀ(R / (y + ε sign y)).   Bach et al. 2015, doi:10.1371/journal.pone.0130140, eq. 58."""
    size, w = step.settings.epsilon, step.const(step.layer.weights)
    if not step.settings.has_biases:
        return step.backward(step.share(step.forward(step.x, w), size), w)
    return step.backward(step.share(step.y, size) if size else step.g, w)


def alpha_beta(step: Step) -> Value:
    """R ↦ Σ over positive parts z⁺ of x·W + b: α z⁺ R / Σz⁺; less, over negative ones, β z⁻ R / Σz⁻; β = α − 1.

    Bach et al. 2015, eq. 60.
    """
    alpha = step.settings.alpha
    plus = _signed_parts(step, _positive, _negative, alpha)
    if alpha == 1:
        return plus
    return step.op.Sub(plus, _signed_parts(step, _negative, _positive, alpha - 1))


def z_plus(step: Step) -> Value:
    """αβ with α = 1, β = 0.   Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008."""
    return _signed_parts(step, _positive, _negative)


def excitation(step: Step) -> Value:
    """z⁺ without biases.   Zhang et al. 2016, arXiv:1608.00507."""
    return z_plus(replace(step, settings=replace(step.settings, has_biases=False)))


def gamma(step: Step) -> Value:
    """R ↦ x ⊙ (W + γW⁺)ᵀ(R / z), z = (W + γW⁺)·x + b + γb⁺; for negative x and y the other signs are taken.

    Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10, sec. 10.2.3; Andéol et al. 2021, arXiv:2103.01780.
    """
    size, op = step.settings.gamma, step.op

    def more(w: np.ndarray) -> np.ndarray:
        return w + size * _positive(w)

    def less(w: np.ndarray) -> np.ndarray:
        return w + size * _negative(w)

    if step.is_rectified:
        return _signed_parts(step, more, less)
    is_negative = op.Less(step.y, op.const(0, like=step.y))
    zero = op.const(0, like=step.g)
    of_positive = _signed_parts(step, more, less, g=op.Where(is_negative, zero, step.g))
    return op.Add(of_positive, _signed_parts(step, less, more, g=op.Where(is_negative, step.g, zero)))


def box(step: Step) -> Value:
    """R ↦ (x ⊙ Wᵀ − l ⊙ W⁺ᵀ − h ⊙ W⁻ᵀ)(R / z), z the same sum over x; l and h bound x.   Montavon et al. 2017."""
    op, x, weights = step.op, step.x, step.layer.weights
    signs = [step.const(part(weights)) for part in (_positive, _negative)]
    parts = [(x, step.const(weights)), *zip(_bounds(step), signs, strict=True)]
    z = [step.forward(each, w) for each, w in parts]
    s = step.share(op.Sub(op.Sub(z[0], z[1]), z[2]))
    shares = [op.Mul(each, step.backward(s, w)) for each, w in parts]
    return op.Div(op.Sub(op.Sub(shares[0], shares[1]), shares[2]), divisor(op, x))


def flat(step: Step) -> Value:
    """R ↦ 1ᵀ(R / 1·1), evenly among all inputs.   Lapuschkin et al. 2019, doi:10.1038/s41467-019-08987-4."""
    return _without_x(step, np.ones_like(step.layer.weights))


def w_square(step: Step) -> Value:
    """R ↦ (W²)ᵀ(R / (W²·1 + b²)).   Montavon et al. 2017."""
    return _without_x(step, step.layer.weights**2, step.layer.bias**2 if step.settings.has_biases else None)


def _without_x(step: Step, weights: np.ndarray, bias: np.ndarray | None = None) -> Value:
    ones = step.op.fill(step.op.const(1, like=step.x), step.x)
    w = step.const(weights)
    s = step.share(step.forward(ones, w, bias))
    return step.op.Div(step.backward(s, w), divisor(step.op, step.x))


def _bounds(step: Step) -> list[Value]:
    """Write the least and the largest number of the input, in its full shape."""
    op, x, settings = step.op, step.x, step.settings
    axes = op.ints(*range(2, rank(x))) if rank(x) > 2 else op.ints(-1)
    bounds = []
    for named, reduce in ((settings.low, op.ReduceMin), (settings.high, op.ReduceMax)):
        if named is None:
            bound = reduce(x, axes, keepdims=1)
        else:
            array = np.asarray(named, np.float64)
            bound = op.const(array.reshape(-1, *[1] * (rank(x) - 2)) if array.ndim else array, like=x)
        bounds.append(op.fill(bound, x))
    return bounds


def _signed_parts(step: Step, up: Part, down: Part, factor: float = 1.0, g: Value | None = None) -> Value:
    """Write x̄ for weights that are modified by ``up`` where x is positive, and by ``down`` where it is negative.

    Args:
        step: the layer.
        up: what is done to the weights for positive x, and to the bias.
        down: what is done to the weights for negative x.
        factor: by which the result is multiplied.
        g: the cotangent in the place of ``step.g``.
    """
    op, x, layer = step.op, step.x, step.layer
    bias = up(layer.bias) if step.settings.has_biases else None
    raised = step.const(up(layer.weights))
    r = op.Mul(step.g if g is None else g, step.y)
    r = r if factor == 1 else op.Mul(r, op.const(factor, like=r))
    if step.is_positive:
        return step.backward(op.Div(r, stabilized(op, step.forward(x, raised, bias))), raised)
    lowered, zero = step.const(down(layer.weights)), op.const(0, like=x)
    z = op.Add(step.forward(op.Relu(x), raised, bias), step.forward(op.Min(x, zero), lowered))
    s = op.Div(r, stabilized(op, z))
    return op.Where(op.Less(x, zero), step.backward(s, lowered), step.backward(s, raised))


def _positive(w: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(w, 0))


def _negative(w: np.ndarray) -> np.ndarray:
    return np.asarray(np.minimum(w, 0))


LAYER_RULES: Mapping[str, Callable[[Step], Value]] = {
    "epsilon": epsilon,
    "gamma": gamma,
    "alpha-beta": alpha_beta,
    "z-plus": z_plus,
    "excitation": excitation,
    "box": box,
    "flat": flat,
    "w-square": w_square,
}
OF_INPUT = frozenset({"box", "flat", "w-square"})
"""Rules of the first layer: what they return is no relevance of anything but the input."""
