"""The classifiers of scenes that the package carries: what they know, and where their maps lie."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from repository import MODELS
from scenes import CLASSES, SIZE, Scene, draw_many, one_object, two_objects

import onnx_gradcam as ogc
from onnx_gradcam.metrics.regions import localisation_error, pointing_game

NAMES = ("scenes-resnet", "scenes-vgg", "scenes-vgg-gap", "scenes-inception")
FEW = 48
SEED = 31  # neither that of a training nor that of docs/evaluation.md


@pytest.fixture(scope="module", params=NAMES)
def explainer(request: pytest.FixtureRequest) -> Iterator[ogc.Explainer]:
    with ogc.Explainer(MODELS / f"{request.param}.onnx", providers=["cpu"]) as opened:
        yield opened


@pytest.fixture(scope="module")
def one() -> list[Scene]:
    return draw_many(one_object, FEW, SEED)


@pytest.fixture(scope="module")
def two() -> list[Scene]:
    return draw_many(two_objects, FEW // 2, SEED)


def tensors(scenes: list[Scene]) -> np.ndarray:
    return ((np.stack([scene.image for scene in scenes]).transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_small_and_says_what_it_takes_and_gives(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    assert path.stat().st_size <= 1_000_000
    onnx.checker.check_model(onnx.load(path), full_check=True)
    with ogc.Explainer(path, providers=["cpu"]) as explainer:
        assert explainer.labels == CLASSES
        assert explainer.image_input.shape[1:] == (3, *SIZE)
        choice = explainer.preprocessing()
    assert (choice.preprocess.size, choice.preprocess.mean, choice.preprocess.std) == (SIZE, (0.5,) * 3, (0.25,) * 3)
    assert choice.warnings == ()


def test_the_class_of_one_object_comes_first_and_those_of_two_are_the_first_two(
    explainer: ogc.Explainer, one: list[Scene], two: list[Scene]
) -> None:
    of_one, of_two = (explainer.explain(tensors(scenes)).outputs["logits"] for scenes in (one, two))
    assert np.mean(of_one.argmax(axis=1) == [scene.labels[0] for scene in one]) >= 0.9
    first_two = np.argsort(-of_two, axis=1)[:, :2]
    assert np.mean([{*row} == {*scene.labels} for row, scene in zip(first_two, two, strict=True)]) >= 0.5


def test_the_box_of_the_map_is_that_of_the_object(explainer: ogc.Explainer, one: list[Scene]) -> None:
    heatmaps = explainer.explain(tensors(one), [scene.labels[0] for scene in one], "gradcam").heatmap
    errors = [localisation_error(map_, scene.boxes) for map_, scene in zip(heatmaps, one, strict=True)]
    assert np.mean(errors) <= 0.35


def test_the_map_of_each_of_two_objects_has_its_peak_there(explainer: ogc.Explainer, two: list[Scene]) -> None:
    for which in (0, 1):
        heatmaps = explainer.explain(tensors(two), [scene.labels[which] for scene in two], "gradcam").heatmap
        on_it = [pointing_game(map_, scene.masks[which]) for map_, scene in zip(heatmaps, two, strict=True)]
        on_other = [pointing_game(map_, scene.masks[1 - which]) for map_, scene in zip(heatmaps, two, strict=True)]
        assert np.mean(on_it) >= 0.75
        assert np.mean(on_other) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scenes-resnet", "scenes-vgg", "scenes-inception"])
def test_the_fast_gradient_sign_method_changes_nine_of_ten_predictions(name: str, one: list[Scene]) -> None:
    labels = [scene.labels[0] for scene in one]
    attacked = ogc.attack(MODELS / f"{name}.onnx", tensors(one), true=labels, epsilon=32, providers=["cpu"])
    assert attacked.success_rate is not None
    assert attacked.success_rate >= 0.9


def test_class_activation_maps_of_the_twin_are_its_gradcam_but_for_their_unit(one: list[Scene]) -> None:
    """With a mean over space and one linear layer, CAM is Grad-CAM times the number of cells."""
    with ogc.Explainer(MODELS / "scenes-vgg-gap.onnx", providers=["cpu"]) as explainer:
        cam, gradcam = (explainer.explain(tensors(one), method=method).cam for method in ("cam", "gradcam"))
    np.testing.assert_allclose(cam, gradcam * cam[0].size, rtol=1e-4, atol=1e-4 * np.abs(cam).max())
