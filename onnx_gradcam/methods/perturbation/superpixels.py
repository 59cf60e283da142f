"""Superpixels: parts of an image that lie together and have one colour."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from onnx_gradcam.copies.scores import Array

ROUNDS = 5
COMPACTNESS = 0.1
"""How much the distance of a grid's cells counts against the range of colours."""


def superpixels(x: Array, count: int) -> Array:
    """Return for each pixel the number of its superpixel, from 0, (*space) int64: SLIC (Achanta et al. 2012).

    k-means over colour and place, starting from a grid of about ``count`` cells: a pixel joins the nearest of the
    clusters that started in its own cell and next to it. Unlike in the paper colours are those of the model's input,
    each channel by its own range, and parts of a superpixel that lie apart stay one.

    Args:
        x: (C, *space).
        count: about how many superpixels; no more than pixels.
    """
    space = x.shape[1:]
    cells = grid_of(space, count)
    colours = x.reshape(len(x), -1).astype(np.float64)
    low, spread = colours.min(axis=1, keepdims=True), np.ptp(colours, axis=1, keepdims=True)
    colours = (colours - low) / np.where(spread == 0, 1, spread) / np.sqrt(len(x) * COMPACTNESS)
    at = np.stack([line.ravel() for line in np.meshgrid(*map(_places, space, cells), indexing="ij")])
    features = np.concatenate([colours, at])
    home = np.floor(at).astype(np.int64)
    labels = np.ravel_multi_index(tuple(home), cells)
    for _ in range(ROUNDS):
        labels = _nearest(features, _means(features, labels, int(np.prod(cells))), home, cells)
    return np.unique(labels, return_inverse=True)[1].reshape(space).astype(np.int64)


def grid_of(space: Sequence[int], count: int) -> tuple[int, ...]:
    """Return into how many cells each axis is cut, so that there are about ``count``, as long as they are wide."""
    side = (np.prod(space, dtype=np.float64) / count) ** (1 / len(space))
    return tuple(int(np.clip(round(n / side), 1, n)) for n in space)


def _places(extent: int, cells: int) -> Array:
    """Return where the pixels of an axis lie, in cells."""
    return (np.arange(extent) + 0.5) * (cells / extent)


def _means(features: Array, labels: Array, count: int) -> Array:
    """Return the mean of each cluster, (features, count); infinity for one without pixels."""
    sizes = np.bincount(labels, minlength=count)
    sums = np.stack([np.bincount(labels, weights=line, minlength=count) for line in features])
    return np.asarray(np.where(sizes == 0, np.inf, sums / np.maximum(sizes, 1)))


def _nearest(features: Array, centres: Array, home: Array, cells: Sequence[int]) -> Array:
    """Return for each pixel the number of the nearest cluster of those that started in its cell or next to it."""
    best, labels = np.full(features.shape[1], np.inf), np.zeros(features.shape[1], np.int64)
    ends = np.array(cells)[:, None] - 1
    for step in itertools.product((-1, 0, 1), repeat=len(cells)):
        there = np.ravel_multi_index(tuple(np.clip(home + np.array(step)[:, None], 0, ends)), tuple(cells))
        distance = ((features - centres[:, there]) ** 2).sum(axis=0)
        closer = distance < best
        best, labels = np.where(closer, distance, best), np.where(closer, there, labels)
    return labels
