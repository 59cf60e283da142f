"""Resampling with named filters, axis by axis, half-pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

YX = tuple[float, float]
"""A number for each axis, (y, x)."""


def _cubic(d: NDArray[Any], width: float) -> NDArray[Any]:
    """Keys 1981, a = −1/2."""
    x = abs(d) / width
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0))


FILTERS: dict[str, tuple[Callable[[NDArray[Any], float], NDArray[Any]], bool]] = {
    "linear": (lambda d, width: np.maximum(0, 1 - abs(d) / width), True),
    "linear-aliased": (lambda d, width: np.maximum(0, 1 - abs(d)), False),
    "cubic": (_cubic, True),
    "lanczos": (lambda d, width: np.sinc(d / width) * np.sinc(d / (3 * width)) * (abs(d) < 3 * width), True),
    "area": (lambda d, width: np.clip((width + 1) / 2 - abs(d), 0, 1), True),
    "nearest": (lambda d, width: (d > -0.5) & (d <= 0.5), False),
}
"""Name → a kernel of the distance in pixels, and whether it gets wider when a photo shrinks (else detail aliases)."""


def resample(
    array: NDArray[Any], shape: tuple[int, int], step: YX, start: YX, interpolation: str
) -> NDArray[np.float32]:
    """Resample (h, w, …) to ``shape`` (H, W, …): on each axis output pixel i is centred on (i + ½) · step + start.

    out = R · array · Cᵀ for each channel, R and C the weights of rows and of columns (``_bands``). The result is a view
    of memory in the order (…, H, W), as most models read it.
    """
    height, width = array.shape[:2]
    rows = _weighted(_bands(height, shape[0], step[0], start[0], interpolation), array.reshape(height, -1))
    planes = np.ascontiguousarray(np.moveaxis(rows.reshape(shape[0], width, -1), -1, 0)).reshape(-1, width)
    columns = np.empty((len(planes), shape[1]), np.float32)
    for band in _bands(width, shape[1], step[1], start[1], interpolation):
        np.matmul(planes[:, band.read], band.weights.T, out=columns[:, band.written])
    channels = columns.reshape(*array.shape[2:], *shape)
    return np.moveaxis(channels, (-2, -1), (0, 1))


def areas(values: NDArray[Any], shape: tuple[int, int], step: YX, start: YX = (0.0, 0.0)) -> NDArray[np.float32]:
    """Return means over areas, (H, W) float32: on each axis pixel i spans start + i · step to start + (i + 1) · step.

    Outside of ``values`` (h, w) everything counts as 0.
    """
    rows, columns = (
        np.stack([coverage(a + i * d, a + (i + 1) * d, n) / d for i in range(m)]).astype(np.float32)
        for n, m, d, a in zip(values.shape, shape, step, start, strict=True)
    )
    means: NDArray[np.float32] = rows @ values.astype(np.float32) @ columns.T
    return means


def coverage(start: float, end: float, count: int) -> NDArray[np.float64]:
    """Return (count,), for each of ``count`` pixels in a row the share that lies between ``start`` and ``end``."""
    edges = np.arange(count + 1)
    shares: NDArray[np.float64] = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None)
    return shares


@dataclass(frozen=True, eq=False)
class Band:
    """Some output pixels in a row, the input pixels that they are made of, and the weights (written, read) of these."""

    written: slice
    read: slice
    weights: NDArray[np.float32]


@lru_cache(maxsize=64)
def _bands(size: int, count: int, step: float, start: float, interpolation: str) -> tuple[Band, ...]:
    """Return the weights of ``count`` pixels made of ``size``, 16 at a time: further away all weights are 0.

    w_ij = k(j + ½ − c_i, w) / Σ_j k(…), c_i = (i + ½) · step + start, w = max(1, step).
    """
    kernel, widens = FILTERS[interpolation]
    width = max(1.0, step) if widens else 1.0
    centre = np.round((np.arange(count) + 0.5) * step + start, 9)  # rounding errors must not decide ties
    weights = kernel(np.arange(size) + 0.5 - centre[:, None], width)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    bands = []
    for i in range(0, count, 16):
        used = np.flatnonzero(weights[i : i + 16].any(axis=0))
        read = slice(int(used[0]), int(used[-1]) + 1)
        bands.append(Band(slice(i, min(i + 16, count)), read, np.ascontiguousarray(weights[i : i + 16, read])))
    return tuple(bands)


def _weighted(bands: Sequence[Band], rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return weighted sums of rows (n, m), (count, m): only what a band reads is ever a float."""
    out = np.empty((bands[-1].written.stop, rows.shape[1]), np.float32)
    for band in bands:
        np.matmul(band.weights, rows[band.read].astype(np.float32), out=out[band.written])
    return out
