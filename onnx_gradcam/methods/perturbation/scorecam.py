"""Channels weighted by what the model says of the image where they are active.

The first line of the docstring of a method is its formula and its source. H_k is the activation of channel k, enlarged
to the image and brought to 0 … 1; y(H) the score of b + H · (x − b), b the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from onnx_gradcam.copies.baselines import Baseline, baseline_of
from onnx_gradcam.copies.scores import Array, Scoring, scores_of
from onnx_gradcam.methods.heatmap import upsample
from onnx_gradcam.methods.perturbation.options import number_between, whole_number

Factors = Callable[[Array, int], Iterator[Array]]
"""From H_k and k to what the image is multiplied with, one copy after the other."""


def scorecam(x: Array, activation: Array, scores: Scoring, *, top: int = 0, baseline: Baseline = "mean") -> Array:
    """α_k = softmax_k y(H_k).   Wang et al. 2020, arXiv:1910.01279, eq. 7.

    ``top``: only the N channels that vary most over the image are run, and the others weigh nothing (Li et al. 2020,
    Faster Score-CAM); 0: all of them, as in the paper. Channels that are the same everywhere mask nothing, and all get
    the score of the baseline. ``baseline`` as in occlusion; the paper takes 0.

    Args:
        x: (C, *space).
        activation: (K, *grid), A.
        scores: the scoring function of R targets.
        top: see above.
        baseline: see above.

    Returns:
        (R, K) float64, the weights of the channels; they sum to 1.

    Raises:
        MethodError: an option is out of its range.
    """
    return _weights(x, activation, scores, top, baseline, lambda mask, channel: iter([mask]), 1)


def sscam(
    x: Array,
    activation: Array,
    scores: Scoring,
    *,
    samples: int = 35,
    noise: float = 2.0,
    top: int = 32,
    baseline: Baseline = "mean",
    seed: int = 0,
) -> Array:
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

    return _weights(x, activation, scores, top, baseline, noisy, count)


def iscam(
    x: Array, activation: Array, scores: Scoring, *, samples: int = 10, top: int = 32, baseline: Baseline = "mean"
) -> Array:
    """α_k = softmax_k mean_i y(H_k · Σ_{j ≤ i} j/N), i = 1 … N.   Naidu et al. 2020, arXiv:2010.03023, alg. 1.

    N = ``samples``. The factors add up, as in the paper and in torch-cam: they pass 1 and end at (N + 1)/2. ``top`` and
    ``baseline`` as in scorecam; the paper runs all channels (``top=0``).
    """
    count = whole_number("samples", samples, 1)
    factors = np.cumsum(np.arange(1, count + 1) / count).astype(np.float32)
    return _weights(x, activation, scores, top, baseline, lambda mask, channel: (f * mask for f in factors), count)


SCORE_CAMS: Mapping[str, Callable[..., Array]] = {"scorecam": scorecam, "ss-cam": sscam, "is-cam": iscam}


def _weights(
    x: Array, activation: Array, scores: Scoring, top: int, baseline: Baseline, factors: Factors, samples: int
) -> Array:
    """Return softmax_k of the mean score over what ``factors`` makes of the mask of each channel, (R, K)."""
    chosen = chosen_channels(activation, whole_number("top", top))
    begin = baseline_of(x, baseline)
    varying = [k for k in chosen if np.ptp(activation[k]) > 0]
    nothing = np.zeros(x.shape[1:], np.float32)  # the mask of a channel that does not vary; all are run as one
    constant = [k for k in chosen if k not in set(varying)][:1]

    def copies() -> Iterator[Array]:
        rest = x - begin
        for k in [*varying, *constant]:
            mask = nothing if k in constant else channel_mask(activation[k], x.shape[1:])
            yield from (begin + factor * rest for factor in factors(mask, k))

    y = scores_of(scores, copies())
    means = y.reshape(-1, samples, *y.shape[1:]).mean(axis=1).reshape(len(varying) + len(constant), -1)
    logits = np.full((means.shape[1], len(activation)), -np.inf)
    logits[:, chosen] = means[-1:].T
    logits[:, varying] = means[: len(varying)].T
    return _softmax(logits)


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
