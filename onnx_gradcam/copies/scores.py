"""Ask a scoring function for changed copies of an image, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Scoring = Callable[[Array], Array]
"""From copies of an image, (copies, C, *space), to the score of each, (copies,), or of several targets, (copies, R)."""

COPIES_AT_ONCE = 16
VALUES_AT_ONCE = 2**24  # of copies of large images and of volumes fewer are scored together


def scores_of(score: Scoring, copies: Iterable[Array]) -> Array:
    """Return the score of each copy of an image, (copies,) float64; (copies, R) of R targets.

    Args:
        score: the scoring function; it gets at most ``COPIES_AT_ONCE`` copies at a time.
        copies: arrays (C, *space), made when they are needed.
    """
    return np.concatenate([np.asarray(score(np.stack(several)), np.float64) for several in in_batches(copies)])


def in_batches(copies: Iterable[Array]) -> Iterator[list[Array]]:
    """Yield copies of an image as lists of those that are scored together."""
    remaining = iter(copies)
    for first in remaining:
        count = max(1, min(COPIES_AT_ONCE, VALUES_AT_ONCE // first.size))
        yield [first, *islice(remaining, count - 1)]
