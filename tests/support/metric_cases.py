"""What a metric may need, of small made-up images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnx_gradcam.copies.covering import occlude

SPACES = {"a photo": (9, 7), "a wide photo": (5, 18), "a signal": (31,), "a volume": (4, 3, 5)}


def case(name: str, seed: int = 0) -> Mapping[str, Any]:
    """Return everything that a metric may need, float64. The map has equal values; the score is not linear."""
    space = SPACES[name]
    rng = np.random.default_rng(seed)
    x, v, u = (rng.standard_normal((2, *space)) for _ in range(3))
    axes = tuple(range(1, x.ndim + 1))

    def score(copies: np.ndarray) -> np.ndarray:
        return (np.tanh(copies * v).sum(axis=axes) + (copies * u).sum(axis=axes) ** 2 / 10) / 5

    baseline = np.broadcast_to(x.mean(axis=axes[:-1], keepdims=True), x.shape)
    eighths = np.floor(rng.random((7, *space)) * 8) / 8
    return {
        "x": x,
        "heatmap": np.floor(rng.random(space) * 8) / 8,  # sums are exact, so equal means are equal
        "score": score,
        "probability": lambda copies: 1 / (1 + np.exp(-score(copies))),
        "gradient": lambda copies: v / np.cosh(copies * v) ** 2 + (copies * u).sum(axis=axes, keepdims=True) * u,
        "explain": lambda copies: np.abs(copies * v).sum(axis=1) + (copies**2)[:, 0],
        "occluded": occlude(x, score, baseline),
        "baseline": baseline,
        "blurred": rng.standard_normal(x.shape) / 10,
        "region": rng.random(space) < 0.4,
        "regions": {"badge": rng.random(space) < 0.2, "hand": rng.random(space) < 0.5},
        "region_name": "elsewhere",
        "boxes": np.array([[1, 1, 2.5, 3], [0, 0.5, space[-1], space[0]]]),
        "rank": 2,
        "maps_of_others": eighths[:3],
        "randomised_from_top": eighths[3:5],
        "randomised_alone": eighths[5:],
        "map_of_random_class": eighths[0],
    }
