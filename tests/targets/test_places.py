"""A mask, a box and a point decide where the map lies, in the pixels of the photo, whatever the preprocessing."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from brightness import PREPROCESS
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.errors import TargetError
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.photos.resample import areas, coverage

CELL, HEIGHT, WIDTH = 8, 96, 112
ROWS, COLUMNS = HEIGHT // CELL, WIDTH // CELL
SPEC = {**PREPROCESS, "size": [HEIGHT, WIDTH]}
METHOD = "hirescam"  # what the gradient of one cell keeps of its place


def brightness_map(batch: int | str = "N") -> onnx.ModelProto:
    """The mean brightness b of cells, "cells"; logits −b and b of classes 0 and 1 in each, with a Softmax."""
    net = Net()
    net.input("x", [batch, 3, HEIGHT, WIDTH])
    mean = net.array(np.full((1, 3, CELL, CELL), 1 / (3 * CELL * CELL), np.float32))
    cells = net.op("Relu", net.op("Conv", "x", mean, strides=[CELL, CELL]), out="cells")
    y = net.op("Conv", cells, net.array(np.array([-1, 1], np.float32).reshape(2, 1, 1, 1)), out="y")
    return net.model({net.op("Softmax", y, out="p", axis=1): [batch, 2, ROWS, COLUMNS]})


def brightness_detector() -> onnx.ModelProto:
    """(N, 4 + 1 + 2, P): a box of two cells' width about each cell, an objectness and two classes: b, b and −b."""
    net = Net()
    net.input("x", ["N", 3, HEIGHT, WIDTH])
    mean = net.array(np.full((1, 3, CELL, CELL), 1 / (3 * CELL * CELL), np.float32))
    cells = net.op("Relu", net.op("Conv", "x", mean, strides=[CELL, CELL]), out="cells")
    y, x = np.mgrid[:ROWS, :COLUMNS] + 0.5
    centre = np.stack([x * CELL, y * CELL]).astype(np.float32)[None]
    zero, one = (net.array(np.array(v, np.float32).reshape(-1, 1, 1, 1)) for v in ([0, 0], [1]))
    both = net.array(np.array([1, -1], np.float32).reshape(2, 1, 1, 1))
    xy = net.op("Add", net.op("Conv", cells, zero), net.array(centre))
    wh = net.op("Add", net.op("Conv", cells, zero), net.array(np.array(2 * CELL, np.float32)))
    gate = net.op("Sigmoid", net.op("Conv", cells, one))
    classes = net.op("Sigmoid", net.op("Conv", cells, both))
    maps = net.op("Concat", xy, wh, gate, classes, axis=1)
    flat = net.op("Reshape", maps, net.ints(0, 7, ROWS * COLUMNS), out="found")
    return net.model({flat: ["N", 7, ROWS * COLUMNS]})


@pytest.fixture(scope="module")
def segmenter() -> Iterator[Any]:
    with ogc.Explainer(brightness_map(), target_layer="cells", providers=["cpu"]) as found:
        yield found


@pytest.fixture(scope="module")
def detector() -> Iterator[Any]:
    with ogc.Explainer(brightness_detector(), target_layer="cells", providers=["cpu"]) as found:
        yield found


def dots(size: tuple[int, int], *at: tuple[int, int], orientation: int = 1) -> bytes:
    """A PNG, black with 21 × 21 white dots at (y, x) of what is shown, stored turned as EXIF says."""
    image_module = pytest.importorskip("PIL.Image", reason="pillow: not installed")
    shown = np.zeros((*size, 3), np.uint8)
    for y, x in at:
        shown[y - 10 : y + 11, x - 10 : x + 11] = 255
    stored = {1: shown, 3: shown[::-1, ::-1], 6: np.rot90(shown, 1), 8: np.rot90(shown, -1)}[orientation]
    image = image_module.fromarray(np.ascontiguousarray(stored))
    exif = image.getexif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def peak(heatmap: np.ndarray) -> tuple[int, int]:
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    return int(y), int(x)


def around(y: int, x: int) -> tuple[int, int, int, int]:
    return x - 14, y - 14, x + 15, y + 15


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["crop", "stretch", "letterbox"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_of_two_dots_the_one_in_the_place(segmenter: Any, detector: Any, resize: str, orientation: int) -> None:
    size = (180, 260) if orientation in (1, 6) else (260, 190)
    places = [(70, 80), (size[0] - 70, size[1] - 80)]
    photo = dots(size, *places, orientation=orientation)
    for y, x in places:
        mask = np.zeros(size, bool)
        x1, y1, x2, y2 = around(y, x)
        mask[y1:y2, x1:x2] = True
        for explainer, target in [
            (segmenter, ogc.Region(1, box=around(y, x))),
            (segmenter, ogc.Region(1, mask=mask)),
            (detector, ogc.Box(point=(x, y))),
            (detector, ogc.Box(point=(x, y), what="objectness")),
        ]:
            found = explainer.explain_image(photo, target=target, method=METHOD, preprocess={**SPEC, "resize": resize})
            at = peak(found.heatmap[0])
            assert abs(at[0] - y) <= 14, (target, at)
            assert abs(at[1] - x) <= 14, (target, at)
            inside = found.heatmap[0][y1:y2, x1:x2].sum() / found.heatmap[0].sum()
            assert inside > 0.5, (target, inside)


def test_the_score_is_the_mean_within_the_box(segmenter: Any) -> None:
    x = np.random.default_rng(0).random((2, 3, HEIGHT, WIDTH), np.float32)
    b = x.reshape(2, 3, ROWS, CELL, COLUMNS, CELL).mean(axis=(1, 3, 5))
    found = segmenter.explain(x, target=ogc.Region(1, box=(8, 16, 40, 48)), method=METHOD)
    np.testing.assert_allclose(found.score, b[:, 2:6, 1:5].mean(axis=(1, 2)), rtol=1e-5)
    expected = np.zeros((2, 1, ROWS, COLUMNS))
    expected[:, :, 2:6, 1:5] = 1 / 16
    np.testing.assert_allclose(found.gradient, expected, atol=1e-7)
    np.testing.assert_allclose(segmenter.explain(x, target=ogc.Region(0, box=(8, 16, 40, 48))).score, -found.score)
    half = segmenter.explain(x, target=ogc.Region(1, box=(12, 16, 24, 24)))  # half of a cell, and another
    np.testing.assert_allclose(half.score, (b[:, 2, 1] / 2 + b[:, 2, 2]) / 1.5, rtol=1e-5)
    assert half.target(0) == "box:1@12,16,24,24"
    assert half.label(0) == "class 1 in (12, 16, 24, 24)"
    assert (half.cell == -1).all()


def test_the_score_is_the_mean_within_the_mask(segmenter: Any, tmp_path: Path) -> None:
    import cv2

    x = np.random.default_rng(0).random((1, 3, HEIGHT, WIDTH), np.float32)
    b = x.reshape(1, 3, ROWS, CELL, COLUMNS, CELL).mean(axis=(1, 3, 5))[0]
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[16:24, 8:16] = mask[32:36, 40:48] = 255  # a cell, and half of one
    np.save(tmp_path / "mask.npy", mask)
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    expected = (b[2, 1] + b[4, 5] / 2) / 1.5
    for given in (mask, mask > 0, mask / 255, tmp_path / "mask.npy", tmp_path / "mask.png"):
        found = segmenter.explain(x, target=ogc.Region(1, mask=given))
        assert float(found.score[0]) == pytest.approx(expected, rel=1e-5)
    assert found.target(0) == "mask:1@mask.png"
    assert found.label(0) == "class 1 in mask.png"


def test_where_the_class_wins() -> None:
    """Class 1 wins where b > 0: at the dot."""
    x = np.zeros((2, 3, HEIGHT, WIDTH), np.float32)
    x[0, :, 8:16, 16:32] = 0.5
    with ogc.Explainer(brightness_map(), target_layer="cells", providers=["cpu"]) as explainer:
        found = explainer.explain(x, target=ogc.Region(1))
    assert float(found.score[0]) == pytest.approx(0.5)
    assert list(np.flatnonzero(found.gradient[0])) == [COLUMNS + 2, COLUMNS + 3]
    assert found.score[1] == 0
    assert found.is_blank[1]
    assert any("class 1 wins at no pixel of image 1" in warning for warning in found.warnings)


def test_several_places_and_images_in_one_call(segmenter: Any) -> None:
    x = np.random.default_rng(0).random((2, 3, HEIGHT, WIDTH), np.float32)
    several = [ogc.Region(1, box=(8, 16, 40, 48)), 1, ogc.Region(0, box=(0, 0, 8, 8)), ogc.Probability(1)]
    found = segmenter.explain(x, target=ogc.Each(several), method=METHOD)
    for row in range(8):
        alone = segmenter.explain(x[row // 4 :][:1], target=several[row % 4], method=METHOD)
        assert found.score[row] == pytest.approx(float(alone.score[0]), rel=1e-5)
        np.testing.assert_allclose(found.gradient[row], alone.gradient[0], atol=1e-7)
        np.testing.assert_array_equal(found.cell[row], alone.cell[0])


def test_a_model_of_one_image(segmenter: Any) -> None:
    x = np.random.default_rng(0).random((3, 3, HEIGHT, WIDTH), np.float32)
    with ogc.Explainer(brightness_map(1), target_layer="cells", providers=["cpu"]) as explainer:
        for target in (ogc.Region(1, box=(8, 16, 40, 48)), ogc.Region(1), ogc.LogProbability()):
            one, many = (e.explain(x, target=target, method=METHOD) for e in (explainer, segmenter))
            np.testing.assert_allclose(one.score, many.score, rtol=1e-5)
            np.testing.assert_allclose(one.gradient, many.gradient, atol=1e-7)


def test_places_that_the_model_did_not_see(segmenter: Any, detector: Any) -> None:
    photo = np.zeros((100, 300, 3), np.uint8)
    spec = {**SPEC, "resize": "crop"}
    for explainer, target in [
        (segmenter, ogc.Region(1, box=(0, 0, 20, 20))),
        (segmenter, ogc.Region(1, mask=np.eye(100, 300, dtype=bool) & (np.arange(300) < 20))),
        (detector, ogc.Box(point=(5, 5))),
    ]:
        with pytest.raises(TargetError, match="outside what the model saw") as error:
            explainer.explain_image(photo, target=target, preprocess=spec)
        assert "seen: x" in error.value.where


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (ogc.Region(1, box=(20, 0, 10, 10)), "is no box"),
        (ogc.Region(1, box=(500, 0, 510, 10)), "outside"),
        (ogc.Region(1, mask=np.zeros((5, 5))), r"a mask of shape \(5, 5\)"),
        (ogc.Region(1, mask=np.zeros((HEIGHT, WIDTH))), "zero everywhere"),
        (ogc.Region(1, mask=np.zeros((HEIGHT, WIDTH, 3))), "a mask of shape"),
        (ogc.Region(1, mask="nowhere/mask.png"), "no such file"),
        (ogc.Region(1, mask=__file__), "is not an image"),
        (ogc.Box(3), "a dense map"),
        (ogc.Tokens([1]), "a dense map"),
    ],
)
def test_what_is_no_region(segmenter: Any, target: Any, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        segmenter.explain(np.zeros((1, 3, HEIGHT, WIDTH), np.float32), target=target)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (ogc.Box(), "names no box"),
        (ogc.Box(3, (1, 1)), "names no box"),
        (ogc.Box(3, what="size"), "names no box"),
        (ogc.Box(3, what="iou"), "names no box"),
        (ogc.Box(3, box=(1, 1, 2, 2)), "names no box"),
        (ogc.Box(ROWS * COLUMNS), "box 168 of 168"),
        (ogc.Box(what="iou", box=(3, 3, 2, 2)), "is no box"),
        (ogc.Box(point=(500, 3)), "no box of the detector contains"),
        (ogc.Region(1), "a map of classes"),
    ],
)
def test_what_is_no_box(detector: Any, target: Any, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        detector.explain(np.zeros((1, 3, HEIGHT, WIDTH), np.float32), target=target)


def test_a_mask_of_another_size_than_the_photo(segmenter: Any) -> None:
    target = ogc.Region(1, mask=np.ones((5, 7)))
    with pytest.raises(TargetError, match="a mask of 7 × 5 pixels for a photo of 200 × 100"):
        segmenter.explain_image(
            np.zeros((100, 200, 3), np.uint8), target=target, preprocess={**SPEC, "resize": "stretch"}
        )


# --- arithmetic of areas ----------------------------------------------------------------------------------------


def test_coverage_pixels() -> None:
    np.testing.assert_allclose(coverage(0.5, 2.25, 4), [0.5, 1, 0.25, 0])
    np.testing.assert_allclose(coverage(-3, 9, 2), [1, 1])
    assert not coverage(5, 6, 4).any()


def test_areas_are_means() -> None:
    values = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    coarse = areas(values, (3, 2), (2, 4))
    np.testing.assert_allclose(coarse, values.reshape(3, 2, 2, 4).mean(axis=(1, 3)), rtol=1e-6)
    np.testing.assert_allclose(areas(np.ones((5, 7)), (3, 4), (5 / 3, 7 / 4)), 1, rtol=1e-6)
    np.testing.assert_allclose(areas(values, (6, 8), (1, 1)), values, rtol=1e-6)
    np.testing.assert_allclose(areas(values, (1, 1), (2, 2), (-1, -1)), [[values[0, 0] / 4]], rtol=1e-6)


@pytest.mark.parametrize(
    ("geometry", "box"),
    [
        (Geometry((40, 60), (40, 60), (1.0, 1.0), (0.0, 0.0)), (10, 20, 30, 35)),
        (Geometry((40, 60), (20, 30), (0.5, 0.5), (0.0, 0.0)), (5, 10, 15, 17.5)),
        (Geometry((40, 60), (64, 64), (1.0, 1.0), (12.0, 2.0)), (12, 32, 32, 47)),
        (Geometry((40, 60), (80, 80), (2.0, 2.0), (0.0, -20.0)), (0, 40, 40, 70)),
    ],
)
def test_a_mask_lies_in_the_input_where_its_box_does(geometry: Geometry, box: tuple[float, ...]) -> None:
    mask = np.zeros((40, 60), np.float32)
    mask[20:35, 10:30] = 1
    x1, y1, x2, y2 = box
    height, width = geometry.model
    expected = np.outer(coverage(y1, y2, height), coverage(x1, x2, width))
    np.testing.assert_allclose(geometry.to_model(mask), expected, atol=1e-6)


# --- the box in the result --------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["crop", "stretch", "letterbox"])
def test_the_box_is_in_the_photo(segmenter: Any, detector: Any, resize: str) -> None:
    """A region's as it was given; a detector's about the point, two cells wide; none of a class."""
    photo, spec = np.zeros((180, 260, 3), np.uint8), {**SPEC, "resize": resize}
    photo[80:101, 120:141] = 255
    given = (100.0, 70.0, 160.0, 110.0)
    several = ogc.Each([ogc.Region(1, box=given), 1])
    found = segmenter.explain_image(photo, target=several, preprocess=spec)
    np.testing.assert_allclose(found.box[0], given, atol=1e-3)
    assert np.isnan(found.box[1]).all()
    assert found.box_of(1) is None
    assert segmenter.explain_image(photo, target=1, preprocess=spec).box is None
    box = detector.explain_image(photo, target=ogc.Box(point=(130, 90)), preprocess=spec).box[0]
    assert box[0] < 130 < box[2]
    assert box[1] < 90 < box[3]
    scale = {"crop": HEIGHT / 180, "stretch": HEIGHT / 180, "letterbox": WIDTH / 260}[resize]
    assert box[3] - box[1] == pytest.approx(2 * CELL / scale, rel=0.02)


def test_the_box_is_drawn(segmenter: Any) -> None:
    photo = np.zeros((HEIGHT * 5, WIDTH * 5, 3), np.uint8)
    spec = {**SPEC, "resize": "stretch"}
    boxed = segmenter.explain_image(photo, target=ogc.Region(1, box=(100, 200, 300, 400)), preprocess=spec)
    plain = dataclasses.replace(boxed, box=None)
    changed = np.argwhere((plain.figure() != boxed.figure()).any(axis=2))
    (y1, x1), (y2, x2) = changed.min(axis=0), changed.max(axis=0)
    assert (x2 - x1, y2 - y1) == pytest.approx((200, 200), abs=5)
