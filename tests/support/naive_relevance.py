"""Layer-wise relevance propagation straight from the papers: every z_jk of a small network is written out, in float64.

A linear layer is its matrix, found by asking for what it makes of unit vectors; relevance is shared by plain quotients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
EPSILON = 1e-6


def correlate(x: Array, w: Array, stride: int, pad: int, group: int = 1) -> Array:
    """Return the convolution of one image (C, H, W), by its definition."""
    padded = np.pad(x, [(0, 0), (pad, pad), (pad, pad)])
    outputs, inputs, k, _ = w.shape
    size = (padded.shape[1] - k) // stride + 1
    y = np.zeros((outputs, size, size))
    for o in range(outputs):
        first = o // (outputs // group) * inputs
        for i in range(size):
            for j in range(size):
                window = padded[first : first + inputs, i * stride : i * stride + k, j * stride : j * stride + k]
                y[o, i, j] = (window * w[o]).sum()
    return y


def matrix_of(linear: Callable[[Array], Array], shape: Sequence[int]) -> Array:
    """Return (inputs, outputs), what a linear function makes of each unit vector."""
    units = np.eye(int(np.prod(shape)))
    return np.stack([linear(unit.reshape(shape)).ravel() for unit in units])


@dataclass
class Linear:
    """y = xᵀ·matrix + bias; kind "convolution" or "linear"."""

    kind: str
    matrix: Array
    bias: Array

    def forward(self, x: Array) -> Array:
        return x @ self.matrix + self.bias


@dataclass
class Pool:
    """The mean over groups of inputs, (outputs, members)."""

    members: Array

    def forward(self, x: Array) -> Array:
        return x[self.members].mean(axis=1)

    def back(self, x: Array, y: Array, r: Array) -> Array:
        found = np.zeros_like(x)
        for out, group in enumerate(self.members):
            found[group] += x[group] / len(group) / y[out] * r[out]
        return found


@dataclass
class MaxPool:
    """The largest of groups of inputs; it wins all."""

    members: Array

    def forward(self, x: Array) -> Array:
        return x[self.members].max(axis=1)

    def back(self, x: Array, y: Array, r: Array) -> Array:
        found = np.zeros_like(x)
        for out, group in enumerate(self.members):
            found[group[x[group].argmax()]] += r[out]
        return found


class Relu:
    def forward(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def back(self, x: Array, y: Array, r: Array) -> Array:
        return r


def quotient(z: Array, bias: Array, r: Array, epsilon: float = EPSILON) -> Array:
    """Return Σ_k z_jk / (Σ_j z_jk + b_k) · R_k, with ε in the direction of the divisor."""
    total = z.sum(axis=0) + bias
    return (z / (total + np.where(total < 0, -epsilon, epsilon)) * r).sum(axis=1)


def positive(z: Array) -> Array:
    return np.maximum(z, 0)


def negative(z: Array) -> Array:
    return np.minimum(z, 0)


def through(layer: Linear, x: Array, r: Array, rule: str, **numbers: Any) -> Array:
    """Return the relevance of x by one rule of a linear layer."""
    w, b = layer.matrix, layer.bias * numbers.get("has_biases", True)
    z = x[:, None] * w
    if rule == "epsilon":
        return quotient(z, b, r, numbers.get("epsilon", EPSILON))
    if rule == "z-plus":
        return quotient(positive(z), positive(b), r)
    if rule == "excitation":
        return quotient(positive(z), 0 * b, r)
    if rule == "alpha-beta":
        alpha = numbers.get("alpha", 2.0)
        speaks_for = quotient(positive(z), positive(b), r)
        return alpha * speaks_for - (alpha - 1) * quotient(negative(z), negative(b), r)
    if rule == "gamma":
        gamma, y = numbers.get("gamma", 0.25), layer.forward(x)  # its sign is that of the output, bias and all
        above = quotient(z + gamma * positive(z), b + gamma * positive(b), r * (y > 0))
        return above + quotient(z + gamma * negative(z), b + gamma * negative(b), r * (y < 0))
    if rule == "box":
        low, high = numbers["low"], numbers["high"]
        return quotient(z - low[:, None] * positive(w) - high[:, None] * negative(w), 0 * b, r)
    if rule == "flat":
        return quotient((w != 0) * 1.0, 0 * b, r)
    assert rule == "w-square"
    return quotient(w**2, b**2, r)


def relevance(layers: Sequence[Any], x: Array, target: int, rules: dict[str, str], **numbers: Any) -> Array:
    """Return the relevance of x for one output of a chain of layers."""
    values = [x]
    for layer in layers:
        values.append(layer.forward(values[-1]))
    r = values[-1] * np.eye(len(values[-1]))[target]
    first = next(k for k, layer in enumerate(layers) if isinstance(layer, Linear))
    for k in reversed(range(len(layers))):
        layer = layers[k]
        if isinstance(layer, Linear):
            rule = rules["first"] if k == first and rules.get("first") else rules[layer.kind]
            r = through(layer, values[k], r, rule, **numbers)
        else:
            r = layer.back(values[k], values[k + 1], r)
    return r
