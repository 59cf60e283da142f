"""How sure a mean is: an interval from drawing the values again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Mean:
    """A mean with its interval.

    Attributes:
        value: the mean; None where there are no values.
        low, high: the ends of the interval of 95 %; None for a single cluster, which says nothing of others.
        n: how many values.
        clusters: how many clusters they come from.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int


def bootstrap(values: Sequence[float], clusters: Sequence[Hashable] | None = None, *, seed: int = 0) -> Mean:
    """Return the mean of values with its percentile interval of 95 %, from 2,000 resamples.   Efron 1979.

    Whole clusters are drawn: values of one patient or one video are not independent.

    Args:
        values: the figures; NaN are left out.
        clusters: for each value the name of its cluster; None: each value is one by itself.
        seed: equal seeds give equal intervals.
    """
    names = range(len(values)) if clusters is None else clusters
    pairs = [(float(value), name) for value, name in zip(values, names, strict=True) if not np.isnan(value)]
    if not pairs:
        return Mean(None, None, None, 0, 0)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(name for _, name in pairs))}
    of = [numbers[name] for _, name in pairs]
    sums = np.bincount(of, weights=[value for value, _ in pairs])
    counts = np.bincount(of)
    mean = float(sums.sum() / counts.sum())
    if len(numbers) < 2:
        return Mean(mean, None, None, len(pairs), 1)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Mean(mean, float(low), float(high), len(pairs), len(numbers))
