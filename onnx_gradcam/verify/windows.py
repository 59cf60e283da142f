"""Convolutions and pools in float64, tap by tap.

Each takes the shape of its output (which settles ceil_mode, output_padding and the like), its attributes, its inputs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from onnx_gradcam.graph.prepare.pools import SAME, same_pads

Attributes = Mapping[str, Any]


def conv(
    shape: tuple[int, ...], attributes: Attributes, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None
) -> np.ndarray:
    """y(o) = Σ W(t) · x(stride·o + dilation·t − pad) over the taps t, plus the bias."""
    group = attributes.get("group", 1)
    if group == len(w) == x.shape[1]:
        return _biased(_depthwise(shape, attributes, x, w), b)
    weights = w.reshape(group, -1, *w.shape[1:])
    y = np.zeros((len(x), group, weights.shape[1], math.prod(shape[2:])))
    for tap, part in _taps(x, shape, w.shape[2:], attributes, fill=0):
        y += weights[_last(tap)] @ part.reshape(len(x), group, w.shape[1], -1)
    return _biased(y.reshape(shape), b)


def _depthwise(shape: tuple[int, ...], attributes: Attributes, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    y = np.zeros(shape)
    for tap, part in _taps(x, shape, w.shape[2:], attributes, fill=0):
        y += part * w[_last(tap)].reshape(-1, *[1] * (len(shape) - 2))
    return y


def conv_transpose(
    shape: tuple[int, ...], attributes: Attributes, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None
) -> np.ndarray:
    """Every x(i) adds W(t) · x(i) at stride·i + dilation·t − pad, for all taps t; plus the bias."""
    group, (kernel, strides, dilations) = attributes.get("group", 1), _steps(w.shape[2:], attributes)
    reach = [s * (i - 1) + d * (k - 1) + 1 for i, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)]
    before = _crop(shape[2:], reach, attributes)
    room = [max(r, p + n) for r, p, n in zip(reach, before, shape[2:], strict=True)]
    y = np.zeros((len(x), shape[1], *room))
    weights = w.reshape(group, -1, *w.shape[1:]).swapaxes(1, 2)
    parts = x.reshape(len(x), group, w.shape[0] // group, -1)
    for tap in itertools.product(*map(range, kernel)):
        starts = [t * d for t, d in zip(tap, dilations, strict=True)]
        where = [slice(a, a + (i - 1) * s + 1, s) for a, i, s in zip(starts, x.shape[2:], strides, strict=True)]
        y[_last(where)] += (weights[_last(tap)] @ parts).reshape(len(x), -1, *x.shape[2:])
    kept = [slice(p, p + n) for p, n in zip(before, shape[2:], strict=True)]
    return _biased(y[_last(kept)], b)


def max_pool(shape: tuple[int, ...], attributes: Attributes, x: np.ndarray) -> np.ndarray:
    """Return the largest of each window; padding never counts."""
    taps = _taps(x, shape, attributes["kernel_shape"], attributes, fill=-np.inf)
    y = np.full(shape, -np.inf)
    for _, part in taps:
        np.maximum(y, part, out=y)
    return y


def lp_pool(shape: tuple[int, ...], attributes: Attributes, x: np.ndarray) -> np.ndarray:
    """Return the p-norm of each window."""
    p = attributes.get("p", 2)
    total = sum(np.abs(part) ** p for _, part in _taps(x, shape, attributes["kernel_shape"], attributes, fill=0))
    return np.asarray(total ** (1 / p))


def average_pool(shape: tuple[int, ...], attributes: Attributes, x: np.ndarray) -> np.ndarray:
    """Return the mean of each window. With ``count_include_pad`` padding counts, but not what lies beyond it."""
    kernel = attributes["kernel_shape"]
    pads = attributes.get("pads") or [0] * 2 * len(kernel)
    around = list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
    counted = np.pad(
        np.ones((1, 1, *x.shape[2:])), [(0, 0), (0, 0), *around], constant_values=attributes.get("count_include_pad", 0)
    )
    bare = {**attributes, "pads": None, "auto_pad": "VALID"} if any(pads) else attributes
    total = sum(part for _, part in _taps(x, shape, kernel, attributes, fill=0))
    count = sum(part for _, part in _taps(counted, shape, kernel, bare, fill=0))
    return np.asarray(total / count)


def _taps(
    x: np.ndarray, shape: Sequence[int], kernel: Sequence[int], attributes: Attributes, fill: float
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Every tap t of the kernel, with x at stride·o + dilation·t − pad for all windows o; ``shape``: of the output."""
    kernel, strides, dilations = _steps(kernel, attributes)
    spans = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(shape[2:], strides, dilations, kernel, strict=True)]
    before = _pads_before(x.shape[2:], kernel, attributes)
    after = [max(span - p - n, 0) for span, p, n in zip(spans, before, x.shape[2:], strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)], constant_values=fill)
    for tap in itertools.product(*map(range, kernel)):
        starts = [t * d for t, d in zip(tap, dilations, strict=True)]
        where = [slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, shape[2:], strides, strict=True)]
        yield tap, padded[_last(where)]


def _steps(kernel: Sequence[int], attributes: Attributes) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    ones = [1] * len(kernel)
    return kernel, attributes.get("strides") or ones, attributes.get("dilations") or ones


def _pads_before(sizes: Sequence[int], kernel: Sequence[int], attributes: Attributes) -> list[int]:
    auto_pad = attributes.get("auto_pad", "NOTSET")
    if auto_pad in SAME:
        strides = _steps(kernel, attributes)[1]
        return [same_pads(n, k, s, auto_pad)[0] for n, k, s in zip(sizes, kernel, strides, strict=True)]
    pads = attributes.get("pads") if auto_pad == "NOTSET" else None
    return list(pads[: len(sizes)]) if pads else [0] * len(sizes)


def _crop(sizes: Sequence[int], reach: Sequence[int], attributes: Attributes) -> list[int]:
    """Return how much ConvTranspose cuts off before its image: its pads, or half of what exceeds the given size."""
    auto_pad = attributes.get("auto_pad", "NOTSET")
    if not attributes.get("output_shape") and not auto_pad.startswith("SAME"):
        return _pads_before(sizes, sizes, attributes)
    extra = attributes.get("output_padding") or [0] * len(sizes)
    surplus = [max(r + e - n, 0) for r, e, n in zip(reach, extra, sizes, strict=True)]
    return [s // 2 if auto_pad == "SAME_UPPER" else s - s // 2 for s in surplus]


def _biased(y: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    return y if b is None else y + b.reshape(-1, *[1] * (y.ndim - 2))


def _last(index: Sequence[int | slice]) -> tuple[Any, ...]:
    """Return an index of the last axes."""
    return (..., *index)
