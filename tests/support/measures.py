"""How far two arrays are apart."""

from __future__ import annotations

from typing import Any

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


def close(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max(), rtol=0)


def scaled(maps: np.ndarray) -> np.ndarray:
    """Each divided by its largest magnitude, a blank one left at 0."""
    peak = np.abs(maps).max(axis=(1, 2), keepdims=True)
    return maps / np.where(peak == 0, 1, peak)
