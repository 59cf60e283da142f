"""A function of the user as preprocessing, and several photos in one call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from brightness import CELL, SIDE, brightness_model

import onnx_gradcam as ogc
from onnx_gradcam.photos.function import LAID_OVER_ALL

HEIGHT, WIDTH = 60, 90
INPUT = SIDE, SIDE + CELL


def photo(seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.fixture(scope="module")
def explainer() -> Iterator[Any]:
    with ogc.Explainer(brightness_model(), providers=["cpu"]) as explainer:
        yield explainer


def stretch(picture: np.ndarray) -> np.ndarray:
    """(3, *INPUT), without a batch axis."""
    resized = cv2.resize(picture, INPUT[::-1], interpolation=cv2.INTER_AREA)
    return np.moveaxis(resized.astype(np.float32) / 255, -1, 0)


def middle(picture: np.ndarray) -> tuple[np.ndarray, ogc.Geometry]:
    """The middle pixels of a photo, and where they lie."""
    height, width = picture.shape[:2]
    top, left = (height - INPUT[0]) // 2, (width - INPUT[1]) // 2
    cut = picture[top : top + INPUT[0], left : left + INPUT[1]]
    geometry = ogc.Geometry((height, width), INPUT, (1.0, 1.0), (-float(top), -float(left)))
    return np.moveaxis(cut.astype(np.float32) / 255, -1, 0)[None], geometry


def test_the_map_of_a_function_is_laid_over_the_whole_photo(explainer: Any) -> None:
    picture = photo()
    explanation = explainer.explain_image(picture, 0, preprocess=stretch)
    fed = explainer.explain(stretch(picture)[None], 0)
    np.testing.assert_array_equal(explanation.cam, fed.cam)
    assert explanation.heatmap.shape == (1, HEIGHT, WIDTH)
    assert explanation.seen.tolist() == [[0, 0, WIDTH, HEIGHT]]
    assert LAID_OVER_ALL.format(name="stretch") in explanation.warnings
    assert explanation.cautions(0)[0] == "guessed preprocessing"


def test_a_function_may_say_where_the_photo_lies(explainer: Any) -> None:
    """The same as a preset that crops in the same place, which is compared to the pixel."""
    picture = photo(1, (INPUT[0] + 20, INPUT[1] + 34))
    explanation = explainer.explain_image(picture, 0, preprocess=middle)
    form = {"size": INPUT, "resize": "crop", "shorter": INPUT[0] + 20, "scale": 1 / 255, "mean": [0, 0, 0]}
    expected = explainer.explain_image(picture, 0, preprocess={**form, "std": [1, 1, 1], "channels": "RGB"})
    np.testing.assert_allclose(explanation.heatmap, expected.heatmap, atol=1e-6)
    assert explanation.seen.tolist() == expected.seen.tolist() == [[17, 10, 17 + INPUT[1], 10 + INPUT[0]]]
    assert not any("laid over the whole photo" in warning for warning in explanation.warnings)


def test_the_manifest_names_the_function(explainer: Any, tmp_path: Path) -> None:
    for number, (function, source) in enumerate([(stretch, "guessed: "), (middle, "chosen: middle")]):
        explanation = explainer.explain_image(photo(0, (INPUT[0] + 2, INPUT[1] + 2)), 0, preprocess=function)
        manifest = json.loads(explanation.save(tmp_path / str(number)).read_text("utf-8"))
        recorded = manifest["results"][0]["preprocess"]
        assert recorded["function"] == {"value": function.__name__, "source": "chosen: user"}
        assert recorded["geometry"]["source"].startswith(source)
        assert recorded["geometry"]["value"]["model"] == list(INPUT)


def test_tensors_of_torch_are_taken(explainer: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch: not installed")
    explanation = explainer.explain_image(photo(), 0, preprocess=lambda picture: torch.tensor(stretch(picture)))
    np.testing.assert_array_equal(explanation.cam, explainer.explain(stretch(photo())[None], 0).cam)
    assert "<lambda>" in explanation.provenance.preprocess.name


def test_what_a_function_may_not_return(explainer: Any) -> None:
    with pytest.raises(ogc.InputError, match=r"returned an array of shape \(2, 3,"):
        explainer.explain_image(photo(), preprocess=lambda p: np.stack([stretch(p)] * 2))
    with pytest.raises(ogc.InputError, match="is not an array"):
        explainer.explain_image(photo(), preprocess=lambda p: [[1.0], [2.0, 3.0]])
    wrong = ogc.Geometry((1, 1), INPUT, (1.0, 1.0), (0.0, 0.0))
    with pytest.raises(ogc.PreprocessError, match="returned Geometry"):
        explainer.explain_image(photo(), preprocess=lambda p: (stretch(p), wrong))
    with pytest.raises(ZeroDivisionError):
        explainer.explain_image(photo(), preprocess=lambda p: 1 / 0)


@pytest.mark.parametrize("request_", [stretch, 3, None])
def test_what_is_no_preprocessing(explainer: Any, request_: Any) -> None:
    """A function needs a photo; anything else is named, too."""
    with pytest.raises(ogc.PreprocessError, match="is no preprocessing here") as error:
        explainer.preprocessing(request_)
    assert "explain_image" in error.value.hint


def test_several_photos(explainer: Any) -> None:
    photos = [photo(1), photo(2, (40, 50)), photo(3)]
    several = explainer.explain_images(photos, [0, 1, None], preprocess="zero-one")
    assert [e.heatmap.shape[1:] for e in several] == [p.shape[:2] for p in photos]
    for one, picture, target in zip(several, photos, [0, 1, None], strict=True):
        expected = explainer.explain_image(picture, target, preprocess="zero-one")
        np.testing.assert_array_equal(one.heatmap, expected.heatmap)
        assert one.class_index.tolist() == expected.class_index.tolist()
    of_all = explainer.explain_images(iter(photos), np.int64(1), method="GradCAM", preprocess=stretch)
    assert [e.class_index.tolist() for e in of_all] == [[1]] * 3
    assert [len(e) for e in explainer.explain_images(photos, ogc.Classes([0, 1]))] == [2] * 3


def test_what_is_wrong_with_several_photos(explainer: Any) -> None:
    with pytest.raises(ogc.TargetError, match="2 targets for 3 images"):
        explainer.explain_images([photo()] * 3, [0, 1])
    with pytest.raises(ogc.InputError) as error:
        explainer.explain_images([photo(), b"no image"])
    assert error.value.where == "image 1"
    with pytest.raises(ogc.InputError, match="cannot use a list as an image") as error:
        explainer.explain_image([photo(), photo()])
    assert "explain_images" in error.value.hint


def test_the_cells_of_a_stretched_photo(explainer: Any) -> None:
    """One bright cell of the input lies where the photo is bright: in the stretched cell of the photo."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[: HEIGHT * CELL // INPUT[0], : WIDTH * CELL // INPUT[1]] = 255
    explanation = explainer.explain_image(picture, 0, preprocess=stretch)
    y, x = np.unravel_index(explanation.heatmap[0].argmax(), (HEIGHT, WIDTH))
    assert y < HEIGHT * CELL / INPUT[0]
    assert x < WIDTH * CELL / INPUT[1]
