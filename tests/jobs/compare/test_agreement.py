"""The numbers against slow re-implementations straight from their definitions."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest

from onnx_gradcam.jobs.compare.agreement import agreement_of, diagonal, peak_distance, pearson, top_iou

SHAPES = [(23,), (5, 9), (3, 4, 5)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def naive_top(a: np.ndarray, share: float) -> set[tuple[int, ...]]:
    points = list(itertools.product(*map(range, a.shape)))
    ranked = sorted(points, key=lambda p: -a[p])  # sorted() keeps the order of equals
    return {p for p in ranked[: max(1, round(share * len(points)))] if a[p] > 0}


def naive_iou(a: np.ndarray, b: np.ndarray, share: float) -> float:
    first, second = naive_top(a, share), naive_top(b, share)
    return len(first & second) / len(first | second) if first | second else 1.0


def naive_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Of all pairs of points in the two peaks: values within 5 % of the range below the maximum."""
    points = list(itertools.product(*map(range, a.shape)))
    first, second = ([p for p in points if m[p] >= m.max() - 0.05 * (m.max() - m.min())] for m in (a, b))
    return min(math.dist(p, q) for p in first for q in second)


def pairs(shape: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Independent, related, and with many ties and zeros."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, *shape))
    few = [np.maximum(rng.integers(-3, 4, shape), 0).astype(np.float32) for _ in range(2)]
    return [(a, b), (a, a + 0.1 * b), (few[0], few[1]), (few[0], a)]


@shapes
def test_pearson(shape: tuple[int, ...]) -> None:
    for a, b in pairs(shape):
        expected = statistics.correlation(a.ravel().tolist(), b.ravel().tolist())
        assert pearson(a, b) == pytest.approx(expected, rel=1e-12)
        assert pearson(a, 3 * a + 2) == pytest.approx(1, rel=1e-12)
        assert pearson(a, -a) == pytest.approx(-1, rel=1e-12)


def test_pearson_of_tiny_values() -> None:
    a = np.array([0, 1, 2, 4]) * 1e-200
    assert pearson(a, a) == pytest.approx(1, rel=1e-12)
    assert pearson(a, a[::-1]) == pytest.approx(statistics.correlation([0, 1, 2, 4], [4, 2, 1, 0]), rel=1e-12)


def test_pearson_without_variation() -> None:
    flat, other = np.full((2, 2), 0.1, np.float32), np.arange(4.0).reshape(2, 2)
    assert pearson(flat, other) == pearson(other, flat) == pearson(flat, flat + 1) == 0
    assert pearson(flat, flat) == 1


@shapes
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 1.0])
def test_top_iou(shape: tuple[int, ...], share: float) -> None:
    for a, b in pairs(shape):
        assert top_iou(a, b, share) == pytest.approx(naive_iou(a, b, share), rel=1e-12)


def test_zeros_are_no_evidence() -> None:
    """Two disjoint spots in 100 points: the other 18 of the highest 20 would all be the same zeros."""
    a, b = np.zeros((2, 10, 10))
    a[5, 5:7] = 1
    b[8, 2:4] = 1
    assert top_iou(a, b) == 0
    assert top_iou(np.zeros((4, 4)), np.zeros((4, 4))) == 1


def test_of_ties_the_first_ones() -> None:
    a = np.array([0.0, 1, 1, 1, 1])
    assert top_iou(a, np.array([0.0, 9, 0, 0, 0])) == 1
    assert top_iou(a, np.array([0.0, 0, 0, 0, 9])) == 0


@shapes
def test_the_distance_of_peaks(shape: tuple[int, ...]) -> None:
    for a, b in pairs(shape):
        assert peak_distance(a, b) == pytest.approx(naive_distance(a, b), rel=1e-12)
        assert peak_distance(b, a) == pytest.approx(naive_distance(a, b), rel=1e-12)


def two_summits(first: float, second: float) -> np.ndarray:
    """A map of two spots far from each other."""
    y, x = np.mgrid[:40, :60]
    spots = [h * np.exp(-((y - v) ** 2 + (x - u) ** 2) / 20) for h, v, u in ((first, 10, 10), (second, 30, 50))]
    return np.asarray(np.maximum(*spots), np.float32)


def test_the_distance_does_not_jump_between_summits_of_the_same_height() -> None:
    """Rounding puts them in another order: the old distance of the maxima would be 45 of 71 points."""
    a = two_summits(1, 1)
    for b in (two_summits(1, 0.999), two_summits(0.999, 1), two_summits(0.97, 1)):
        assert peak_distance(a, b) == 0
        assert peak_distance(two_summits(1, 0.98), b) == 0
    assert peak_distance(two_summits(1, 0.5), two_summits(0.5, 1)) > 40


def test_a_plateau_is_one_peak() -> None:
    """A map that is cut off at 1 has no first maximum that means anything."""
    plateau = np.minimum(3 * two_summits(1, 0), 1)
    assert peak_distance(plateau, two_summits(1, 0)) == 0


def test_a_map_that_is_the_same_everywhere_agrees_with_nothing() -> None:
    flat = np.full((40, 60), 0.5, np.float32)
    agreement = agreement_of(two_summits(1, 0), flat)
    assert (agreement.pearson, agreement.iou, agreement.distance) == (0, 0, 1)
    assert agreement.note == "the map of B is the same everywhere"
    both = agreement_of(flat, flat)
    assert (both.pearson, both.distance) == (1, 0)


@shapes
def test_the_diagonal_is_the_longest_distance(shape: tuple[int, ...]) -> None:
    a, b = np.zeros((2, *shape))
    a.flat[0] = b.flat[-1] = 1
    assert peak_distance(a, b) == pytest.approx(diagonal(shape), rel=1e-12)
