"""Functions of one number: what elementwise operators compute, and which of them are rectifiers."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

NEAR = np.linspace(-8, 8, 33)  # where known activations are compared; it has −1, 0 and 1
GRID = np.concatenate([[-400.0, -200, -100], NEAR, [100, 200, 400]])  # where functions are evaluated
TOLERANCE = 2e-3  # of the value at 1; Gelu and its form with Tanh are 5e-4 apart, Gelu and QuickGelu 2e-2

erf = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: Array) -> Array:
    """Return σ(x), without an overflow that matters."""
    return np.asarray(1 / (1 + np.exp(-x)))


def softplus(x: Array) -> Array:
    """Return ln(1 + eˣ)."""
    return np.asarray(np.logaddexp(0, x))


def _clip(x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    return np.clip(x, -np.inf if low is None else low, np.inf if high is None else high)


def _quantize(x: Array, low: Array, high: Array) -> Array:
    """Return x clipped to the number format where a Clip was folded into it, else x.

    A range that begins at zero comes from a folded Clip, if it cuts off anything. Any other range fits the numbers.
    """
    return np.clip(x, low, high) if low == 0 and x.min() < 0 else x


def _elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _selu(x: Array, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323) -> Array:
    return gamma * _elu(x, alpha)


def _hard_sigmoid(x: Array, alpha: float = 0.2, beta: float = 0.5) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


def _leaky_relu(x: Array, alpha: float = 0.01) -> Array:
    return np.where(x > 0, x, alpha * x)


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Cast": lambda x, **_: x,
    "CastLike": lambda x, **_: x,
    "Clip": _clip,
    "DequantizeLinear": lambda x, *_, **__: x,
    "Div": np.divide,
    "Elu": _elu,
    "Erf": erf,
    "Exp": np.exp,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "HardSigmoid": _hard_sigmoid,
    "Identity": lambda x: x,
    "LeakyRelu": _leaky_relu,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Log": np.log,
    "Max": lambda *xs: functools.reduce(np.maximum, xs),
    "Min": lambda *xs: functools.reduce(np.minimum, xs),
    "Mul": np.multiply,
    "Neg": np.negative,
    "PRelu": lambda x, slope: np.where(x > 0, x, slope * x),
    "Pow": np.power,
    "QLinearAdd": np.add,
    "QLinearLeakyRelu": _leaky_relu,
    "QLinearMul": np.multiply,
    "QLinearSigmoid": sigmoid,
    "QuantizeLinear": lambda x, low, high, **_: _quantize(x, low, high),
    "Reciprocal": lambda x: 1 / x,
    "Relu": lambda x: np.maximum(x, 0),
    "Selu": _selu,
    "Sigmoid": sigmoid,
    "Softplus": softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Sum": lambda *xs: functools.reduce(operator.add, xs),
    "Tanh": np.tanh,
    "Where": np.where,
}


class Curve(NamedTuple):
    """What is known of a rectifier.

    Attributes:
        name: its name, "" if it has none.
        piecewise: whether it is piecewise linear.
        slope: the slope of the line as which it grows in the end, in the first channel.
    """

    name: str
    piecewise: bool
    slope: float


def describe(curve: Array) -> Curve | None:
    """Return what is known of a rectifier with these values, up to a positive factor; None for other functions.

    A rectifier passes large positive numbers on: to the right it is a rising line in the end. Negative numbers it stops
    or weakens: there it ends as a line less than half as steep.

    Args:
        curve: the values at GRID (points, channels).
    """
    slopes = np.diff(curve, axis=0) / np.diff(GRID)[:, None]
    falling, rising = slopes[0], slopes[-1]
    straight = np.abs(slopes[-2] - rising) <= TOLERANCE * np.abs(rising)
    if not np.isfinite(curve).all() or not (straight & (rising > 0)).all():
        return None
    if not np.median(np.abs(falling) / rising) < 0.5:
        return None
    lines = np.where(GRID[:, None] > 0, rising, falling) * GRID[:, None]
    if np.allclose(curve, lines, rtol=0, atol=1e-5 * np.abs(rising)):
        leaky = "LeakyRelu" if curve.shape[1] == 1 else "PRelu"
        return Curve("Relu" if not falling.any() else leaky, True, float(rising[0]))
    return Curve(_name(curve[3:-3, 0] / rising[0]), False, float(rising[0]))


def _name(near: Array) -> str:
    """Return the name of the known activation that has these values at NEAR, "" if none has."""
    gate = near[NEAR == 1][0]
    alpha = np.log(gate / (1 - gate)) if 0 < gate < 1 else 0.0
    known = {
        "SiLU": NEAR * sigmoid(NEAR),
        "QuickGelu": NEAR * sigmoid(1.702 * NEAR),
        "Gelu": NEAR * (1 + erf(NEAR / math.sqrt(2))) / 2,
        "HardSwish": NEAR * np.clip(NEAR / 6 + 0.5, 0, 1),
        "Mish": NEAR * np.tanh(softplus(NEAR)),
        "Softplus": softplus(NEAR),
        "Elu": _elu(NEAR, near[0] / np.expm1(NEAR[0])),
        "Swish": NEAR * sigmoid(alpha * NEAR),
    }
    return next((name for name, values in known.items() if np.abs(near - values).max() <= TOLERANCE), "")
