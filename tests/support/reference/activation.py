"""Activations and means, element by element."""

from __future__ import annotations

import functools
import math

import numpy as np
from onnx.reference.op_run import OpRun


def erf(x: np.ndarray) -> np.ndarray:
    """Return the error function of every element, rounded once."""
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)


class Erf(OpRun):
    op_domain = ""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (erf(x),)


class Gelu(OpRun):
    """x · Φ(x), or its form with tanh."""

    op_domain = ""

    def _run(self, x: np.ndarray, approximate: str | None = None) -> tuple[np.ndarray]:
        if approximate == "tanh":
            return (x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)
        return (x / 2 * (1 + erf(x / math.sqrt(2))),)


class HardSwish(OpRun):
    """x · clip(x/6 + 1/2, 0, 1); the evaluator's own has 1/6 in float32."""

    op_domain = ""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (x * np.clip(x / 6 + 0.5, 0, 1),)


class Mean(OpRun):
    """Of any number of inputs; the evaluator's own adds in place, which refuses a first input that is broadcast."""

    op_domain = ""

    def _run(self, *data: np.ndarray) -> tuple[np.ndarray]:
        return (functools.reduce(np.add, data) / len(data),)


OPERATORS = (Erf, Gelu, HardSwish, Mean)
