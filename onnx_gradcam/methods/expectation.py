"""GradientSHAP: gradients at random points between baselines and the input, noisy on request.

The first line of the docstring of the method is its formula and its source: the table of methods in the documentation
is made of these lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import MethodError
from onnx_gradcam.methods.copies import is_whole
from onnx_gradcam.methods.integration import Baseline, GradientsAlong, Inputs, baselines, integrated_gradients

Array = npt.NDArray[Any]


def gradient_shap(
    x: Inputs,
    images: Array,
    gradients_at: GradientsAlong,
    *,
    samples: int = 25,
    noise: float = 0.0,
    baseline: Baseline = 0.0,
    seed: int = 0,
) -> dict[str, Array]:
    """mean of (x̃ − b) · ∂y/∂x at b + a · (x̃ − b), a random.   Lundberg & Lee 2017; Erion et al. 2021, arXiv:1906.10670.

    For each of ``samples``, a is uniform in 0 … 1, x̃ is x with noise (σ is ``noise`` times the range of values of each
    image's own tensor; 0: none) and b a baseline. ``baseline`` as in integrated-gradients; an array with one axis more
    than x holds several in a row, of which each sample draws one. All floating-point inputs move together, as there.
    Equal seeds give equal maps, to the bit, and an image gets the same random numbers in a batch as alone. Without
    noise the expectation is the mean of integrated gradients over the baselines: more samples come nearer to it.
    """
    _check(samples, noise, seed)
    starts = starts_of(baseline, x)
    wide = {name: each.astype(np.promote_types(each.dtype, np.float32)) for name, each in x.items()}
    away: list[dict[str, Array]] = []

    def points() -> Iterator[dict[str, Array]]:
        for number in range(samples):
            rng = np.random.default_rng([seed, number])
            share, start = rng.random(), starts[int(rng.integers(len(starts)))]
            ends = {name: _noisy(each, noise, rng) for name, each in wide.items()}
            away.append({name: end - start[name] for name, end in ends.items()})
            yield {name: (ends[name] - away[-1][name] * (1 - share)).astype(x[name].dtype) for name in x}

    totals: dict[str, Any] = dict.fromkeys(x, 0.0)
    first = 0
    for piece in gradients_at(points()):
        for name, gradients in piece.items():
            for k, gradient in enumerate(gradients, first):
                totals[name] = totals[name] + np.asarray(away[k][name][images] * gradient, np.float64)
        first += len(next(iter(piece.values())))
    return {name: np.asarray(total / samples, np.float32) for name, total in totals.items()}


def starts_of(baseline: Baseline, x: Inputs) -> list[dict[str, Array]]:
    """Return the baselines of all inputs, several where an array has one axis more than its input.

    Args:
        baseline: the option of ``gradient_shap``; one value is that of the first input, and 0 of all others.
        x: the inputs that move.

    Raises:
        MethodError: a baseline is not finite or does not fit its input, or inputs have different numbers of them.
    """
    named = baseline if isinstance(baseline, Mapping) else {next(iter(x)): baseline}
    several = {name: value for name, value in named.items() if name in x and np.ndim(value) == x[name].ndim + 1}
    counts = {len(np.asarray(value)) for value in several.values()}
    if len(counts) > 1 or 0 in counts:
        raise MethodError("inputs have different numbers of baselines", hint="the same for each", baseline=baseline)
    count = counts.pop() if counts else 1
    return [baselines({**named, **{name: np.asarray(v)[k] for name, v in several.items()}}, x) for k in range(count)]


def _noisy(x: Array, noise: float, rng: np.random.Generator) -> Array:
    """Return x (N, …) with noise: the same standard numbers for each image, scaled by its range."""
    if not noise:
        return x
    axes = tuple(range(1, x.ndim))
    sigma = noise * (x.max(axis=axes, keepdims=True) - x.min(axis=axes, keepdims=True))
    return np.asarray(x + sigma * rng.standard_normal(x.shape[1:]), x.dtype)


def _check(samples: int, noise: float, seed: int) -> None:
    limits = {
        "samples": (samples, is_whole(samples) and samples >= 1, "a whole number from 1"),
        "noise": (noise, isinstance(noise, int | float) and 0 <= noise < math.inf, "a number from 0"),
        "seed": (seed, is_whole(seed) and seed >= 0, "a whole number from 0"),
    }
    for name, (value, fits, hint) in limits.items():
        if not fits:
            raise MethodError(f"option {name!r} is {value!r}", hint=hint, option=name)


PATH_METHODS: Mapping[str, Callable[..., dict[str, Array]]] = {
    "integrated-gradients": integrated_gradients,
    "gradient-shap": gradient_shap,
}
