"""A linear model of the score over which superpixels of an image are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from onnx_gradcam.copies.baselines import Baseline, baseline_of
from onnx_gradcam.copies.scores import Array, scores_of
from onnx_gradcam.errors import MethodError
from onnx_gradcam.methods.perturbation.options import number_between, whole_number
from onnx_gradcam.methods.perturbation.records import PerturbedMaps, Run
from onnx_gradcam.methods.perturbation.superpixels import superpixels


def lime(
    x: Array,
    scores: Array,
    run: Run,
    *,
    samples: int = 1000,
    segments: int = 50,
    width: float = 0.25,
    ridge: float = 1.0,
    baseline: Baseline = "mean",
    seed: int = 0,
) -> PerturbedMaps:
    """argmin_w Σ_i π_i (y_i − w₀ − w·z_i)² + λ‖w‖², π_i = exp(−D_i² / 2σ²).   Ribeiro et al. 2016, arXiv:1602.04938.

    z_i says which of the superpixels copy i keeps, each with the probability ½; the first keeps all. D_i is the cosine
    distance of z_i from all ones, σ is ``width``, λ is ``ridge``. The map has w_k at every pixel of superpixel k.
    ``segments``: about how many superpixels. ``baseline`` as in occlusion.

    Args:
        x: (C, *space).
        scores: y(x) for each of K targets, (K,).
        run: gives the scores of copies.
        samples: how many copies.
        segments: see above.
        width: see above.
        ridge: see above.
        baseline: see above.
        seed: what the copies are drawn from.

    Raises:
        MethodError: an option is out of its range.
    """
    count, start = whole_number("samples", samples, 2), whole_number("seed", seed)
    sigma = number_between("width", width, 0, float("inf"))
    penalty = number_between("ridge", ridge, 0, float("inf"))
    parts = superpixels(x, whole_number("segments", segments, 2))
    kept = np.random.default_rng(start).random((count, int(parts.max()) + 1)) < 0.5
    kept[0] = True
    y = scores_of(run, kept_parts(x, baseline_of(x, baseline), parts, kept[1:]))
    weights = weighted_ridge(kept, np.concatenate([scores[None], y]), closeness(kept, sigma), penalty)
    return PerturbedMaps(weights[:, parts])


def kernel_shap(
    x: Array,
    scores: Array,
    run: Run,
    *,
    samples: int = 1000,
    segments: int = 50,
    baseline: Baseline = "mean",
    seed: int = 0,
) -> PerturbedMaps:
    """lime with λ = 0 and Shapley's weights: Shapley values of superpixels.   Lundberg & Lee 2017, arXiv:1705.07874.

    Copies keep k of the K superpixels, k drawn with the probability ∝ (K − 1) / (k (K − k)), which is the weight of
    such copies; w₀ is the score of the baseline, and all w add up to the score's difference from it. ``samples``,
    ``segments`` and ``baseline`` as in lime.
    """
    count, start = whole_number("samples", samples, 2), whole_number("seed", seed)
    parts = superpixels(x, whole_number("segments", segments, 2))
    players = int(parts.max()) + 1
    if players < 2:
        raise MethodError("kernel-shap shares a score out, and the image has one part", hint="'occlusion'")
    kept = coalitions(players, count, start)
    copies = kept_parts(x, baseline_of(x, baseline), parts, np.concatenate([np.zeros((1, players), bool), kept]))
    y = scores_of(run, copies)
    return PerturbedMaps(shapley_regression(kept, y[1:] - y[0], scores - y[0])[:, parts])


def each_copy(shape: Sequence[int], *, samples: int, **_: Any) -> int:
    """Return how many copies are run."""
    return whole_number("samples", samples, 2)


def kept_parts(x: Array, baseline: Array, parts: Array, kept: Array) -> Iterator[Array]:
    """Yield for each row of ``kept`` (samples, parts) the image with these parts, and the baseline in all others."""
    for row in kept:
        yield np.where(row[parts], x, baseline)


def closeness(kept: Array, width: float) -> Array:
    """Return π = exp(−D² / 2σ²) of each sample, D = 1 − cos(z, 1), (samples,)."""
    distance = 1 - np.sqrt(kept.mean(axis=1))
    return np.asarray(np.exp(-(distance**2) / (2 * width**2)))


def weighted_ridge(z: Array, y: Array, weights: Array, ridge: float) -> Array:
    """Return w (R, parts) of argmin Σ_i π_i (y_i − w₀ − w·z_i)² + λ‖w‖²; w₀ is free.

    Args:
        z: (samples, parts).
        y: (samples, R).
        weights: (samples,), π.
        ridge: λ.
    """
    share = weights / weights.sum()
    centred, of_scores = z - share @ z, y - share @ y
    gram = (centred * weights[:, None]).T @ centred + ridge * np.eye(z.shape[1])
    return np.asarray(np.linalg.solve(gram, (centred * weights[:, None]).T @ of_scores).T)


def coalitions(players: int, count: int, seed: int) -> Array:
    """Return which players each coalition has, (count, players) bool, drawn by the weights of Shapley's kernel."""
    random = np.random.default_rng(seed)
    sizes = np.arange(1, players)
    chances = 1 / (sizes * (players - sizes))
    drawn = random.choice(sizes, size=count, p=chances / chances.sum())
    ranks = random.random((count, players)).argsort(axis=1).argsort(axis=1)
    return np.asarray(ranks < drawn[:, None])


def shapley_regression(kept: Array, gains: Array, total: Array) -> Array:
    """Return w (R, players) of argmin Σ_i (g_i − w·z_i)² with Σ w = total; of several, the shortest.

    Args:
        kept: (samples, players), z.
        gains: (samples, R), g, the score of each coalition less that of none.
        total: (R,), the gain of all players.
    """
    players = kept.shape[1]
    equal = total / players
    centring = np.eye(players) - 1 / players  # what is left of w when its mean is set
    rest = gains - np.outer(kept.sum(axis=1), equal)
    solution = np.linalg.lstsq(kept @ centring, rest, rcond=None)[0]
    return np.asarray((centring @ solution).T + equal[:, None])
