"""Rules of the pools.

The gradient of MaxPool is a mask over taps: no Indices (10 to 50 times slower than plain MaxPool, and missing on
several providers) and no scatter.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import Unwritten, vjp
from onnx_gradcam.autodiff.rules.axes import (
    crop,
    dims,
    interleave,
    length,
    pad,
    reshape,
    reshape_like,
    zeros_like,
)
from onnx_gradcam.autodiff.rules.windows import Windows, scatter, windows
from onnx_gradcam.graph.builder import Builder, Value, rank


@vjp("MaxPool", wrt=0)
def max_pool(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Value:
    """y(o) = max_t x(s·o + d·t − p):  x̄ is g where x was the first maximum of its window, row by row.

    Pooling an image is pooling its rows, then the columns of the result. The way back goes through both, and takes k
    comparisons along each axis instead of k² taps: first the row in which the maximum stood, then the place in it.
    """
    at = windows(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    axes = [j for j in range(len(at.kernel)) if (at.kernel[j], at.strides[j]) != (1, 1)]
    pooled = [x]
    for j in reversed(axes[1:]):
        pooled.append(_pool_axis(op, pooled[-1], at, j, ceil_mode if auto_pad == "NOTSET" else 0))
    for j, before, after in zip(axes, reversed(pooled), [y, *reversed(pooled[1:])], strict=True):
        g = _unpool_axis(op, g, after, before, at, j, ceil_mode)
    return g


def _pool_axis(op: Builder, x: Value, at: Windows, j: int, ceil_mode: int) -> Value:
    """MaxPool along spatial axis j alone."""
    n = len(at.kernel)

    def only(values: Sequence[int], other: int) -> list[int]:
        return [v if i == j else other for i, v in enumerate(values)]

    return op.MaxPool(
        x,
        kernel_shape=only(at.kernel, 1),
        strides=only(at.strides, 1),
        dilations=only(at.dilations, 1),
        pads=only(at.before, 0) + only(at.after, 0),
        ceil_mode=ceil_mode,
    )


def _unpool_axis(op: Builder, g: Value, y: Value, x: Value, at: Windows, j: int, ceil_mode: int) -> Value:
    """The rule of a MaxPool along one axis.

    x is cut into s phases P_i(q) = x(s·q + i), so that tap t of all windows is one contiguous piece of one phase:
    x(s·o + d·t − p) = P_i(o + q) with s·q + i = d·t − p. What earlier taps have not claimed of g remains for the later
    ones, and the last tap takes the rest.
    """
    axis, s, k, d = 2 + j, at.strides[j], at.kernel[j], at.dilations[j]
    size, count = at.sizes[j], at.counts[j]
    ...
