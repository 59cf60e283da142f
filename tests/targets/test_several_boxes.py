"""All boxes of a detector, each with its map; the box of a class; branches together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lights import BLUE, CELL, COLUMNS, ROWS, SCENE, lights, scene

import onnx_gradcam as ogc
from onnx_gradcam.errors import TargetError
from onnx_gradcam.targets.classes import Classes
from onnx_gradcam.targets.detections import overlap
from onnx_gradcam.targets.suppression import suppress
from onnx_gradcam.targets.text import parse


def sigmoid(z: float) -> float:
    return 1 / (1 + float(np.exp(-z)))


@pytest.fixture(scope="module")
def detector() -> Iterator[Any]:
    with ogc.Explainer(lights(), labels=["red", "blue"], providers=["cpu"]) as explainer:
        yield explainer


def test_each_box_has_its_map_and_none_repeats_another(detector: Any) -> None:
    """Cells (1, 1) and (1, 2) are two boxes of 12 with an overlap of 1/5: both stay, and 0.1 leaves one out."""
    found = detector.explain(SCENE, ogc.Boxes(), method="hirescam")
    assert [found.label(row) for row in range(len(found))] == [
        "red, box 9", "red, box 34", "red, box 10", "blue, box 38",
    ]  # fmt: skip
    lit = np.array([1.0, 0.95, 0.9, 0.8])
    expected = [sigmoid(8 * b - 4) * sigmoid(6 * b - 3) for b in lit]
    np.testing.assert_allclose(found.probability, expected, rtol=1e-5)
    np.testing.assert_allclose(found.score, 6 * lit - 3, rtol=1e-5)
    centres = [(12, 12), (20, 36), (20, 12), (52, 36)]
    np.testing.assert_allclose(found.box, [[x - 6, y - 6, x + 6, y + 6] for x, y in centres], atol=1e-4)
    for row, (x, y) in enumerate(centres):
        cell = np.unravel_index(found.cam[row].argmax(), (ROWS, COLUMNS))
        assert (int(cell[1]) * CELL + 4, int(cell[0]) * CELL + 4) == (x, y)
    apart = detector.explain(SCENE, ogc.Boxes(overlap=0.1))
    assert [apart.target(row) for row in range(len(apart))] == ["cell:0@9", "cell:0@34", "cell:1@38"]
    assert len(detector.explain(SCENE, ogc.Boxes(2))) == 2
    assert len(detector.explain(SCENE, ogc.Boxes(threshold=0.85))) == 3
    assert len(detector.explain(SCENE, ogc.Boxes(), threshold=0.85)) == 3


def test_an_image_where_nothing_is_found_has_the_most_probable_box_alone(detector: Any) -> None:
    both = np.concatenate([SCENE, scene((2, 3, BLUE, 0.2))])
    found = detector.explain(both, ogc.Boxes(), "gradcam")
    assert found.image_index.tolist() == [0, 0, 0, 0, 1]
    expected = sigmoid(8 * 0.2 - 4) * sigmoid(6 * 0.2 - 3)
    assert found.cautions(4) == (f"nothing detected: p {expected:.2g} is below 0.25",)
    assert found.label(4) == "blue, box 19"
    assert found.cautions(0) == ()
    assert any(w.startswith("nothing detected in 1 of 5 rows") for w in found.warnings)


def test_a_class_has_the_box_of_its_most_probable_cell(detector: Any) -> None:
    found = detector.explain(SCENE, Classes(["red", "blue"]))
    np.testing.assert_allclose(found.box, [[6, 6, 18, 18], [46, 30, 58, 42]], atol=1e-4)
    assert found.made_of(0) == f"objectness {sigmoid(4):.3g} × class {sigmoid(3):.3g}"
    assert found.record(0)["made_of"] == found.made_of(0)
    assert found.record(1)["box"] == pytest.approx([46, 30, 58, 42], abs=1e-4)
    top = detector.explain(SCENE)
    np.testing.assert_allclose(top.box, found.box[:1], atol=1e-4)
    np.testing.assert_array_equal(top.cam, found.cam[:1])
    assert top.score[0] == found.score[0]
    ranked = detector.explain(SCENE, ogc.TopK(2))
    np.testing.assert_array_equal(ranked.box, found.box)


def test_objectness_and_class_in_one_call_are_as_in_two(detector: Any) -> None:
    at = (12.0, 12.0)
    of_class, gate = ogc.Box(point=at), ogc.Box(point=at, what="objectness")
    together = detector.explain(SCENE, ogc.Each([gate, of_class]), method="hirescam")
    for row, target in enumerate([gate, of_class]):
        alone = detector.explain(SCENE, target, method="hirescam")
        np.testing.assert_array_equal(together.heatmap[row], alone.heatmap[0])
        np.testing.assert_array_equal(together.box[row], alone.box[0])
        assert together.target(row) == alone.target(0)
        assert together.score[row] == alone.score[0]
    assert together.score[0] == pytest.approx(4)
    assert together.score[1] == pytest.approx(3)


def test_boxes_need_a_detector(models: Path) -> None:
    explainer = ogc.Explainer(models / "shapes-resnet.onnx", providers=["cpu"])
    with explainer, pytest.raises(TargetError, match="Boxes is not for"):
        explainer.explain_image(models / "images" / "cross.png", ogc.Boxes())


@pytest.mark.parametrize("target", [ogc.Boxes(0), ogc.Boxes(threshold=2), ogc.Boxes(overlap=-1)])
def test_wrong_boxes(detector: Any, target: ogc.Boxes) -> None:
    with pytest.raises(TargetError, match="names no boxes"):
        detector.explain(SCENE, target)


def test_a_wrong_threshold(detector: Any) -> None:
    with pytest.raises(TargetError, match=r"a threshold of 1\.5"):
        detector.explain(SCENE, threshold=1.5)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("boxes", ogc.Boxes()),
        ("boxes5", ogc.Boxes(5)),
        ("boxes@0.4", ogc.Boxes(threshold=0.4)),
        ("boxes3@.5", ogc.Boxes(3, 0.5)),
    ],
)
def test_as_text(text: str, target: ogc.Boxes) -> None:
    assert parse([text], 80, None) == target
    assert parse([text, "2"], 80, None) == ogc.Each([target, 2])


# --- suppression --------------------------------------------------------------------------------------------------


def slow_suppression(
    boxes: np.ndarray, probability: np.ndarray, classes: np.ndarray, limit: float, most: int
) -> list[int]:
    """Take the most probable that overlaps none of its class that was taken, again and again."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-probability[i], i)):
        repeats = [k for k in kept if classes[k] == classes[i] and overlap(boxes[[k]], boxes[i])[0] > limit]
        if not repeats and len(kept) < most:
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(8))
def test_suppression_against_the_slow_way(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (70, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (70, 2))], axis=1)
    probability, classes = rng.random(70).round(1), rng.integers(0, 3, 70)
    for limit, most in ((0.45, 70), (0.2, 9), (0.0, 70), (1.0, 70)):
        expected = slow_suppression(boxes, probability, classes, limit, most)
        assert suppress(boxes, probability, classes, limit, most) == expected


# --- real detectors -----------------------------------------------------------------------------------------------

SEEN = {
    "yolox-nano": ("yolox", {"dog": (132, 221, 310, 542), "bicycle": (131, 140, 568, 420), "car": (468, 75, 693, 172)}),
    "fastestdet": (
        "zero-one,BGR,stretch",
        {"giraffe": (166, 28, 449, 440), "zebra": (249, 205, 426, 432)},
    ),
}


@pytest.mark.parametrize("name", SEEN)
def test_what_is_there_is_named_with_its_box_and_its_map(zoo: Path, zoo_index: dict[str, Any], name: str) -> None:
    preprocess, things = SEEN[name]
    photo = "darknet-dog.jpg" if "dog" in things else "darknet-giraffe.jpg"
    with ogc.Explainer(zoo / zoo_index[name]["file"], labels="coco", providers=["cpu"]) as explainer:
        found = explainer.explain_image(zoo / "images" / photo, ogc.Boxes(), preprocess=preprocess)
    labels = [found.label(row).partition(",")[0] for row in range(len(found))]
    for thing, truth in things.items():
        row = labels.index(thing)
        assert found.box is not None
        assert overlap(found.box[row : row + 1].astype(float), np.array(truth, float))[0] > 0.6, thing
        x1, y1, x2, y2 = found.box[row]
        y, x = np.unravel_index(found.heatmap[row].argmax(), found.heatmap[row].shape)
        assert x1 <= x < x2, thing
        assert y1 <= y < y2, thing
        assert found.made_of(row).startswith("objectness ")
        assert found.cautions(row) == ()
