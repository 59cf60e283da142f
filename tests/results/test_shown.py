"""How results show themselves: in one line, as a PNG, as JSON, and in a notebook."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from typing import Any

import cv2
import numpy as np
import pytest
from two_channels import model

import onnx_gradcam as ogc
from onnx_gradcam.results.account import NOTEBOOK_SIDE


def images_in(page: str) -> list[np.ndarray]:
    """The pictures of an HTML page, decoded, RGB."""
    encoded = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(e), np.uint8), cv2.IMREAD_COLOR_RGB) for e in encoded]


@pytest.fixture(scope="module")
def explanation() -> Any:
    x = np.random.default_rng(0).standard_normal((2, 2, 6, 8)).astype(np.float32)
    with ogc.Explainer(model(), target_layer="cells", labels=["star\nof\nlines", "heart <b>", "moon"]) as explainer:
        return explainer.explain(x, ogc.Classes([0, 1]))


def test_one_line(explanation: Any) -> None:
    sides = ogc.both(explanation)
    mask = np.ones((40, 50), bool)
    shown = [
        explanation, sides, explanation.layer, explanation.frame, explanation.provenance, explanation.sheets()[0],
        explanation.map_file(0), sides.sheets()[0], ogc.Region(1, mask), ogc.Similar(np.zeros(300)),
        ogc.Completeness({"x": np.zeros(200)}, np.zeros(200)), ogc.Explainer(model()), ogc.Network(model()),
    ]  # fmt: skip
    for each in shown:
        assert "\n" not in repr(each)
        assert len(repr(each)) < 2000
        assert type(each).__name__ in repr(each)
    assert repr(ogc.Region(1, mask)) == "Region(label=1, mask=<bool (40, 50)>, box=None)"
    assert "activation=<float32 (4, 2," in repr(explanation.layer)
    assert repr(ogc.Explainer(model())) == "Explainer('the model given in memory')"


def test_every_row_stands_in_a_notebook(explanation: Any) -> None:
    page = explanation._repr_html_()
    pictures = images_in(page)
    assert len(pictures) == len(explanation) == 4
    together = explanation.at_scale(explanation.peaks())
    for row, picture in enumerate(pictures):
        figure = together.figure(row=row)
        assert max(figure.shape) <= NOTEBOOK_SIDE  # not made smaller
        np.testing.assert_array_equal(picture, figure)
    assert "heart &lt;b&gt;" in page
    assert "<b>" not in page


def test_large_pictures_are_made_smaller_in_a_notebook(explanation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_gradcam.results.account.NOTEBOOK_SIDE", 50)
    figure, picture = explanation.figure(), images_in(explanation._repr_html_())[0]
    assert max(picture.shape) == 50
    height, width = figure.shape[:2]
    assert picture.shape[0] / picture.shape[1] == pytest.approx(height / width, rel=0.05)


def test_a_row_without_a_picture_is_words(explanation: Any) -> None:
    many = dataclasses.replace(explanation, heatmap=explanation.heatmap[:, None, None], warnings=("a & b",))
    page = many._repr_html_()
    assert images_in(page) == []
    assert page.count("<figcaption>") == 4
    assert "<li>a &amp; b</li>" in page


def test_both_sides_in_a_notebook(explanation: Any) -> None:
    sides = ogc.both(explanation)
    pictures = images_in(sides._repr_html_())
    assert len(pictures) == 4
    decoded = cv2.imdecode(np.frombuffer(sides.to_png(1), np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decoded, sides.figure(1))


def test_a_png(explanation: Any) -> None:
    data = explanation.to_png(2)
    assert data.startswith(b"\x89PNG")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decoded, explanation.figure(row=2))


def test_all_but_the_arrays_as_json(explanation: Any) -> None:
    content = json.loads(json.dumps(explanation.as_dict(), allow_nan=False))
    assert content["method"] == "gradcam"
    assert [row["class_index"] for row in content["rows"]] == [0, 1, 0, 1]
    assert content["rows"][3]["label"] == "heart <b>"
    assert content["rows"][3]["score"] == float(explanation.score[3])
    sides = json.loads(json.dumps(ogc.both(explanation).as_dict(), allow_nan=False))
    assert [row["part"] for row in sides["rows"]] == ["for", "against", "net"] * 4
    assert len(explanation[1].as_dict()["rows"]) == 1
