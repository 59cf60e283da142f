"""Closed contours in the unit circle: those of the classes, and irregular ones for clutter."""

from __future__ import annotations

import math

import numpy as np
import shapes
from numpy.typing import NDArray

Array = NDArray[np.float64]

OUTLINES = ("circle", "square", "triangle", "star", "cross", "heart")


def irregular(rng: np.random.Generator) -> Array:
    """Return a closed contour that looks like none of the classes: longer than wide, with dents. (n, 2)."""
    corners = int(rng.integers(7, 12))
    angle = np.sort(rng.uniform(0, 2 * math.pi, corners))
    radius = rng.uniform(0.45, 1.0, corners)
    return np.stack([radius * np.cos(angle), rng.uniform(0.35, 0.6) * radius * np.sin(angle)], axis=1)


def known(rng: np.random.Generator) -> Array:
    """Return the contour of one of the classes, (n, 2)."""
    return shapes.OUTLINES[OUTLINES[rng.integers(len(OUTLINES))]]
