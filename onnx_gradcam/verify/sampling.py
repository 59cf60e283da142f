"""Operators that read between elements in float64, as onnxruntime has them.

Each takes the shape of its output, its attributes, its inputs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Attributes = Mapping[str, Any]
Taps = list[tuple[np.ndarray, np.ndarray]]  # (element, weight) for all places, along one axis


def affine_grid(shape: tuple[int, ...], attributes: Attributes, theta: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Places = θ · (x, y, 1) for each cell (x, y) of a grid from −1 to 1, and (x, y, z, 1) for one in space."""
    ends = [1.0 if attributes.get("align_corners", 0) else 1 - 1 / n for n in shape[1:-1]]
    along = [np.linspace(-end, end, n) for end, n in zip(ends, shape[1:-1], strict=True)]
    cells = np.stack([*np.meshgrid(*along, indexing="ij")[::-1], np.ones(shape[1:-1])], -1)
    return np.asarray(np.einsum("...k,nck->n...c", cells, theta))


def grid_sample(shape: tuple[int, ...], attributes: Attributes, x: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """y(o) = Σ w · x around the place grid(o), which runs over [−1, 1] along each axis, the last axis first."""
    mode, padding = attributes.get("mode", "linear"), attributes.get("padding_mode", "zeros")
    corners = attributes.get("align_corners", 0)
    axes = []
    for k, size in enumerate(x.shape[2:]):
        at = grid[..., x.ndim - 3 - k]
        place = (at + 1) / 2 * (size - 1) if corners else ((at + 1) * size - 1) / 2
        axes.append(_around(place, size, mode, _border(padding, size, corners)))
    images = np.arange(len(x)).reshape(-1, *[1] * (grid.ndim - 2))
    return np.moveaxis(_read(x, images, axes), -1, 1)


def _border(padding: str, size: int, corners: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that moves a place off the axis to where padding puts it."""
    if padding == "zeros":
        return lambda place: place
    low, length = (0.0, size - 1.0) if corners else (-0.5, float(size))

    def border(place: np.ndarray) -> np.ndarray:
        if padding == "reflection" and length > 0:
            way = np.mod(place - low, 2 * length)
            place = np.minimum(way, 2 * length - way) + low
        return np.asarray(np.clip(place, 0, size - 1))

    return border


def _around(place: np.ndarray, size: int, mode: str, border: Callable[[np.ndarray], np.ndarray]) -> Taps:
    if mode == "nearest":
        taps = [(border(np.rint(place)), np.ones_like(place))]
    elif mode in ("linear", "bilinear"):
        taps = _linear(border(place))
    else:
        low = np.floor(place)
        taps = [(np.rint(border(low + k)), _keys(np.abs(place - low - k))) for k in (-1, 0, 1, 2)]
    return _on_axis(taps, size)


def _linear(place: np.ndarray) -> Taps:
    low = np.floor(place)
    return [(low, 1 - (place - low)), (low + 1, place - low)]


def _on_axis(taps: Taps, size: int) -> Taps:
    """Return the taps with weight 0 for elements beyond the axis."""
    kept = []
    for element, weight in taps:
        inside = np.clip(element, 0, size - 1)
        kept.append((inside.astype(np.int64), weight * (inside == element)))
    return kept


def _keys(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    return np.where(distance <= 1, near, far)


def _read(x: np.ndarray, images: np.ndarray, axes: Sequence[Taps]) -> np.ndarray:
    """Σ w₀ · w₁ · … · x[image, :, i₀, i₁, …], the channels last."""
    parts = []
    for taps in itertools.product(*axes):
        weight = math.prod(w for _, w in taps)
        index: tuple[Any, ...] = (images, slice(None), *(i for i, _ in taps))
        parts.append(np.asarray(weight)[..., None] * x[index])
    return np.asarray(sum(parts))


def roi_align(
    shape: tuple[int, ...], attributes: Attributes, x: np.ndarray, rois: np.ndarray, batch: np.ndarray
) -> np.ndarray:
    """Return the mean over samples in every cell of a box, or the largest weighted element of all samples."""
    mean = attributes.get("mode", "avg") == "avg"
    y = np.zeros(shape)
    for r, box in enumerate(rois):
        rows, columns = (
            list(_line(box, k, shape[3 - k], x.shape[3 - k], attributes)) for k in (1, 0)
        )  # per cell: (elements, weights) of its samples, two for each
        image = x[batch[r]]
        for p, q in np.ndindex(*shape[2:]):
            (i, v), (j, w) = rows[p], columns[q]
            if i.size and j.size:
                terms = image[:, i[:, None], j] * (v[:, None] * w)
                y[r, :, p, q] = terms.sum((1, 2)) / (i.size * j.size / 4) if mean else terms.max((1, 2))
    return y


def _line(
    box: np.ndarray, k: int, cells: int, size: int, attributes: Attributes
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    half = attributes.get("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    first, last = box[[k, k + 2]] * attributes.get("spatial_scale", 1.0) - (0.5 if half else 0.0)
    cell = (last - first if half else max(last - first, 1.0)) / cells
    count = attributes.get("sampling_ratio", 0) or max(math.ceil(cell), 0)
    for at in range(cells):
        place = first + at * cell + (np.arange(count) + 0.5) * cell / max(count, 1)
        inside = (place >= -1) & (place <= size)
        (low, u), (high, v) = _linear(np.clip(place, 0, size - 1))
        elements = np.stack([low, np.minimum(high, size - 1)], axis=1).astype(np.int64)
        yield elements.ravel(), (np.stack([u, v], axis=1) * inside[:, None]).ravel()


def max_roi_pool(shape: tuple[int, ...], attributes: Attributes, x: np.ndarray, rois: np.ndarray) -> np.ndarray:
    """Return the largest element of every cell of a box (image, x₁, y₁, x₂, y₂); 0 for a cell without elements."""
    y = np.zeros(shape)
    for r, (image, *box) in enumerate(rois):
        scaled = np.array(box) * attributes.get("spatial_scale", 1.0)
        edges = np.sign(scaled) * np.floor(np.abs(scaled) + 0.5)
        rows, columns = (_cells(edges[k], edges[k + 2], shape[3 - k], x.shape[3 - k]) for k in (1, 0))
        for p, q in np.ndindex(*shape[2:]):
            cell = x[int(image), :, rows[p], columns[q]]
            y[r, :, p, q] = cell.max((1, 2)) if cell.size else 0
    return y


def _cells(first: float, last: float, count: int, size: int) -> list[slice]:
    cell = np.float32(max(last - first + 1, 1)) / np.float32(count)
    edges = [(math.floor(k * cell) + first, math.ceil((k + 1) * cell) + first) for k in range(count)]
    return [slice(int(min(max(a, 0), size)), int(min(max(b, 0), size))) for a, b in edges]


def deform_conv(
    shape: tuple[int, ...], attributes: Attributes, x: np.ndarray, w: np.ndarray, offset: np.ndarray, *more: np.ndarray
) -> np.ndarray:
    """y(o) = Σ W(c, t) · x(c, place(t, o)) · mask(t, o) + b; ``more``: bias (one axis) and mask (four axes)."""
    group, parts = attributes.get("group", 1), attributes.get("offset_group", 1)
    taps = np.array(list(np.ndindex(*w.shape[2:])))
    moves = offset.reshape(len(x) * parts, len(taps), 2, *shape[2:])
    axes = []
    for k, size in enumerate(x.shape[2:]):
        stride, dilation, pad = ((attributes.get(n) or d)[k] for n, d in WINDOW_DEFAULTS.items())
        start = np.arange(shape[2 + k]).reshape(-1, *[1] * (1 - k)) * stride - pad
        place = moves[:, :, k] + start + (taps[:, k] * dilation)[:, None, None]
        axes.append(_on_axis(_linear(place), size))
    image = x.reshape(len(x) * parts, -1, *x.shape[2:])
    columns = _read(image, np.arange(len(image))[:, None, None, None], axes)
    for mask in (m for m in more if m.ndim == 4):
        columns *= mask.reshape(columns.shape[:-1])[..., None]
    columns = np.moveaxis(columns, -1, 1).reshape(len(x), group, -1, shape[2] * shape[3])
    y = (w.reshape(group, -1, columns.shape[2]) @ columns).reshape(shape)
    return np.asarray(y + sum(b.reshape(-1, 1, 1) for b in more if b.ndim == 1))


WINDOW_DEFAULTS = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0)}


def max_unpool(
    shape: tuple[int, ...], attributes: Attributes, x: np.ndarray, places: np.ndarray, *more: np.ndarray
) -> np.ndarray:
    """y[index] = x; of elements with the same index the last one."""
    y = np.zeros(shape)
    for place, element in zip(places.ravel(), x.ravel(), strict=True):
        y.flat[place] = element
    return y
