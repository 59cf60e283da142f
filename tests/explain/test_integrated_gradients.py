"""Integrated gradients of models with several inputs, from the Explainer to the manifest, by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.jobs.explain import run
from onnx_gradcam.jobs.request import Request

METHOD = "integrated-gradients"
IMAGE = np.arange(24, dtype=np.float32).reshape(2, 1, 3, 4) / 10
WEIGHT = np.array([[2.0], [-3.0]], np.float32)


def weighted_mean() -> onnx.ModelProto:
    """The scores are weight · mean(image) / temperature, and its negative; the temperature has no batch axis."""
    net = Net()
    x = net.op("Conv", net.input("image", ["N", 1, 3, 4]), net.array(np.ones((1, 1, 1, 1), np.float32)), out="map")
    x = net.op("Flatten", net.op("GlobalAveragePool", net.op("Identity", x, out="same")))
    x = net.op("Mul", x, net.input("weight", ["N", 1]))
    x = net.op("Div", x, net.input("temperature", []))
    net.op("Gemm", x, net.array(np.array([[1, -1]], np.float32)), out="scores")
    return net.model({"scores": ["N", 2]})


FEEDS = {"image": IMAGE, "weight": WEIGHT, "temperature": np.array(2, np.float32)}
SCORE = WEIGHT[:, 0] * IMAGE.mean((1, 2, 3)) / 2


@pytest.fixture(scope="module")
def explainer() -> Iterator[Any]:
    with ogc.Explainer(weighted_mean(), providers=["cpu"]) as explainer:
        yield explainer


def explained(explainer: Any, **options: Any) -> Any:
    return explainer.explain(FEEDS, 0, METHOD, steps=4, **options)


def test_all_inputs_move_and_add_up_to_the_score(explainer: Any) -> None:
    """∫ α · weight · image dα is half of the score for each of the two; the temperature stays."""
    explanation = explained(explainer)
    expected = WEIGHT[:, :, None, None] * IMAGE / 12 / 2 / 2
    np.testing.assert_allclose(explanation.attribution, expected, rtol=1e-6)
    completeness = explanation.completeness
    assert list(completeness.sums) == ["image", "weight"]
    np.testing.assert_allclose(completeness.sums["weight"], SCORE / 2, rtol=1e-6)
    np.testing.assert_allclose(completeness.difference, SCORE, rtol=1e-6)
    np.testing.assert_allclose(completeness.total, SCORE, rtol=1e-6)
    assert np.abs(completeness.error).max() < 1e-6
    assert explanation.warnings == ()


def test_a_fixed_input_stays(explainer: Any) -> None:
    explanation = explained(explainer, baseline={"weight": "fixed"})
    np.testing.assert_allclose(explanation.attribution, WEIGHT[:, :, None, None] * IMAGE / 12 / 2, rtol=1e-6)
    assert list(explanation.completeness.sums) == ["image"]
    np.testing.assert_allclose(explanation.completeness.difference, SCORE, rtol=1e-6)


def test_a_baseline_for_each_input(explainer: Any) -> None:
    """From (b, w₀) to (x, w): ∫ (w₀ + α(w − w₀)) dα = (w + w₀)/2 stands in the place of w."""
    explanation = explained(explainer, baseline={"image": 0.5, "weight": np.array([[1.0], [1.0]])})
    expected = (IMAGE - 0.5) * (WEIGHT[:, :, None, None] + 1) / 2 / 12 / 2
    np.testing.assert_allclose(explanation.attribution, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(explanation.completeness.difference, SCORE - 0.5 / 2, rtol=1e-5)
    assert np.abs(explanation.completeness.error).max() < 1e-6


def test_an_input_that_does_not_move_has_no_baseline(explainer: Any) -> None:
    with pytest.raises(ogc.MethodError, match="'temperature' has no baseline") as error:
        explained(explainer, baseline={"temperature": 1.0})
    assert "'image'" in error.value.hint
    with pytest.raises(ogc.MethodError, match="does not fit an input of shape"):
        explained(explainer, baseline={"weight": "fxied"})


def test_rows_keep_their_completeness(explainer: Any) -> None:
    explanation = explainer.explain(FEEDS, ogc.Classes([0, 1]), METHOD, steps=2)
    of_rows = [SCORE[0], -SCORE[0], SCORE[1], -SCORE[1]]
    np.testing.assert_allclose(explanation.completeness.difference, of_rows, rtol=1e-6)
    assert explanation[2].completeness.difference.tolist() == [explanation.completeness.difference[2]]


def test_the_error_is_that_of_the_midpoint_rule() -> None:
    """Σ x³ over 12 pixels, cubed along the path: the midpoint rule lacks 1/(4m²) of each x³."""
    net = Net()
    cube = net.op("Pow", net.input("x", ["N", 1, 3, 4]), net.array(np.float32(3)))
    net.op("Gemm", net.op("Flatten", cube), net.array(np.ones((12, 2), np.float32)), out="scores")
    with ogc.Explainer(net.model({"scores": ["N", 2]}), providers=["cpu"]) as explainer:
        explanation = explainer.explain(IMAGE, 0, METHOD, steps=2)
    score = (IMAGE.astype(np.float64) ** 3).sum((1, 2, 3))
    np.testing.assert_allclose(explanation.completeness.difference, score, rtol=1e-5)
    np.testing.assert_allclose(explanation.completeness.error, -score / 16, rtol=1e-3)
    assert any("more steps come nearer" in warning for warning in explanation.warnings)
    assert explanation.record(1)["completeness"] == {
        "sum": pytest.approx(score[1] * 15 / 16, rel=1e-4),
        "difference": pytest.approx(score[1], rel=1e-4),
        "error": pytest.approx(-score[1] / 16, rel=1e-3),
        "inputs": {"x": pytest.approx(score[1] * 15 / 16, rel=1e-4)},
    }


def test_the_manifest_and_the_command_line(tmp_path: Path) -> None:
    onnx.save(weighted_mean(), tmp_path / "model.onnx")
    for name, array in FEEDS.items():
        np.save(tmp_path / f"{name}.npy", array)
    request = Request(
        str(tmp_path / "model.onnx"),
        (str(tmp_path / "image.npy"),),
        method=METHOD,
        targets=("0",),
        inputs=tuple(f"{name}={tmp_path / name}.npy" for name in ("weight", "temperature")),
        options=("steps=4", "baseline.image=0.5", "baseline.weight=fixed"),
    )
    manifest = json.loads(run(request, tmp_path / "out").manifest.read_text("utf-8"))
    assert manifest["options"] == {"steps": 4, "baseline": {"image": 0.5, "weight": "fixed"}}
    for row, weight, score in zip(manifest["results"][0]["rows"], WEIGHT[:, 0], SCORE, strict=True):
        expected = pytest.approx(score - 0.5 * weight / 2, rel=1e-5)
        assert row["completeness"]["difference"] == expected
        assert row["completeness"]["inputs"] == {"image": expected}


def test_other_methods_promise_no_sum(explainer: Any) -> None:
    assert explainer.explain(FEEDS, 0, "saliency").completeness is None
    assert explainer.explain(FEEDS, 0, "gradcam").record(0)["completeness"] is None
