"""Removal that leaves no trace: removed pixels are made up from their neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnx_gradcam.copies.scores import Array, Scoring, scores_of
from onnx_gradcam.metrics.order import ranks_of_removal

SHARES = (0.2, 0.4, 0.6, 0.8)
NOISE = 0.01  # σ of what is added to made-up pixels, as a share of the range of the image
PRECISE = 1e-5  # of the right-hand side: where the residual is smaller, made-up pixels stand
ROUNDS = 1000


def road(x: Array, heatmap: Array, probability: Scoring) -> float:
    """mean_s of ½ p(x without its lowest s) − ½ p(x without its highest s).   Rong et al. 2022, arXiv:2202.00449.

    s is 20, 40, 60 and 80 % of the pixels, by their ranks, equal values in a fixed random order. A removed pixel
    becomes the weighted mean of its neighbours, with a little noise (``made_up``), so that the shape of what was
    removed says nothing. The two orders in one figure as in pytorch-grad-cam (ROADCombined).

    Args:
        x: (C, *space).
        heatmap: (*space).
        probability: the scoring function.
    """
    scores = scores_of(probability, _removed(x, heatmap)).reshape(len(SHARES), 2)
    return float((scores[:, 0] - scores[:, 1]).mean() / 2)


def _removed(x: Array, heatmap: Array) -> Iterator[Array]:
    """Yield for each share the image without its lowest, and without its highest pixels."""
    ranks = ranks_of_removal(heatmap)
    for share in SHARES:
        count = round(share * ranks.size)
        yield made_up(x, ranks >= ranks.size - count)
        yield made_up(x, ranks < count)


def made_up(x: Array, removed: Array, seed: int = 0) -> Array:
    """Return an image whose removed pixels are the weighted mean of their neighbours, and a little noise.

    A neighbour along one axis weighs twice as much as one along two, and so on; neighbours that are removed, too, count
    by what they become: a system of linear equations, which is solved from coarse to fine.

    Args:
        x: (C, *space).
        removed: (*space) bool, not all of it.
        seed: what the noise is drawn from.

    Returns:
        (C, *space) of the dtype of x.
    """
    wide = x.astype(np.float64)
    filled = _filled(wide, removed)
    noise = np.random.default_rng(seed).standard_normal(x.shape) * NOISE * (wide.max() - wide.min())
    return np.where(removed, filled + noise, wide).astype(x.dtype)


def _filled(x: Array, removed: Array) -> Array:
    """Return the image with its removed pixels made up, by the method of conjugate gradients."""
    out = np.where(removed, _from_coarse(x, removed), x)
    degree = _neighbours(np.ones_like(x[:1]))

    def residual(values: Array) -> Array:
        return np.asarray((_neighbours(values) - degree * values) * removed)

    rest = residual(out)
    right = residual(np.where(removed, 0, x))
    size, step, square = _products(right, right), rest, _products(rest, rest)
    for _ in range(ROUNDS):
        if (square <= PRECISE**2 * size).all():
            break
        moved = -residual(step)
        along = _products(step, moved)
        length = np.divide(square, along, out=np.zeros_like(square), where=along > 0)
        out, rest = out + length * step, rest - length * moved
        before, square = square, _products(rest, rest)
        step = rest + np.divide(square, before, out=np.zeros_like(square), where=before > 0) * step
    return out


def _products(a: Array, b: Array) -> Array:
    """Return the scalar product of each channel of two images, (C, 1, …)."""
    of_channels = np.einsum("ci,ci->c", a.reshape(len(a), -1), b.reshape(len(b), -1))
    return np.asarray(of_channels.reshape(-1, *[1] * (a.ndim - 1)))


def _neighbours(x: Array) -> Array:
    """Return for each pixel the weighted sum of its neighbours; all weights together are 1, but at the edges."""
    out = x
    for axis in range(1, x.ndim):
        line = np.moveaxis(out, axis, 0)
        out = 2 * out
        wider = np.moveaxis(out, axis, 0)  # a view: what is added to it is added to out
        wider[1:] += line[:-1]
        wider[:-1] += line[1:]
    count = x.ndim - 1
    return np.asarray((out - 2**count * x) / (4**count - 2**count))


def _from_coarse(x: Array, removed: Array) -> Array:
    """Return a first guess of the removed pixels: what they become in an image of half the size."""
    known = np.broadcast_to(~removed, x.shape).astype(np.float64)
    if max(x.shape[1:]) < 2 or not removed.any():
        return x
    sums, counts = _halved(np.where(removed, 0, x)), _halved(known)
    coarse = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    solved = _filled(coarse, counts[0] == 0)
    for axis in range(1, x.ndim):
        solved = np.take(np.repeat(solved, 2, axis), range(x.shape[axis]), axis)
    return np.asarray(solved)


def _halved(x: Array) -> Array:
    """Return the sums over blocks of two pixels along each axis."""
    for axis in range(1, x.ndim):
        x = np.add.reduceat(x, range(0, x.shape[axis], 2), axis)
    return x
