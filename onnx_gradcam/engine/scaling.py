"""Gradients in 16 bits: scaled by a power of two on their way through the graph, unscaled in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onnx_gradcam.errors import ModelError

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
    ``REPEATS`` times; a zero that stays may be the truth.

    Args:
        run: runs the graph on arrays by input name.
        scale_input: the name of the input that takes the scale.
        gradients: the names of the outputs that come multiplied by it.
        feeds: arrays for all other inputs.

    Raises:
        ModelError: Inf or NaN stays.
    """
    scale = FIRST
    for _ in range(1 + REPEATS):
        results = run({**feeds, scale_input: np.array(scale, np.float32)})
        wide = {name: results[name].astype(np.float32) / np.float32(scale) for name in gradients}
        finite = all(np.isfinite(g).all() for g in wide.values())
        if finite and any(g.any() for g in wide.values()):
            return {**results, **wide}, scale
        used, scale = scale, min(scale * FACTOR, LARGEST) if finite else scale / FACTOR
        if used == scale:
            break
    if not finite:
        raise ModelError(
            f"the gradient overflows the model's 16-bit numbers, at the scale {used:g} too",
            where=", ".join(gradients),
            hint="a target layer nearer to the output, or the model in float32",
            scale=used,
        )
    return {**results, **wide}, used
