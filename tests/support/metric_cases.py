"""What a metric may need, of small made-up images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

SPACES = {"a photo": (9, 7), "a wide photo": (5, 18), "a signal": (31,), "a volume": (4, 3, 5)}


def case(name: str, seed: int = 0) -> Mapping[str, Any]:
    """Return everything that a metric may need, float64. The map has equal values; the score is not linear."""
    space = SPACES[name]
    rng = np.random.default_rng(seed)
    x, v, u = (rng.standard_normal((2, *space)) for _ in range(3))
    axes = tuple(range(1, x.ndim + 1))

    def score(copies: np.ndarray) -> np.ndarray:
        return (np.tanh(copies * v).sum(axis=axes) + (copies * u).sum(axis=axes) ** 2 / 10) / 5

    return {
        "x": x,
        "heatmap": np.floor(rng.random(space) * 8) / 8,  # sums are exact, so equal means are equal
        "score": score,
        "probability": lambda copies: 1 / (1 + np.exp(-score(copies))),
        "baseline": np.broadcast_to(x.mean(axis=axes[:-1], keepdims=True), x.shape),
        "blurred": rng.standard_normal(x.shape) / 10,
        "region": rng.random(space) < 0.4,
    }
