"""Normalisations, group by group and channel by channel."""

from __future__ import annotations

import math

import numpy as np
from onnx.reference.op_run import OpRun


class LRN(OpRun):
    """Channel by channel; the evaluator's own counts the batch where it means the channels."""

    op_domain = ""

    def _run(
        self, x: np.ndarray, size: int = 0, alpha: float = 0, beta: float = 0, bias: float = 0
    ) -> tuple[np.ndarray]:
        energy = np.zeros_like(x)
        for c in range(x.shape[1]):
            first, last = c - (size - 1) // 2, c + math.ceil((size - 1) / 2)
            energy[:, c] = (x[:, max(first, 0) : last + 1] ** 2).sum(1)
        return (x / (bias + alpha / size * energy) ** beta,)


class LpNormalization(OpRun):
    """The evaluator's own forgets the absolute value for p = 1."""

    op_domain = ""

    def _run(self, x: np.ndarray, axis: int = 0, p: int = 0) -> tuple[np.ndarray]:
        norm = np.linalg.norm(x, ord=p, axis=axis, keepdims=True)
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm != 0),)


class GroupNormalization(OpRun):
    """In the dtype of x; the function body that the evaluator runs keeps its constants in float32."""

    op_domain = ""

    def _run(
        self,
        x: np.ndarray,
        scale: np.ndarray,
        bias: np.ndarray,
        num_groups: int = 0,
        epsilon: float = 0,
        stash_type: int = 1,
    ) -> tuple[np.ndarray]:
        channels = x.shape[1]
        each = channels // len(scale)  # opset 18 has one scale per group
        scale, bias = (np.repeat(v, each).reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias))
        y = np.empty_like(x)
        for first in range(0, channels, channels // num_groups):
            part = x[:, first : first + channels // num_groups]
            axes = tuple(range(1, x.ndim))
            centred = part - part.mean(axes, keepdims=True)
            y[:, first : first + channels // num_groups] = centred / np.sqrt(
                (centred**2).mean(axes, keepdims=True) + epsilon
            )
        return (y * scale + bias,)


class MeanVarianceNormalization(OpRun):
    """In the dtype of x, as GroupNormalization."""

    op_domain = ""

    def _run(self, x: np.ndarray, axes: list[int] | None = None) -> tuple[np.ndarray]:
        axis = tuple(axes or ())
        return ((x - x.mean(axis, keepdims=True)) / (x.std(axis, keepdims=True) + 1e-9),)


class RMSNormalization(OpRun):
    """In the dtype of x; the evaluator's own computes in float32 only."""

    op_domain = ""

    def _run(
        self, x: np.ndarray, scale: np.ndarray, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
    ) -> tuple[np.ndarray]:
        axes = tuple(range(axis % x.ndim, x.ndim))
        return (x / np.sqrt((x * x).mean(axes, keepdims=True) + epsilon) * scale,)


OPERATORS = (LRN, LpNormalization, GroupNormalization, MeanVarianceNormalization, RMSNormalization)
