"""Photos in tiles: the joined map is that of the whole, without seams, at one scale, in bounded memory."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.photos.tiles import Canvas, Tiling
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.picture.overlay import overlay

OWN_SIZE = {"preset": "zero-one", "size": None, "resize": "stretch"}


def network(stride: int) -> Any:
    """A fully convolutional network over pictures of any size, with the mean over space at its end."""
    net = Net()
    x = net.input("x", ["N", 3, "H", "W"])
    y = net.op("Relu", net.op("Conv", x, net.random(4, 3, 5, 5), pads=[2] * 4, strides=[stride] * 2), out="relu")
    flat = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.model({net.op("Gemm", flat, net.random(4, 3), out="y"): ["N", 3]})


def slide(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), (0, 0), 2)


def test_tiles_by_hand() -> None:
    boxes = Tiling(4, 2).boxes(5, 9)
    assert boxes.tolist() == [
        [0, 0, 4, 4], [2, 0, 6, 4], [4, 0, 8, 4], [5, 0, 9, 4],
        [0, 1, 4, 5], [2, 1, 6, 5], [4, 1, 8, 5], [5, 1, 9, 5],
    ]  # fmt: skip
    assert Tiling(64, 16).boxes(10, 64).tolist() == [[0, 0, 64, 10]]


def test_the_weight_of_a_tile_by_hand() -> None:
    weight = Tiling(8, 4).weight(np.array([4, 0, 12, 8]), 8, 20)
    np.testing.assert_allclose(weight, np.tile([0, 0.25, 0.75, 1, 1, 0.75, 0.25, 0], (8, 1)))


@pytest.mark.parametrize(
    "tiling", [Tiling(16, 0), Tiling(16, 1), Tiling(16, 5), Tiling(16, 8), Tiling(64, 16)], ids=str
)
def test_tiles_of_one_map_give_it_back(tiling: Tiling) -> None:
    whole = np.random.default_rng(0).random((2, 37, 53)).astype(np.float32)
    canvas = Canvas(tiling, 37, 53)
    for box in tiling.boxes(37, 53):
        x1, y1, x2, y2 = box
        canvas.add(box, whole[:, y1:y2, x1:x2])
    np.testing.assert_allclose(canvas.joined(), whole, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("method", ["gradcam", "hirescam", "input-x-gradient"])
def test_the_joined_map_is_that_of_the_whole(stride: int, method: str) -> None:
    photo = slide(96, 160)
    with ogc.Explainer(network(stride)) as explainer:
        whole = explainer.explain_image(photo, 1, method, preprocess=OWN_SIZE)
        joined = ogc.explain_tiles(explainer, photo, 1, method, tile=(64, 32), preprocess=OWN_SIZE)
    assert joined.heatmap.shape == (1, 96, 160)
    np.testing.assert_allclose(joined.heatmap, whole.heatmap, atol=1e-5)
    share = 96 * 160 / 64**2  # the mean over a tile divides by fewer places
    assert joined.scale[0] == pytest.approx(whole.scale[0] * share, rel=1e-4)


def test_scores_of_tiles() -> None:
    photo = slide(96, 160)
    with ogc.Explainer(network(1)) as explainer:
        joined = ogc.explain_tiles(explainer, photo, ogc.Classes([0, 2]), tile=(64, 32), preprocess=OWN_SIZE)
        tiles = joined.frame.tiles
        assert tiles is not None
        for number, (x1, y1, x2, y2) in enumerate(tiles.boxes):
            one = explainer.explain_image(photo[y1:y2, x1:x2], ogc.Classes([0, 2]), preprocess=OWN_SIZE)
            np.testing.assert_allclose(tiles.score[number], one.score, rtol=1e-5)
    assert tiles.score.shape == (8, 2)
    np.testing.assert_array_equal(joined.score, tiles.score.max(axis=0))
    np.testing.assert_array_equal(joined.probability, tiles.probability[tiles.score.argmax(axis=0), [0, 1]])
    assert joined.outputs["y"].shape == (8, 3)
    row = joined[1].record(0)
    assert [tile["box"] for tile in row["tiles"]] == tiles.boxes.tolist()
    assert [tile["score"] for tile in row["tiles"]] == tiles.score[:, 1].tolist()


def test_deep_values_of_tiles_go_through_the_window() -> None:
    net = Net()
    x = net.input("x", ["N", 1, "H", "W"])
    y = net.op("Relu", net.op("Conv", x, net.array(np.ones((2, 1, 1, 1), np.float32))), out="relu")
    head = net.array(np.ones((2, 2), np.float32))
    model = net.model({net.op("Gemm", net.op("Flatten", net.op("GlobalAveragePool", y)), head, out="y"): ["N", 2]})
    values = np.random.default_rng(1).integers(1000, 1010, (40, 40)).astype(np.uint16)
    how = {**OWN_SIZE, "window": [1005, 10]}
    with ogc.Explainer(model) as explainer:
        joined = ogc.explain_tiles(explainer, values, 0, tile=(16, 8), preprocess=how)
    expected = (values - 1000.0) / 10
    np.testing.assert_allclose(joined.heatmap[0], expected / expected.max(), atol=1e-6)


def test_only_a_few_explanations_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    living: weakref.WeakSet[Explanation] = weakref.WeakSet()
    add = Canvas.add
    each = ogc.Explainer.explain_each

    def followed(*arguments: Any, **keywords: Any) -> Any:
        for result in each(*arguments, **keywords):
            living.add(result)
            yield result

    def count(self: Canvas, *arguments: Any) -> None:
        alive.append(sum(one.heatmap.size > 1 for one in living))
        add(self, *arguments)

    monkeypatch.setattr(ogc.Explainer, "explain_each", followed)
    monkeypatch.setattr(Canvas, "add", count)
    with ogc.Explainer(network(1)) as explainer:
        ogc.explain_tiles(explainer, slide(80, 80), 1, tile=(16, 0), preprocess=OWN_SIZE)
    assert len(alive) == 25
    assert max(alive) <= 2


def test_what_tiles_cannot_share() -> None:
    photo = np.zeros((32, 64, 3), np.uint8)
    photo[:, 32:] = 255
    net = Net()
    x = net.input("x", ["N", 3, "H", "W"])
    y = net.op("Relu", net.op("Conv", x, net.array(np.ones((1, 3, 1, 1), np.float32))), out="relu")
    head = net.array(np.array([[1, -1]], np.float32)), net.array(np.array([-1, 1], np.float32))
    model = net.model({net.op("Gemm", net.op("Flatten", net.op("GlobalAveragePool", y)), *head, out="y"): ["N", 2]})
    with ogc.Explainer(model) as explainer:
        with pytest.raises(ogc.TargetError, match="the targets of one tile are 1, those of another are 0"):
            ogc.explain_tiles(explainer, photo, tile=32, preprocess=OWN_SIZE)
        assert ogc.explain_tiles(explainer, photo, 0, tile=32, preprocess=OWN_SIZE).heatmap[0, :, 40:].min() == 1
        with pytest.raises(ogc.MethodError, match="has a map for each concept, and none for a class"):
            ogc.explain_tiles(explainer, photo, 0, method="dff", tile=32, preprocess=OWN_SIZE)
        for tile in ((32, 17), (0, 0), (8, -1)):
            with pytest.raises(ogc.InputError, match="cannot share"):
                ogc.explain_tiles(explainer, photo, 0, tile=tile, preprocess=OWN_SIZE)


@pytest.mark.parametrize("text", ["", "a", "64,", "64,b", "64,8,8", "-4"])
def test_texts_that_say_no_tiling(text: str) -> None:
    with pytest.raises(ogc.InputError, match="is not SIZE or SIZE,OVERLAP"):
        Tiling.read(text)


def test_the_picture_says_how_it_was_tiled(tmp_path: Path) -> None:
    with ogc.Explainer(network(4)) as explainer:
        joined = ogc.explain_tiles(explainer, slide(96, 160), 1, tile=64, preprocess=OWN_SIZE)
    assert joined.frame.tiles is not None
    assert joined.frame.tiles.tiling == Tiling(64, 16)
    assert joined.title(0)[3] == "layer relu"
    np.testing.assert_array_equal(joined.overlay(), overlay(slide(96, 160), joined.heatmap[0]))
    content = json.loads(joined.save(tmp_path / "out").read_text("utf-8"))
    assert len(content["results"][0]["rows"][0]["tiles"]) == len(joined.frame.tiles.boxes)
