"""How far two arrays are apart, one number for each row (image)."""

from __future__ import annotations

import numpy as np


def relative(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the relative L2 error of every row."""
    axes = tuple(range(1, expected.ndim))
    return np.sqrt(((found - expected) ** 2).sum(axes) / (expected**2).sum(axes))


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of every row of ``a`` and that of ``b``."""
    axes = tuple(range(1, a.ndim))
    return (a * b).sum(axes) / np.sqrt((a**2).sum(axes) * (b**2).sum(axes))


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of all elements of two arrays."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
