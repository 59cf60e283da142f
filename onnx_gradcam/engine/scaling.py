"""Gradients in 16 bits: scaled by a power of two on their way through the graph, unscaled in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

FIRST = 2.0**10  # keeps the demo models' and SqueezeNet's gradients in the normal range of float16
LARGEST = 2.0**15  # the largest power of two in float16
FACTOR = 2.0**8
REPEATS = 3


def run_scaled(
    run: Callable[[dict[str, np.ndarray]], dict[str, Any]],
    scale_input: str,
    gradients: Sequence[str],
    feeds: Mapping[str, np.ndarray],
) -> tuple[dict[str, Any], float]:
    """Run a gradient graph with scaled gradients; return its results with unscaled ones, and the scale that was used.

    A gradient with Inf or NaN is computed again with a smaller scale, one that is all zero with a larger one, at most
    ``REPEATS`` times; a zero that stays may be the truth. Where Inf or NaN stays, the results are those of the scale
    with which the most rows are finite.

    Args:
        run: runs the graph on arrays by input name.
        scale_input: the name of the input that takes the scale.
        gradients: the names of the outputs that come multiplied by it.
        feeds: arrays for all other inputs.
    """
    scale, most = FIRST, -1
    for _ in range(1 + REPEATS):
        results = run({**feeds, scale_input: np.array(scale, np.float32)})
        wide = {name: results[name].astype(np.float32) / np.float32(scale) for name in gradients}
        finite = np.concatenate([np.isfinite(g).reshape(len(g), -1).all(axis=1) for g in wide.values()])
        if finite.all() or finite.sum() > most:
            most, best = int(finite.sum()), ({**results, **wide}, scale)
        if finite.all() and any(g.any() for g in wide.values()):
            break
        used, scale = scale, min(scale * FACTOR, LARGEST) if finite.all() else scale / FACTOR
        if used == scale:
            break
    return best
