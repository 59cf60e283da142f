"""What is guessed of the preprocessing goes by what the model gives, and a guess that fails is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.jobs.inspect import overview

PHOTO = np.zeros((100, 200, 3), np.uint8)


def of_one_size() -> onnx.ModelProto:
    """A classifier whose declared input is open, and whose linear layer fits 48 × 16 alone."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, "H", "W"]), (3, 2), kernel=8, stride=8), out="cells")
    net.linear(net.op("Reshape", x, net.ints(0, 24)), 24, 3, out="logits")
    return net.model({"logits": ["N", 3]})


def reader() -> onnx.ModelProto:
    """A reader of text lines of a set height: softmax over 4 characters at each step of the width."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 48, "W"]), (3, 4), kernel=8, stride=8), out="cells")
    rows = net.op("ReduceMean", x, net.ints(2), keepdims=0)
    net.op("Softmax", net.op("Transpose", rows, perm=[0, 2, 1]), axis=2, out="steps")
    return net.model({"steps": ["N", "T", 4]})


def test_a_guessed_size_that_fails_is_named_with_the_way_out() -> None:
    with ogc.Explainer(of_one_size(), providers=["cpu"]) as explainer:
        with pytest.raises(ogc.OnnxGradcamError) as caught:
            explainer.explain_image(PHOTO)
        assert "the size of the input, 224 × 224, was guessed" in caught.value.where
        assert "48xfree" in caught.value.hint
        assert "imagenet,320x320" in caught.value.hint
        result = explainer.explain_image(PHOTO, preprocess="imagenet,48x16,stretch")
        assert result.cam.shape == (1, 6, 2)
        with pytest.raises(ogc.OnnxGradcamError) as declared:
            explainer.explain_image(PHOTO, preprocess="imagenet,64x64")
        assert "guessed" not in str(declared.value)


def test_a_reader_of_text_lines_sees_the_whole_line() -> None:
    with ogc.Explainer(reader(), providers=["cpu"]) as explainer:
        choice = explainer.preprocessing()
        result = explainer.explain_image(PHOTO)
    assert (choice.preprocess.resize, choice.preprocess.size) == ("stretch", (48, None))
    assert result.cam.shape == (1, 6, 12)  # 48 × 96
    assert result.region(0) == (0, 0, 200, 100)
    assert "guessed preprocessing" in result.cautions(0)


@pytest.mark.parametrize(
    ("name", "resize"),
    [
        ("yolox-nano", "letterbox-corner"),
        ("fastestdet", "letterbox"),
        ("ultraface-320", "stretch"),
        ("deeplab-dm05", "stretch"),
        ("ppocr-cls-v3", "crop"),
    ],
)
def test_real_models_are_shown_the_whole_photo(zoo: Path, zoo_index: dict[str, Any], name: str, resize: str) -> None:
    with ogc.Explainer(zoo / zoo_index[name]["file"], providers=["cpu"]) as explainer:
        assert explainer.preprocessing().preprocess.resize == resize


def test_yolox_names_what_is_there(zoo: Path) -> None:
    """With the guess too, which goes by how the network leaves its boxes."""
    photo = zoo / "images" / "darknet-dog.jpg"
    with ogc.Explainer(zoo / "models" / "yolox-nano.onnx", labels="coco", providers=["cpu"]) as explainer:
        assert explainer.preprocessing().preprocess == explainer.preprocessing("yolox").preprocess
        assert "guessed preprocessing" in explainer.explain_image(photo).cautions(0)
        found = explainer.explain_image(photo, ogc.TopK(3), preprocess="yolox")
    assert [found.label(row) for row in range(2)] == ["dog", "bicycle"]
    assert found.probability[:2].min() > 0.75
    assert not any(found.cautions(row) for row in range(3))


def test_a_model_whose_score_has_no_gradient_is_looked_at_all_the_same() -> None:
    net = Net()
    steps = net.op("Round", net.conv(net.input("x", [1, 3, 16, 16]), (3, 4)))
    net.op("Softmax", net.op("Flatten", net.op("GlobalAveragePool", steps)), axis=1, out="p")
    found = overview(net.model({"p": [1, 4]}))
    assert found.score_note == "not found"
    assert "resize" in found.preprocess
    assert any("zero by definition" in warning for warning in found.warnings)
