"""What a model says of an image can be too improbable for its map to be read as evidence."""

from pathlib import Path

import numpy as np
import pytest
from lights import RED, lights, scene

import onnx_gradcam as ogc
from onnx_gradcam.results import cautions, doubts

NAN = float("nan")
OF_ULTRAFACE = "raw,stretch,mean=127,std=128"


def lines(of_rows: list[doubts.Doubt | None]) -> list[str]:
    return ["" if doubt is None else doubt.line for doubt in of_rows]


@pytest.mark.parametrize(
    ("family", "count", "exclusive", "threshold", "least"),
    [
        ("detector", 80, False, None, 0.25),
        ("detector", 2, True, None, 0.5),  # a softmax of background and face: chance is 0.5
        ("map", 21, True, None, 0.25),
        ("sequence", 6625, True, None, 0.25),
        ("classes", 4, True, None, 0.325),  # 0.25 and a tenth of the 0.75 above it
        ("classes", 1000, True, None, 0.1009),
        ("binary", 2, True, None, 0.55),
        ("classes", 18, False, None, 0.25),  # a sigmoid for each class
        ("detector", 80, False, 0.6, 0.6),
        ("classes", 4, True, 0.0, 0.0),
    ],
)
def test_how_probable_it_must_be(
    family: str, count: int, exclusive: bool, threshold: float | None, least: float
) -> None:
    assert doubts.least_probability(family, count, exclusive, threshold) == pytest.approx(least)


def test_a_detector_that_found_nothing_and_one_that_did_not_find_a_class() -> None:
    top, own = np.array([0.012, 0.9, 0.9, 0.9]), np.array([0.012, 0.9, 0.1, NAN])
    of_rows = doubts.find_doubts("detector", False, 0.25, top, own)
    assert lines(of_rows) == [
        "nothing detected: p 0.012 is below 0.25",
        "",
        "not detected: p 0.1 is below 0.25",
        "",
    ]
    nothing, not_it = doubts.sentences(of_rows)
    assert nothing.startswith("nothing detected in 1 of 4 rows: p at most 0.012, below 0.25; ")
    assert not_it.startswith("not detected in 1 of 4 rows: p at most 0.1, below 0.25; ")


def test_a_classifier_near_chance_is_doubted_whatever_class_is_explained() -> None:
    top, own = np.array([0.28, 0.28, 0.97]), np.array([0.28, 0.2, 0.001])
    of_rows = doubts.find_doubts("classes", True, 0.325, top, own)
    assert lines(of_rows) == ["near chance: p 0.28 is below 0.33"] * 2 + [""]
    assert len(doubts.sentences(of_rows)) == 1
    assert doubts.sentences(of_rows[2:]) == []


def test_cautions_stand_by_row_each_once() -> None:
    assert cautions.by_row(["a", "", "b"], ["a", "c", ""], ["", "", ""]) == [("a",), ("c",), ("b",)]


def test_a_sure_model_is_not_doubted(models: Path) -> None:
    with ogc.Explainer(models / "shapes-resnet.onnx", providers=["cpu"]) as explainer:
        sure = explainer.explain_image(models / "images" / "cross.png")
    assert sure.cautions(0) == () == sure.warnings


def test_a_face_detector_on_a_photo_without_a_face(zoo: Path) -> None:
    """It takes the face of a cat for one."""
    with ogc.Explainer(zoo / "models" / "ultraface-320.onnx", providers=["cpu"]) as explainer:
        without = explainer.explain_image(zoo / "images" / "coffee.png", preprocess=OF_ULTRAFACE)
        face = explainer.explain_image(zoo / "images" / "chelsea.png", preprocess=OF_ULTRAFACE)
    assert without.probability[0] < 0.5
    assert without.cautions(0)[0].startswith("nothing detected: p ")
    assert any(warning.startswith("nothing detected: p ") for warning in without.warnings)
    assert without.record(0)["cautions"] == list(without.cautions(0))
    assert without[0].cautions(0) == without.cautions(0)
    assert face.probability[0] > 0.5
    assert face.cautions(0) == ()


def test_both_sides_of_a_doubted_map_are_doubted() -> None:
    with ogc.Explainer(lights(), providers=["cpu"]) as explainer:
        dark = explainer.explain(scene((1, 1, RED, 0.1)))
        sides = ogc.both(dark)
    assert dark.cautions(0)[0].startswith("nothing detected: p ")
    assert sides.cautions(0)[0] == dark.cautions(0)[0]
    assert any(warning.startswith("nothing detected: p ") for warning in sides.warnings)


def test_a_detector_with_the_wrong_preprocessing(zoo: Path) -> None:
    """With the values of ImageNet, where it was trained on those of the pixels, it detects nothing."""
    with ogc.Explainer(zoo / "models" / "yolox-nano.onnx", providers=["cpu"]) as explainer:
        wrong = explainer.explain_image(zoo / "images" / "darknet-dog.jpg", preprocess="imagenet")
    assert wrong.cautions(0)[0] == f"nothing detected: p {wrong.probability[0]:.2g} is below 0.25"
    assert "guessed labels" in wrong.cautions(0)
    assert wrong.probability[0] < 0.01
