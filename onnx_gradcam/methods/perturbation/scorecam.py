"""Channels weighted by what the model says of the image where they are active.

The first line of the docstring of a method is its formula and its source. H_k is the activation of channel k, enlarged
to the image and brought to 0 … 1; y(H) the score of b + H · (x − b), b the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from onnx_gradcam.copies.baselines import Baseline, baseline_of
from onnx_gradcam.copies.scores import Array, scores_of
from onnx_gradcam.methods.heatmap import upsample
from onnx_gradcam.methods.perturbation.options import number_between, whole_number
from onnx_gradcam.methods.perturbation.records import PerturbedMaps, Run

Factors = Callable[[Array, int], Iterator[Array]]
"""From H_k and k to what the image is multiplied with, one copy after the other."""


def scorecam(
    x: Array, activation: Array, scores: Array, run: Run, *, top: int = 0, baseline: Baseline = "mean"
) -> PerturbedMaps:
    """α_k = softmax_k y(H_k).   Wang et al. 2020, arXiv:1910.01279, eq. 7.

    ``top``: only the N channels that vary most over the image are run, and the others weigh nothing (Li et al. 2020,
    Faster Score-CAM); 0: all of them, as in the paper. Channels that are the same everywhere mask nothing, and all get
    the score of the baseline. ``baseline`` as in occlusion; the paper takes 0.

    Args:
        x: (C, *space).
        activation: (channels, *grid), A.
        scores: y(x) for each of K targets, (K,); the map does not depend on it.
        run: gives the scores of copies.
        top: see above.
        baseline: see above.

    Raises:
        MethodError: an option is out of its range.
    """
    return _weighted(x, activation, run, top, baseline, lambda mask, channel: iter([mask]), 1)


def sscam(
    x: Array,
    activation: Array,
    scores: Array,
    run: Run,
    *,
    samples: int = 35,
    noise: float = 2.0,
    top: int = 32,
    baseline: Baseline = "mean",
    seed: int = 0,
) -> PerturbedMaps:
    """α_k = softmax_k mean_i y(H_k + ε_i), ε_i ~ N(0, σ²).   Wang et al. 2020, arXiv:2006.14255, sec. 3.

    N = ``samples`` copies of each channel, each with noise of σ = ``noise`` on the mask; the paper takes 35 and 2.
    ``top`` and ``baseline`` as in scorecam; the paper runs all channels (``top=0``): ``samples`` times as many copies.
    """
    count = whole_number("samples", samples, 1)
    sigma, start = number_between("noise", noise, 0, float("inf")), whole_number("seed", seed)

    def noisy(mask: Array, channel: int) -> Iterator[Array]:
        random = np.random.default_rng([start, channel])
        for _ in range(count):
            yield mask + np.float32(sigma) * random.standard_normal(mask.shape, np.float32)

    return _weighted(x, activation, run, top, baseline, noisy, count)


def iscam(
    x: Array,
    activation: Array,
    scores: Array,
    run: Run,
    *,
    samples: int = 10,
    top: int = 32,
    baseline: Baseline = "mean",
) -> PerturbedMaps:
    """α_k = softmax_k mean_i y(H_k · Σ_{j ≤ i} j/N), i = 1 … N.   Naidu et al. 2020, arXiv:2010.03023, alg. 1.

    N = ``samples``. The factors add up, as in the paper and in torch-cam: they pass 1 and end at (N + 1)/2. ``top`` and
    ``baseline`` as in scorecam; the paper runs all channels (``top=0``).
    """
    count = whole_number("samples", samples, 1)
    factors = np.cumsum(np.arange(1, count + 1) / count).astype(np.float32)
    return _weighted(x, activation, run, top, baseline, lambda mask, channel: (f * mask for f in factors), count)


def each_mask(shape: Sequence[int], *, top: int, samples: int = 1, **_: Any) -> int:
    """Return how many copies are run at most, for an activation of the shape (channels, *grid)."""
    channels = min(whole_number("top", top) or shape[0], shape[0])
    return channels * whole_number("samples", samples, 1)


def _weighted(
    x: Array, activation: Array, run: Run, top: int, baseline: Baseline, factors: Factors, samples: int
) -> PerturbedMaps:
    """Return Σ_k α_k A_k, α = softmax_k of the mean score over what ``factors`` makes of the mask of channel k."""
    chosen = chosen_channels(activation, whole_number("top", top))
    begin = baseline_of(x, baseline)
    varying = [k for k in chosen if np.ptp(activation[k]) > 0]
    constant = [k for k in chosen if np.ptp(activation[k]) == 0][:1]  # all of them mask in the same way

    def copies() -> Iterator[Array]:
        rest = x - begin
        for k in [*varying, *constant]:
            yield from (begin + factor * rest for factor in factors(channel_mask(activation[k], x.shape[1:]), k))

    y = scores_of(run, copies())
    means = y.reshape(-1, samples, y.shape[1]).mean(axis=1)
    logits = np.full((y.shape[1], len(activation)), -np.inf)
    logits[:, chosen] = means[-1:].T
    logits[:, varying] = means[: len(varying)].T
    weights = _softmax(logits)
    alone = [1] * (activation.ndim - 1)
    return PerturbedMaps(np.tensordot(weights, activation, axes=1), weights.reshape(*weights.shape, *alone))


def chosen_channels(activation: Array, top: int) -> list[int]:
    """Return the numbers of the channels that are run: those that vary most over space, in their order."""
    count = len(activation)
    if top == 0 or top >= count:
        return list(range(count))
    spread = activation.reshape(count, -1).std(axis=1, dtype=np.float64)
    return sorted(np.argsort(-spread, kind="stable")[:top].tolist())


def channel_mask(channel: Array, space: Sequence[int]) -> Array:
    """Return H, (*space) float32: a channel enlarged to the image, and brought to 0 … 1."""
    large = upsample(channel[None], space)[0]
    low, high = large.min(), large.max()
    return np.asarray((large - low) / (high - low) if high > low else np.zeros_like(large))


def _softmax(logits: Array) -> Array:
    """Return softmax over the last axis; what is −∞ weighs nothing."""
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(p / p.sum(axis=-1, keepdims=True))
