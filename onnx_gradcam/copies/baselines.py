"""Make what covered pixels become."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from onnx_gradcam.copies.scores import Array
from onnx_gradcam.errors import MethodError, nearest

Baseline = str | float | Array
"""A key of ``BASELINES``, or a number or an array that broadcasts to the image (C, *space), in the input's units."""

BLUR = 0.05  # σ of ``blurred`` as a share of the longest side
REACH = 3.0  # a Gaussian is cut at this many σ


def baseline_of(x: Array, baseline: Baseline) -> Array:
    """Return what the pixels of an image become where they are covered, (C, *space) in the dtype of ``x``.

    Args:
        x: (C, *space).
        baseline: "mean", the mean colour of the image; "blur", the image blurred; or numbers.

    Raises:
        MethodError: the word is unknown, a number is not finite, or the array does not fit the image.
    """
    if isinstance(baseline, str):
        if baseline not in BASELINES:
            hint = f"{nearest(baseline, BASELINES)}, or a number"
            raise MethodError(f"option 'baseline' is {baseline!r}", hint=hint, option="baseline")
        return BASELINES[baseline](x)
    numbers = np.asarray(baseline)
    try:
        fitting = np.broadcast_to(numbers.astype(x.dtype), x.shape)
    except (TypeError, ValueError):
        raise MethodError(
            f"option 'baseline' of shape {numbers.shape} does not fit images of shape {x.shape}",
            hint=f"{', '.join(map(repr, BASELINES))}, a number, or an array with channels first",
            option="baseline",
        ) from None
    if not np.isfinite(fitting).all():
        raise MethodError("option 'baseline' is not finite", hint="a finite number", option="baseline")
    return fitting


def mean_colour(x: Array) -> Array:
    """Return an image that is the mean of ``x`` in each channel, everywhere: (C, *space)."""
    axes = tuple(range(1, x.ndim))
    return np.broadcast_to(x.mean(axis=axes, keepdims=True, dtype=np.float64).astype(x.dtype), x.shape)


def blurred(x: Array) -> Array:
    """Return ``x`` blurred so far that no object can be told, (C, *space): a Gaussian of σ = 0.05 · the longest side.

    Beyond the edge the weights are shared out among the pixels that there are.
    """
    out = np.asarray(x, np.float64)
    sigma = max(BLUR * max(x.shape[1:]), 1e-9)
    for extent in x.shape[1:]:
        apart = np.subtract.outer(np.arange(extent), np.arange(extent)) / sigma
        weights = np.where(np.abs(apart) <= REACH, np.exp(-(apart**2) / 2), 0)
        out = np.tensordot(out, weights / weights.sum(axis=0), axes=(1, 0))  # the new axis comes last: a full round
    return out.astype(x.dtype)


BASELINES: Mapping[str, Callable[[Array], Array]] = {"mean": mean_colour, "blur": blurred}
