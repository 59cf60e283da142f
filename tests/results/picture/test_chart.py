"""Charts: the numbers on their axes, and where means, intervals and curves are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.results.picture.chart import MARK_COLOURS, WIDTH, Mark, Trace, curve_chart, mean_chart, ticks
from onnx_gradcam.results.picture.figure import Lines

LINES = Lines(("energy", "n = 4"), ("model.onnx",))


def columns(picture: np.ndarray, k: int) -> np.ndarray:
    return np.unique(np.nonzero((picture == MARK_COLOURS[k]).all(axis=2))[1])


def rows(picture: np.ndarray, k: int) -> np.ndarray:
    return np.unique(np.nonzero((picture == MARK_COLOURS[k]).all(axis=2))[0])


@pytest.mark.parametrize(("low", "high", "expected"), [
    (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    (0, 9.4, [0, 2, 4, 6, 8]),
    (0, 0.021, [0, 0.005, 0.01, 0.015, 0.02]),
    (-30, 2, [-30, -20, -10, 0]),
])  # fmt: skip
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_an_interval_lies_around_its_mean_on_the_axis() -> None:
    """An axis from 0 to 1: the distances of points are as those of the numbers."""
    picture = mean_chart([Mark("map", 0, 0.5, 0.3, 0.9), Mark("chance", 1, 0.0), Mark("random weights", 2, 1.0)], LINES)
    assert picture.shape[1] == WIDTH
    chance, random = columns(picture, 1), columns(picture, 2)
    zero, one = (chance[0] + chance[-1]) / 2, (random[0] + random[-1]) / 2
    bar = columns(picture, 0)
    assert bar[0] == pytest.approx(zero + 0.3 * (one - zero), abs=3)
    assert bar[-1] == pytest.approx(zero + 0.9 * (one - zero), abs=3)
    assert rows(picture, 0)[-1] < rows(picture, 1)[0]
    assert rows(picture, 1)[-1] < rows(picture, 2)[0]


def test_shapes_tell_what_colours_tell() -> None:
    picture = mean_chart([Mark(name, look, 0.5) for look, name in enumerate("abcd")], LINES)
    shapes = [(picture == colour).all(axis=2).sum() for colour in MARK_COLOURS]
    disc, square, diamond, triangle = shapes
    assert square == pytest.approx(17 * 17, rel=0.1)
    assert disc == pytest.approx(np.pi * 8**2, rel=0.15)
    assert diamond == pytest.approx(2 * 11**2, rel=0.15)
    assert triangle == pytest.approx(17 * 10, rel=0.15)


def test_a_curve_rises_and_one_without_gaps_is_seen_from_one_that_is_dashed() -> None:
    shares = np.linspace(0, 1, 5)
    picture = curve_chart([Trace("map", 0, shares, shares), Trace("chance", 1, shares, 1 - shares)], LINES, "share")
    body = picture[220:]  # below the legend
    whole, dashed = (np.nonzero((body == MARK_COLOURS[k]).all(axis=2)) for k in (0, 1))
    assert np.corrcoef(*whole)[0, 1] < -0.99
    assert np.corrcoef(*dashed)[0, 1] > 0.99
    filled = [len(np.unique(x)) / (x.max() - x.min() + 1) for _, x in (whole, dashed)]
    assert filled[0] == 1
    assert filled[1] < 0.7


def test_numbers_beyond_one_have_an_axis_of_their_own() -> None:
    picture = mean_chart([Mark("map", 0, 7.5, 7.4, 7.6), Mark("chance", 1, 9.1)], LINES)
    assert columns(picture, 0)[-1] < columns(picture, 1)[0] < WIDTH
