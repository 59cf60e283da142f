"""Integrated gradients on arrays, by hand: of one input, and of several that move together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import onnx_gradcam as ogc
from onnx_gradcam.methods.integration import FIXED, baselines, integrated_gradients, moving_inputs

X = np.array([[[1.0, 2.0, -1.0]], [[0.5, 0.0, 4.0]]], np.float32)  # two images, one channel, three positions
BOTH = np.array([0, 1])
Points = Iterable[Mapping[str, np.ndarray]]
Gradients = Iterator[Mapping[str, np.ndarray]]


def cubes(points: Points) -> Gradients:
    """The gradient 3x² of Σ x³, two points at a time."""
    gradients = [3 * point["x"].astype(np.float64) ** 2 for point in points]
    yield from ({"x": np.stack(gradients[k : k + 2])} for k in range(0, len(gradients), 2))


def products(points: Points) -> Gradients:
    """The gradients of Σ x · w."""
    for point in points:
        yield {"x": point["w"][None], "w": point["x"][None]}


def test_of_a_cube() -> None:
    """∫ 3(αx)² · x dα = x³; the midpoint rule lacks x³/(4m²)."""
    for steps in (1, 2, 5):
        attribution = integrated_gradients({"x": X}, BOTH, cubes, steps=steps)["x"]
        np.testing.assert_allclose(attribution, X**3 * (1 - 1 / (4 * steps**2)), rtol=1e-6)


def test_rows_of_several_classes_take_their_own_image() -> None:
    def gradients(points: Points) -> Gradients:
        for point in points:
            x = point["x"]
            yield {"x": np.stack([x[0], 2 * x[0], x[1]])[None]}

    attribution = integrated_gradients({"x": X}, np.array([0, 0, 1]), gradients, steps=4)["x"]
    np.testing.assert_allclose(attribution, np.stack([X[0] ** 2 / 2, X[0] ** 2, X[1] ** 2 / 2]), rtol=1e-6)


def test_half_precision_is_fed_but_not_computed_with() -> None:
    fed = []

    def gradients(points: Points) -> Gradients:
        for point in points:
            fed.append(point["x"])
            yield {"x": np.full((1, *point["x"].shape), 1 / 3, np.float32)}

    x = np.full((1, 1, 3), 0.1, np.float16)
    attribution = integrated_gradients({"x": x}, np.array([0]), gradients, steps=3)["x"]
    assert {copy.dtype for copy in fed} == {np.dtype(np.float16)}
    np.testing.assert_allclose(attribution, x.astype(np.float32) / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("baseline", "of_x", "of_w"),
    [
        (0.0, 0.5, 0.5),  # ∫ α w · x dα for each of the two
        ({"w": 3.0}, 2.0, -1.0),  # from (0, 3) to (x, w = 1): ∫ (3 − 2α) · x dα = 2x, ∫ αx · (1 − 3) dα = −x
        ({"x": 0.0, "w": 1.0}, 1.0, 0.0),  # w begins where it ends
    ],
)
def test_several_inputs_move_together(baseline: Any, of_x: float, of_w: float) -> None:
    """y = x · w at w = 1: the two attributions add up to y − y(baseline)."""
    inputs = {"x": X, "w": np.ones_like(X)}
    attributions = integrated_gradients(inputs, BOTH, products, steps=3, baseline=baseline)
    np.testing.assert_allclose(attributions["x"], of_x * X, rtol=1e-6)
    np.testing.assert_allclose(attributions["w"], of_w * X, rtol=1e-6)


def test_one_baseline_is_that_of_the_first_input() -> None:
    begin = baselines(0.25, {"x": X, "w": X})
    assert (begin["x"] == 0.25).all()
    assert not begin["w"].any()
    assert begin["x"].shape == X.shape


def test_which_inputs_move() -> None:
    assert moving_inputs(0.5, ["w", "x"], "x") == ("x", "w")
    assert moving_inputs({"w": FIXED}, ["x", "w"], "x") == ("x",)
    assert moving_inputs({"w": np.zeros(3)}, ["x", "w"], "x") == ("x", "w")
    with pytest.raises(ogc.MethodError, match="input 'v' has no baseline") as error:
        moving_inputs({"v": 0}, ["x", "w"], "x")
    assert "'x'" in error.value.hint
    with pytest.raises(ogc.MethodError, match="'x' is explained, and cannot be 'fixed'"):
        moving_inputs({"x": FIXED}, ["x", "w"], "x")
