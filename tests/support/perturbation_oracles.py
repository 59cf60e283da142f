"""The methods that change the input once more: straight from the papers, slower and less complicated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

Score = Callable[[np.ndarray], np.ndarray]


def one(score: Score, x: np.ndarray) -> np.ndarray:
    """The scores of one image, (R,)."""
    return np.asarray(score(x[None])[0], np.float64)


def occlusion(
    x: np.ndarray, score: Score, baseline: np.ndarray, starts: Sequence[Sequence[int]], sides: Sequence[int]
) -> np.ndarray:
    drops = {}
    for corner in itertools.product(*starts):
        image = x.copy()
        for at in np.ndindex(x.shape[1:]):
            if all(0 <= k - start < side for k, start, side in zip(at, corner, sides, strict=True)):
                image[(slice(None), *at)] = baseline[(slice(None), *at)]
        drops[corner] = one(score, x) - one(score, image)
    out = np.zeros((len(one(score, x)), *x.shape[1:]))
    for at in np.ndindex(x.shape[1:]):
        over = [
            drop
            for corner, drop in drops.items()
            if all(0 <= k - start < side for k, start, side in zip(at, corner, sides, strict=True))
        ]
        out[(slice(None), *at)] = sum(over) / len(over)
    return out


def rise(x: np.ndarray, score: Score, baseline: np.ndarray, masks: Sequence[np.ndarray], keep: float) -> np.ndarray:
    scores = [one(score, baseline + mask * (x - baseline)) for mask in masks]
    mean = sum(scores) / len(scores)
    parts = [np.multiply.outer(y - mean, mask) for y, mask in zip(scores, masks, strict=True)]
    return sum(parts) / (len(masks) * keep)


def line(values: Sequence[float], new: int) -> list[float]:
    """Half-pixel linear interpolation of a line, edges repeated."""
    out = []
    for k in range(new):
        at = min(max((k + 0.5) * len(values) / new - 0.5, 0), len(values) - 1)
        low = math.floor(at)
        high = min(low + 1, len(values) - 1)
        out.append(values[low] * (1 - (at - low)) + values[high] * (at - low))
    return out


def enlarged(small: np.ndarray, space: Sequence[int]) -> np.ndarray:
    out = small
    for axis, new in enumerate(space):
        out = np.apply_along_axis(lambda values, n=new: np.array(line(list(values), n)), axis, out)
    return out


def masks_of_channels(activation: np.ndarray, space: Sequence[int]) -> list[np.ndarray]:
    masks = []
    for channel in activation:
        large = enlarged(channel.astype(np.float64), space)
        span = large.max() - large.min()
        masks.append((large - large.min()) / span if span > 0 else np.zeros(tuple(space)))
    return masks


def softmax(values: np.ndarray) -> np.ndarray:
    p = np.exp(values - values.max(axis=0))
    return p / p.sum(axis=0)


def scorecam(x: np.ndarray, activation: np.ndarray, score: Score, baseline: np.ndarray) -> np.ndarray:
    rest = x - baseline
    scores = [one(score, baseline + mask * rest) for mask in masks_of_channels(activation, x.shape[1:])]
    return softmax(np.array(scores)).T


def iscam(x: np.ndarray, activation: np.ndarray, score: Score, baseline: np.ndarray, samples: int) -> np.ndarray:
    """M ← M + H · i/N, beginning with 0, and the mean of the N scores (algorithm 1)."""
    means = []
    for mask in masks_of_channels(activation, x.shape[1:]):
        moved, scores = np.zeros_like(mask), []
        for i in range(1, samples + 1):
            moved = moved + mask * i / samples
            scores.append(one(score, baseline + moved * (x - baseline)))
        means.append(sum(scores) / samples)
    return softmax(np.array(means)).T


def sscam(
    x: np.ndarray, activation: np.ndarray, score: Score, baseline: np.ndarray, noise: Sequence[Sequence[np.ndarray]]
) -> np.ndarray:
    """``noise``: for each channel what is added to its mask, one array for each sample."""
    means = []
    for mask, of_channel in zip(masks_of_channels(activation, x.shape[1:]), noise, strict=True):
        scores = [one(score, baseline + (mask + each) * (x - baseline)) for each in of_channel]
        means.append(sum(scores) / len(scores))
    return softmax(np.array(means)).T


def lime(kept: np.ndarray, y: np.ndarray, width: float, ridge: float) -> np.ndarray:
    """Normal equations of the columns (1, z), the first of which is not held down: (R, parts)."""
    rows, weights = [], []
    for z in kept:
        cosine = z.sum() / (math.sqrt(z.sum()) * math.sqrt(len(z))) if z.any() else 0.0
        weights.append(math.exp(-((1 - cosine) ** 2) / (2 * width**2)))
        rows.append([1.0, *map(float, z)])
    design, weight = np.array(rows), np.diag(weights)
    penalty = ridge * np.diag([0.0] + [1.0] * kept.shape[1])
    return np.linalg.solve(design.T @ weight @ design + penalty, design.T @ weight @ y)[1:].T


def shapley(players: int, worth: Callable[[frozenset[int]], np.ndarray]) -> np.ndarray:
    """The mean over all orders of what a player adds to those before it: (R, players)."""
    total = np.zeros((players, *np.shape(worth(frozenset()))))
    orders = list(itertools.permutations(range(players)))
    for order in orders:
        for k, player in enumerate(order):
            before = frozenset(order[:k])
            total[player] += worth(before | {player}) - worth(before)
    return (total / len(orders)).T
