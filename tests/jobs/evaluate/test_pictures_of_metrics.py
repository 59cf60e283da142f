"""The picture of a metric: each of map, chance and random weights has its look, whichever of them there are."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.jobs.evaluate.pictures import picture_of
from onnx_gradcam.jobs.evaluate.records import MetricResult
from onnx_gradcam.metrics.interval import Mean
from onnx_gradcam.results.picture.chart import MARK_COLOURS

OWN, BESIDE = Mean(0.5, 0.4, 0.6, 9, 9), Mean(0.2, 0.1, 0.3, 9, 9)


def colours(picture: np.ndarray) -> list[bool]:
    return [bool((picture == colour).all(axis=2).any()) for colour in MARK_COLOURS]


@pytest.mark.parametrize("curves", [{}, dict.fromkeys(("shares", "map", "random_weights"), (0.0, 1.0))])
def test_without_chance_random_weights_keep_their_look(curves: dict[str, tuple[float, ...]]) -> None:
    result = MetricResult("adcc", "a", "b", "higher", OWN, None, BESIDE, curves=curves)
    assert colours(picture_of(result, ())) == [True, False, True, False]


@pytest.mark.parametrize("own", [OWN, Mean(0.5, None, None, 3, 1)])
def test_a_mean_without_anything_beside_it(own: Mean) -> None:
    result = MetricResult("cascading-randomisation", "a", "b", "lower", own, None, None)
    assert colours(picture_of(result, ("model.onnx",))) == [True, False, False, False]
