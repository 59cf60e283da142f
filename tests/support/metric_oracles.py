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


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    def rank(values: Sequence[float], k: int) -> float:
        return sum(v < values[k] for v in values) + (sum(v == values[k] for v in values) - 1) / 2

    first, second = ([rank(values, k) for k in range(len(values))] for values in (a, b))
    if min(first) == max(first) or min(second) == max(second):
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def pixels(place: tuple[slice, ...]) -> list[Position]:
    return list(itertools.product(*[range(line.start, line.stop) for line in place]))


def occlusion_correlation(heatmap: np.ndarray, occluded: Any) -> float:
    means = [sum(heatmap[at] for at in pixels(place)) / len(pixels(place)) for place in occluded.places]
    return spearman(means, list(occluded.drops))


def infidelity(heatmap: np.ndarray, occluded: Any) -> float:
    """The scale by least squares of one column."""
    told = np.array([[sum(heatmap[at] for at in pixels(place))] for place in occluded.places])
    drops = np.array(occluded.drops)
    rest = drops - told @ np.linalg.lstsq(told, drops, rcond=None)[0]
    return float(np.mean(rest**2) / np.mean(drops**2))


def energy(heatmap: np.ndarray, region: np.ndarray) -> float:
    evidence = {at: max(float(heatmap[at]), 0.0) for at in np.ndindex(heatmap.shape)}
    everything = math.fsum(evidence.values())
    return math.fsum(value for at, value in evidence.items() if region[at]) / everything if everything else 0.0


def evidence(heatmap: np.ndarray, regions: Mapping[str, np.ndarray], region_name: str) -> float:
    everywhere = {at for at in np.ndindex(heatmap.shape) if heatmap[at] > 0}
    inside = {name: {at for at in everywhere if region[at]} for name, region in regions.items()}
    inside["elsewhere"] = everywhere.difference(*inside.values())
    return math.fsum(heatmap[at] for at in inside[region_name]) / math.fsum(heatmap[at] for at in everywhere)


def pointing(heatmap: np.ndarray, region: np.ndarray) -> float:
    if heatmap.max() <= 0:
        return 0.0
    summits = [at for at in np.ndindex(heatmap.shape) if heatmap[at] == heatmap.max()]
    return sum(bool(region[at]) for at in summits) / len(summits)


def iou(heatmap: np.ndarray, region: np.ndarray) -> float:
    inside = {at for at in np.ndindex(region.shape) if region[at]}
    highest = set(from_the_highest(heatmap)[: len(inside)])
    return len(highest & inside) / len(highest | inside)


def _diagonal(shape: Sequence[int]) -> float:
    return math.sqrt(sum(n * n for n in shape))


def _two_sets(heatmap: np.ndarray, region: np.ndarray) -> list[set[Position]]:
    inside = {at for at in np.ndindex(region.shape) if region[at]}
    return [set(from_the_highest(heatmap)[: len(inside)]), inside]


def centroid_distance(heatmap: np.ndarray, region: np.ndarray) -> float:
    middles = [
        [sum(at[axis] for at in places) / len(places) for axis in range(region.ndim)]
        for places in _two_sets(heatmap, region)
    ]
    return math.dist(*middles) / _diagonal(region.shape)


def boundary_distance(heatmap: np.ndarray, region: np.ndarray) -> float:
    def border(places: set[Position]) -> list[Position]:
        return [at for at in places if any(next_to not in places for next_to in neighbours(at))]

    def neighbours(at: Position) -> list[Position]:
        return [(*at[:k], at[k] + step, *at[k + 1 :]) for k in range(len(at)) for step in (-1, 1)]

    one_border, other = (border(places) for places in _two_sets(heatmap, region))
    nearest = [min(math.dist(a, b) for b in other) for a in one_border]
    nearest += [min(math.dist(a, b) for b in one_border) for a in other]
    return sum(nearest) / len(nearest) / _diagonal(region.shape)


def discrimination(heatmap: np.ndarray, region: np.ndarray, maps_of_others: np.ndarray) -> float:
    own, points = energy(heatmap, region), []
    for other in maps_of_others:
        there = energy(other, region)
        points.append(1.0 if there < own else 0.5 if there == own else 0.0)
    return sum(points) / len(points)


def parts(mask: np.ndarray) -> list[list[Position]]:
    """By flooding; corners hang together."""
    left = {at for at in np.ndindex(mask.shape) if mask[at]}
    found = []
    while left:
        part = [min(left)]
        left.remove(part[0])
        for at in part:
            beside = [other for other in left if all(abs(a - b) <= 1 for a, b in zip(at, other, strict=True))]
            left -= set(beside)
            part.extend(beside)
        found.append(part)
    return found


def localisation_error(heatmap: np.ndarray, boxes: np.ndarray, share: float = 0.15) -> float:
    if heatmap.max() <= 0:
        return 1.0
    largest = max(parts(heatmap >= share * heatmap.max()), key=len)
    top, left = (min(at[k] for at in largest) for k in (0, 1))
    bottom, right = (max(at[k] for at in largest) + 1 for k in (0, 1))
    for x1, y1, x2, y2 in boxes:
        width = max(0.0, min(right, x2) - max(left, x1))
        height = max(0.0, min(bottom, y2) - max(top, y1))
        both = width * height
        if both / ((right - left) * (bottom - top) + (x2 - x1) * (y2 - y1) - both) >= 0.5:
            return 0.0
    return 1.0


def top_localisation_error(k: int) -> Callable[..., float]:
    def error(heatmap: np.ndarray, boxes: np.ndarray, rank: int) -> float:
        return localisation_error(heatmap, boxes) if rank in range(k) else 1.0

    return error


def shown(x: np.ndarray, heatmap: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    for at in np.ndindex(x.shape):
        share = min(max(float(heatmap[at[1:]]), 0.0), 1.0)
        out[at] = share * x[at] + (1 - share) * baseline[at]
    return out


def average_drop(x: np.ndarray, heatmap: np.ndarray, probability: Score, baseline: np.ndarray) -> float:
    before, after = one(probability, x), one(probability, shown(x, heatmap, baseline))
    return max(0.0, before - after) / before


def confidence_increase(x: np.ndarray, heatmap: np.ndarray, probability: Score, baseline: np.ndarray) -> float:
    return 1.0 if one(probability, shown(x, heatmap, baseline)) > one(probability, x) else 0.0


def adcc(x: np.ndarray, heatmap: np.ndarray, probability: Score, baseline: np.ndarray, explain: Score) -> float:
    again = explain(shown(x, heatmap, baseline)[None])[0]
    coherency = (float(np.corrcoef(heatmap.ravel(), again.ravel())[0, 1]) + 1) / 2
    complexity_ = sum(float(heatmap[at]) for at in np.ndindex(heatmap.shape)) / heatmap.size
    drop = average_drop(x, heatmap, probability, baseline)
    return 3 / (1 / coherency + 1 / (1 - complexity_) + 1 / (1 - drop))


def made_up(x: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """All equations of an image in one dense matrix."""
    space = list(np.ndindex(removed.shape))
    number = {at: k for k, at in enumerate(space)}
    steps = [step for step in itertools.product((-1, 0, 1), repeat=removed.ndim) if any(step)]
    weight = {step: 2.0 ** step.count(0) for step in steps}
    matrix, right = np.eye(len(space)), np.array([[channel[at] for at in space] for channel in x])
    for at in space:
        if not removed[at]:
            continue
        neighbours = {tuple(a + d for a, d in zip(at, step, strict=True)): weight[step] for step in steps}
        there = {other: w for other, w in neighbours.items() if other in number}
        right[:, number[at]] = 0
        for other, w in there.items():
            matrix[number[at], number[other]] -= w / sum(there.values())
    filled = np.linalg.solve(matrix, right.T).T.reshape(x.shape)
    noise = np.random.default_rng(0).standard_normal(x.shape) * 0.01 * (x.max() - x.min())
    return np.where(removed, filled + noise, x)


def road(x: np.ndarray, heatmap: np.ndarray, probability: Score) -> float:
    places, figures = from_the_highest(heatmap), []
    for share in (0.2, 0.4, 0.6, 0.8):
        count = round(share * len(places))
        scores = []
        for taken in (places[len(places) - count :], places[:count]):
            removed = np.zeros(heatmap.shape, bool)
            for at in taken:
                removed[at] = True
            scores.append(one(probability, made_up(x, removed)))
        figures.append((scores[0] - scores[1]) / 2)
    return sum(figures) / len(figures)


def sparseness(heatmap: np.ndarray) -> float:
    """Gini's index as the mean difference of all pairs."""
    values = [abs(float(v)) for v in heatmap.ravel()]
    return sum(abs(a - b) for a in values for b in values) / (2 * len(values) * sum(values))


def complexity(heatmap: np.ndarray) -> float:
    values = [abs(float(v)) for v in heatmap.ravel()]
    return -sum(v / sum(values) * math.log(v / sum(values)) for v in values if v)


def max_sensitivity(x: np.ndarray, heatmap: np.ndarray, explain: Score) -> float:
    noise = np.random.default_rng(0).uniform(-1, 1, (10, *x.shape)) * 0.02 * (x.max() - x.min())
    apart = [math.dist(explain((x + d)[None])[0].ravel(), heatmap.ravel()) for d in noise]
    return max(apart) / math.hypot(*heatmap.ravel())


def fgsm_stability(x: np.ndarray, heatmap: np.ndarray, gradient: Score, explain: Score) -> float:
    slopes, attacked = gradient(x[None])[0], x.copy()
    for at in np.ndindex(x.shape):
        attacked[at] -= math.copysign(0.02 * (x.max() - x.min()), slopes[at])
    return spearman(list(heatmap.ravel()), list(explain(attacked[None])[0].ravel()))


def mean_spearman(heatmap: np.ndarray, others: np.ndarray) -> float:
    return sum(spearman(list(heatmap.ravel()), list(other.ravel())) for other in others) / len(others)


ORACLES: Mapping[str, Callable[..., Any]] = {
    "deletion": deletion,
    "insertion": insertion,
    "road": road,
    "average-drop": average_drop,
    "confidence-increase": confidence_increase,
    "adcc": adcc,
    "occlusion-correlation": occlusion_correlation,
    "infidelity": infidelity,
    "energy": energy,
    "pointing": pointing,
    "iou": iou,
    "centroid-distance": centroid_distance,
    "boundary-distance": boundary_distance,
    "localisation-error": localisation_error,
    "localisation-error-30": lambda heatmap, boxes: localisation_error(heatmap, boxes, 0.3),
    "localisation-error-50": lambda heatmap, boxes: localisation_error(heatmap, boxes, 0.5),
    "localisation-error-top1": top_localisation_error(1),
    "localisation-error-top5": top_localisation_error(5),
    "discrimination": discrimination,
    "evidence-share": evidence,
    "sparseness": sparseness,
    "complexity": complexity,
    "max-sensitivity": max_sensitivity,
    "fgsm-stability": fgsm_stability,
    "cascading-randomisation": lambda heatmap, randomised_from_top: mean_spearman(heatmap, randomised_from_top),
    "independent-randomisation": lambda heatmap, randomised_alone: mean_spearman(heatmap, randomised_alone),
    "random-class": lambda heatmap, map_of_random_class: mean_spearman(heatmap, [map_of_random_class]),
}
