"""The metrics once more: straight from the papers, slower and less complicated.

``ORACLES`` has a naive version of every metric of the package, by its name, with the same arguments.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Position = tuple[int, ...]
Score = Callable[[np.ndarray], np.ndarray]


def one(score: Score, x: np.ndarray) -> float:
    return float(score(x[None])[0])


def from_the_highest(heatmap: np.ndarray) -> list[Position]:
    """Equal values in the order of a permutation drawn from seed 0."""
    places = list(np.ndindex(heatmap.shape))
    turn = {places[n]: k for k, n in enumerate(np.random.default_rng(0).permutation(len(places)))}
    return sorted(places, key=lambda at: (-heatmap[at], turn[at]))


def exchanged(before: np.ndarray, after: np.ndarray, heatmap: np.ndarray, score: Score, steps: int = 32) -> float:
    places = from_the_highest(heatmap)
    counts = sorted({round(k * len(places) / steps) for k in range(steps + 1)})
    scores = []
    for count in counts:
        image = before.copy()
        for at in places[:count]:
            for channel in range(len(image)):
                image[(channel, *at)] = after[(channel, *at)]
        scores.append(one(score, image))
    widths = [(b - a) / len(places) for a, b in itertools.pairwise(counts)]
    heights = [(a + b) / 2 for a, b in itertools.pairwise(scores)]
    return math.fsum(w * h for w, h in zip(widths, heights, strict=True))


def deletion(x: np.ndarray, heatmap: np.ndarray, probability: Score, baseline: np.ndarray) -> float:
    return exchanged(x, baseline, heatmap, probability)


def insertion(x: np.ndarray, heatmap: np.ndarray, probability: Score, blurred: np.ndarray) -> float:
    return exchanged(blurred, x, heatmap, probability)


def corners(space: Sequence[int]) -> tuple[list[Position], int]:
    """The first pixels of all patches, and how long patches are."""
    stride = max(1, round(max(space) / 14))
    grid = np.ndindex(*[math.ceil(extent / stride) for extent in space])
    return [tuple(stride * k for k in at) for at in grid], 2 * stride


def in_patch(at: Position, corner: Position, length: int) -> bool:
    return all(c <= k < c + length for k, c in zip(at, corner, strict=True))


def covered(x: np.ndarray, baseline: np.ndarray, corner: Position, length: int) -> np.ndarray:
    image = x.copy()
    for at in np.ndindex(x.shape):
        if in_patch(at[1:], corner, length):
            image[at] = baseline[at]
    return image


def occlusion(x: np.ndarray, score: Score, baseline: np.ndarray) -> np.ndarray:
    places, length = corners(x.shape[1:])
    drops = {place: one(score, x) - one(score, covered(x, baseline, place, length)) for place in places}
    out = np.zeros(x.shape[1:])
    for at in np.ndindex(out.shape):
        over = [drop for place, drop in drops.items() if in_patch(at, place, length)]
        out[at] = sum(over) / len(over)
    return out


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    def rank(values: Sequence[float], k: int) -> float:
        return sum(v < values[k] for v in values) + (sum(v == values[k] for v in values) - 1) / 2

    first, second = ([rank(values, k) for k in range(len(values))] for values in (a, b))
    if min(first) == max(first) or min(second) == max(second):
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def occlusion_correlation(x: np.ndarray, heatmap: np.ndarray, score: Score, baseline: np.ndarray) -> float:
    places, length = corners(x.shape[1:])
    means, drops = [], []
    for place in places:
        inside = [heatmap[at] for at in np.ndindex(heatmap.shape) if in_patch(at, place, length)]
        means.append(sum(inside) / len(inside))
        drops.append(one(score, x) - one(score, covered(x, baseline, place, length)))
    return spearman(means, drops)


def energy(heatmap: np.ndarray, region: np.ndarray) -> float:
    evidence = {at: max(float(heatmap[at]), 0.0) for at in np.ndindex(heatmap.shape)}
    everything = math.fsum(evidence.values())
    return math.fsum(value for at, value in evidence.items() if region[at]) / everything if everything else 0.0


def pointing(heatmap: np.ndarray, region: np.ndarray) -> float:
    if heatmap.max() <= 0:
        return 0.0
    summits = [at for at in np.ndindex(heatmap.shape) if heatmap[at] == heatmap.max()]
    return sum(bool(region[at]) for at in summits) / len(summits)


ORACLES: Mapping[str, Callable[..., Any]] = {
    "deletion": deletion,
    "insertion": insertion,
    "occlusion-correlation": occlusion_correlation,
    "energy": energy,
    "pointing": pointing,
}
