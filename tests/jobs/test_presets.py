"""Which preprocessing fits is told by a photo, its mirror image and its pieces; not by how sure a model is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from brightness import brightness_model
from nets import Net

from onnx_gradcam.jobs.inspect import overview
from onnx_gradcam.jobs.presets import PresetResult, Ranking, _scramble, rank_presets
from onnx_gradcam.jobs.report import text

SIDE = 32


def saturating() -> onnx.ModelProto:
    """It looks for a bright middle in values of 0 to 1, and for any light at all with a weight that saturates at 255.

    Class 0: nothing. Class 1: 40 · (mean of the middle − mean of all) . Class 2: everything · 4 − 5, in both.
    """
    net = Net()
    net.input("x", ["N", 3, SIDE, SIDE])
    every = np.full((1, 3, SIDE, SIDE), 1 / (3 * SIDE**2), np.float32)
    middle = np.zeros_like(every)
    middle[:, :, 8:24, 8:24] = 1 / (3 * 16**2)
    weights = np.concatenate([0 * every, 40 * (middle - every), 4 * every])
    cells = net.op("Relu", net.op("Conv", "x", net.array(np.ones((3, 1, 1, 1), np.float32)), group=3), out="cells")
    y = net.op("Conv", cells, net.array(weights), net.array(np.array([0, 0, -5], np.float32)))
    net.op("Softmax", net.op("Flatten", y), axis=1, out="p")
    return net.model({"p": ["N", 3]})


def photo() -> np.ndarray:
    picture = np.full((SIDE, SIDE, 3), 20, np.uint8)
    picture[8:24, 8:24] = 160
    return picture


def test_a_saturated_model_is_sure_of_the_pieces_too() -> None:
    ranking = rank_presets(saturating(), photo(), providers=["cpu"])
    by_name = {result.preset: result for result in ranking.results}
    assert by_name["raw"].probability > 0.999
    assert by_name["raw"].scrambled > 0.999
    assert by_name["raw"].margin < 0.01
    first = ranking.results[0]
    assert first.preset in ("tf", "zero-one", "imagenet")
    assert first.label == "1"
    assert first.margin > 0.4
    assert ranking.stands_out
    assert ranking.line == f"onnx-gradcam explain 'the model given in memory' PHOTO --preprocess {first.preset}"


def test_what_the_model_declares_stands_first(tmp_path: Path) -> None:
    path = tmp_path / "my model.onnx"
    model = brightness_model()
    onnx.helper.set_model_props(model, {"onnx_gradcam.preprocess": json.dumps({"preset": "zero-one"})})
    path.write_bytes(model.SerializeToString())
    ranking = rank_presets(path, photo(), providers=["cpu"])
    assert ranking.results[0].preset == "auto"
    assert ranking.results[0].declared
    assert ranking.stands_out
    assert ranking.line == f"onnx-gradcam explain '{path}' PHOTO"


def test_the_pieces_are_the_photo_in_another_order() -> None:
    picture = np.arange(20 * 34 * 3, dtype=np.uint32).astype(np.uint8).reshape(20, 34, 3)
    mixed = _scramble(picture, 1)
    assert mixed.shape == picture.shape
    assert not np.array_equal(mixed, picture)
    np.testing.assert_array_equal(np.sort(mixed.reshape(-1, 3), axis=0), np.sort(picture.reshape(-1, 3), axis=0))
    blocks = _scramble(picture, 16)
    assert blocks.shape == (16, 32, 3)
    pieces = {blocks[:, x : x + 16].tobytes() for x in (0, 16)}
    assert pieces == {np.ascontiguousarray(picture[:16, x : x + 16]).tobytes() for x in (0, 16)}


def test_a_model_without_probabilities_tells_nothing() -> None:
    net = Net()
    net.head(net.conv(net.input("x", ["N", 3, SIDE, SIDE]), (3, 4)), 4, 1, out="age")
    model = net.model({"age": ["N", 1]})
    ranking = rank_presets(model, photo(), providers=["cpu"])
    assert (ranking.results, ranking.line, ranking.stands_out) == ((), "", False)
    assert "the model gives no probabilities" in text.inspected(overview(model), ranking)


def test_none_stands_out() -> None:
    weak = PresetResult("raw", "cat", 0.3, 0.2, 0.15)
    assert weak.margin == pytest.approx(0.05)
    assert not Ranking((weak,), "").stands_out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "photo_name", "best", "label"),
    [
        ("yolox-nano", "darknet-dog.jpg", "yolox", "dog"),
        ("yolox-nano", "chelsea.png", "yolox", "cat"),
        ("fastestdet", "chelsea.png", "zero-one,BGR,letterbox", "cat"),
        ("shufflenetv2-int8", "coffee.png", "imagenet", "espresso"),
    ],
)
def test_real_models(zoo: Path, name: str, photo_name: str, best: str, label: str) -> None:
    """FastestDet with values of 0 to 255 is sure of a baseball glove, p 1.000, in every photo."""
    ranking = rank_presets(zoo / "models" / f"{name}.onnx", zoo / "images" / photo_name, providers=["cpu"])
    assert (ranking.results[0].preset, ranking.results[0].label) == (best, label)
