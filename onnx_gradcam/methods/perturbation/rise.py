"""Which pixels raise the score where they are seen: random masks, and of a detector's box the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from onnx_gradcam.copies.baselines import Baseline, baseline_of
from onnx_gradcam.copies.scores import Array, in_batches
from onnx_gradcam.methods.heatmap import interpolation_matrix
from onnx_gradcam.methods.perturbation.options import number_between, whole_number
from onnx_gradcam.methods.perturbation.records import PerturbedMaps, Run


def rise(
    x: Array,
    scores: Array,
    run: Run,
    *,
    samples: int = 2000,
    grid: int = 7,
    keep: float = 0.5,
    baseline: Baseline = "mean",
    seed: int = 0,
) -> PerturbedMaps:
    """Σ_i (y(b + M_i · (x − b)) − ȳ) M_i / (N p), M_i random masks.   Petsiuk et al. 2018, arXiv:1806.07421, eq. 6.

    N is ``samples``. A mask is ``grid`` cells along each axis, each kept with the probability p = ``keep``, enlarged
    and shifted at random; equal seeds give equal masks. b is ``baseline`` as in occlusion; the paper takes 0. The
    scores are taken from their mean ȳ: a logit has no zero, and what is added to all of them would only add noise. So
    the map is positive where seeing a pixel raises the score. The paper takes 4000 to 8000 masks.

    Args:
        x: (C, *space).
        scores: y(x) for each of K targets, (K,); the map does not depend on it.
        run: gives the scores of copies.
        samples: see above.
        grid: see above.
        keep: see above.
        baseline: see above.
        seed: what the masks are drawn from.

    Raises:
        MethodError: an option is out of its range.
    """
    count = whole_number("samples", samples, 2)
    share = number_between("keep", keep, 0, 1)
    cells, start = whole_number("grid", grid, 1), whole_number("seed", seed)
    begin = baseline_of(x, baseline)
    masks = random_masks(x.shape[1:], count, cells, share, start)
    return PerturbedMaps(weighted_masks(x, run, begin, masks) / (count * share))


def drise(
    x: Array,
    scores: Array,
    run: Run,
    *,
    samples: int = 2000,
    grid: int = 16,
    keep: float = 0.5,
    baseline: Baseline = "mean",
    seed: int = 0,
) -> PerturbedMaps:
    """rise of y = max_j IoU(box, box_j) · cos(p, p_j) · objectness_j.   Petsiuk et al. 2021, arXiv:2006.03204, eq. 3.

    box and p, the probabilities of the classes, are those of the explained box of a detector, and j runs over all
    boxes that it gives for the masked copy, before any suppression. Where a detector has no objectness, the highest
    probability of box_j stands in its place: without a threshold, boxes of nothing would count as much as others.
    The options are as in rise; the paper takes 5000 masks.
    """
    return rise(x, scores, run, samples=samples, grid=grid, keep=keep, baseline=baseline, seed=seed)


def each_sample(shape: Sequence[int], *, samples: int, **_: Any) -> int:
    """Return how many masks there are."""
    return whole_number("samples", samples, 2)


def weighted_masks(x: Array, run: Run, baseline: Array, masks: Iterable[Array]) -> Array:
    """Return Σ_i (y_i − ȳ) M_i, y_i the scores of what mask M_i keeps of the image: (R, *space) float64."""
    rest, first, count = x - baseline, None, 0
    total: Any = 0.0
    cover: Any = 0.0
    sums: Any = 0.0
    for several in in_batches(masks):
        stacked = np.stack(several)
        y = np.asarray(run(baseline + stacked[:, None] * rest), np.float64).reshape(len(several), -1)
        first = y[0] if first is None else first
        apart = y - first  # what all scores have in common would cost digits
        total = total + np.tensordot(apart.astype(np.float32), stacked, axes=(0, 0))
        cover = cover + stacked.sum(axis=0, dtype=np.float64)
        sums, count = sums + apart.sum(axis=0), count + len(several)
    return np.asarray(total - np.multiply.outer(sums / count, cover))


def random_masks(space: Sequence[int], count: int, grid: int, keep: float, seed: int) -> Iterator[Array]:
    """Yield masks (*space) float32 from 0 to 1: cells, enlarged linearly by one cell too many, at a random shift.

    Mask number i is drawn from (seed, i).
    """
    cells = [min(grid, n) for n in space]
    sides = [-(-n // k) for n, k in zip(space, cells, strict=True)]
    lines = [interpolation_matrix(k, (k + 1) * side) for k, side in zip(cells, sides, strict=True)]
    for number in range(count):
        random = np.random.default_rng([seed, number])
        mask = (random.random(cells) < keep).astype(np.float32)
        shifts = [int(random.integers(side)) for side in sides]
        for line, shift, n in zip(lines, shifts, space, strict=True):
            mask = np.tensordot(mask, line[:, shift : shift + n], axes=(0, 0))  # the new axis comes last: a full round
        yield mask


def similarity(overlap: Array, probability: Array, objectness: Array, reference: Array) -> Array:
    """max_j IoU_j · cos(p, p_j) · objectness_j, the score of drise.

    Args:
        overlap: (P,) of each box with the explained one.
        probability: (K, P) of each class in each box.
        objectness: (P,).
        reference: (K,) the probabilities of the explained box.

    Returns:
        A number from 0 to 1; 0 where there are no boxes.
    """
    lengths = np.sqrt((probability**2).sum(axis=0)) * np.sqrt((reference**2).sum())
    cosine = (reference @ probability) / np.maximum(lengths, 1e-30)
    return np.asarray((overlap * cosine * objectness).max(initial=0.0))
