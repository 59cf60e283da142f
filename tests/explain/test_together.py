"""Photos of equal form go through the model together; each gets what it gets alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from brightness import PREPROCESS, brightness_model
from onnx import numpy_helper

import onnx_gradcam as ogc
from onnx_gradcam.engine.evaluation import Evaluation
from onnx_gradcam.explain.question import TOGETHER

FORM = {**PREPROCESS, "resize": "stretch"}
SIZES = [(60, 80), (90, 50), (60, 80), (33, 47)] * 3


@pytest.fixture
def photos() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in each run of the model."""
    counts: list[int] = []
    plain = Evaluation.evaluate

    def counted(self: Evaluation, feeds: Any, targets: Any, needs_gradient: bool) -> Any:
        counts.append(len(feeds["image"]))
        return plain(self, feeds, targets, needs_gradient)

    monkeypatch.setattr(Evaluation, "evaluate", counted)
    return counts


@pytest.fixture
def explainer() -> Iterator[ogc.Explainer]:
    with ogc.Explainer(brightness_model(), labels=["bright", "dark"]) as opened:
        yield opened


@pytest.mark.parametrize(
    ("method", "keywords", "together"),
    [
        ("gradcam", {}, True),
        ("gradcam", {"target": ogc.TopK(2)}, True),
        ("shapleycam", {"signed": True}, True),
        ("eigencam", {}, True),
        ("gradcam", {"smooth": ("eigen",)}, True),
        ("gradcam", {"smooth": ("noise",), "samples": 2}, False),
        ("smooth-gradcam++", {"samples": 2}, False),
        ("saliency", {}, False),
    ],
)
def test_each_gets_what_it_gets_alone(
    explainer: ogc.Explainer,
    photos: list[np.ndarray],
    runs: list[int],
    method: str,
    keywords: dict[str, Any],
    together: bool,
) -> None:
    target = keywords.pop("target", None)
    several = explainer.explain_images(photos, target, method, preprocess=FORM, **keywords)
    assert (runs == [TOGETHER, len(photos) - TOGETHER]) == together
    for one, photo in zip(several, photos, strict=True):
        alone = explainer.explain_image(photo, target, method, preprocess=FORM, **keywords)
        assert one.heatmap.shape[1:] == photo.shape[:2]
        np.testing.assert_allclose(one.heatmap, alone.heatmap, atol=1e-5)
        np.testing.assert_allclose(one.score, alone.score, rtol=1e-5)
        np.testing.assert_array_equal(one.image_index, alone.image_index)
        np.testing.assert_array_equal(one.class_index, alone.class_index)
        np.testing.assert_allclose(one.outputs["logits"], alone.outputs["logits"], rtol=1e-5)
        for layer, expected in zip(one.layers, alone.layers, strict=True):
            np.testing.assert_allclose(layer.activation, expected.activation, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(layer.cam, expected.cam, rtol=1e-4, atol=1e-6)
        assert (one.warnings, one.words) == (alone.warnings, alone.words)


def test_warnings_stay_with_their_photo(explainer: ogc.Explainer, photos: list[np.ndarray]) -> None:
    photos[1] = np.zeros((30, 30, 3), np.uint8)
    several = explainer.explain_images(photos[:3], preprocess=FORM)
    assert ["maps are blank" in " ".join(one.warnings) for one in several] == [False, True, False]


def test_a_photo_that_fails_does_so_alone(runs: list[int]) -> None:
    """White is too much: the sum of all cells leaves the range of float32."""
    model = brightness_model()
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(2e37), "w"))
    dark, white, grey = (np.full((20, 20, 3), value, np.uint8) for value in (40, 255, 60))
    with ogc.Explainer(model, check_forward=False) as explainer:
        results = list(explainer.explain_each([dark, b"no image", white, grey], preprocess=FORM))
    assert [type(result).__name__ for result in results] == ["Explanation", "InputError", "NotFinite", "Explanation"]
    assert runs == [3, 1, 1, 1]


def test_targets_of_each_photo(explainer: ogc.Explainer, photos: list[np.ndarray], runs: list[int]) -> None:
    several = explainer.explain_images(photos[:3], ["dark", 0, None], preprocess=FORM)
    assert [one.class_index.tolist() for one in several] == [[1], [0], [0]]
    assert runs == [3]
