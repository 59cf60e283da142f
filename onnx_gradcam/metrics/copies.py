"""What a scoring function is asked: changed copies of an image, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Scoring = Callable[[Array], Array]
"""From copies of an image, (copies, C, *space), to the score of each, (copies,)."""

COPIES_AT_ONCE = 16
BLUR = 0.05  # σ of ``blurred`` as a share of the longest side
REACH = 3.0  # a Gaussian is cut at this many σ


def scores_of(score: Scoring, copies: Iterable[Array]) -> Array:
    """Return the score of each copy of an image, (copies,) float64.

    Args:
        score: the scoring function; it gets at most ``COPIES_AT_ONCE`` copies at a time.
        copies: arrays (C, *space), made when they are needed.
    """
    remaining = iter(copies)
    parts = []
    while batch := list(islice(remaining, COPIES_AT_ONCE)):
        parts.append(np.asarray(score(np.stack(batch)), np.float64))
    return np.concatenate(parts)


def ranks_of_removal(heatmap: Array, seed: int = 0) -> Array:
    """Return for each pixel its place in the order from the highest value down, 0 first, (*space) int.

    Pixels of equal value come in an order that is drawn from ``seed``, so a map that is the same everywhere removes
    pixels at random, and equal maps always remove the same ones.
    """
    flat = np.asarray(heatmap, np.float64).ravel()
    shuffled = np.random.default_rng(seed).permutation(flat.size)
    order = shuffled[np.argsort(-flat[shuffled], kind="stable")]
    ranks = np.empty(flat.size, np.int64)
    ranks[order] = np.arange(flat.size)
    return ranks.reshape(np.shape(heatmap))


def mean_colour(x: Array) -> Array:
    """Return an image that is the mean of ``x`` in each channel, everywhere: (C, *space)."""
    axes = tuple(range(1, x.ndim))
    return np.broadcast_to(x.mean(axis=axes, keepdims=True, dtype=np.float64).astype(x.dtype), x.shape)


def blurred(x: Array) -> Array:
    """Return ``x`` blurred so far that no object can be told, (C, *space): a Gaussian of σ = 0.05 · the longest side.

    Beyond the edge the weights are shared out among the pixels that there are.
    """
    out = np.asarray(x, np.float64)
    sigma = max(BLUR * max(x.shape[1:]), 1e-9)
    for extent in x.shape[1:]:
        apart = np.subtract.outer(np.arange(extent), np.arange(extent)) / sigma
        weights = np.where(np.abs(apart) <= REACH, np.exp(-(apart**2) / 2), 0)
        out = np.tensordot(out, weights / weights.sum(axis=0), axes=(1, 0))  # the new axis comes last: a full round
    return out.astype(x.dtype)
