"""How alike two arrays of numbers are."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.copies.scores import Array


def correlation(a: Array, b: Array) -> float:
    """r = Σ (a − ā)(b − b̄) / √(Σ (a − ā)² · Σ (b − b̄)²); values that are all the same correlate with nothing: 0."""
    first, second = (np.asarray(values, np.float64).ravel() for values in (a, b))
    if (first == first[0]).all() or (second == second[0]).all():
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    first, second = first / np.abs(first).max(), second / np.abs(second).max()  # tiny squares would vanish
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def rank_correlation(a: Array, b: Array) -> float:
    """ρ = Pearson's r of the ranks of a and b; equal values share the mean of their ranks.   Spearman 1904.

    Values that are all the same correlate with nothing: 0.
    """
    return correlation(ranks(a), ranks(b))


def ranks(values: Array) -> Array:
    """Return the rank of each value, from 0; equal values share the mean of their ranks: (n,) float64."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts + 1) / 2)[places.ravel()], np.float64)
