"""Real models as they were deployed: outputs untouched, the classes that they give, and maps that say something."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from localisation import declared
from repository import MODELS

import onnx_gradcam as ogc
from onnx_gradcam.photos.decode import decode
from onnx_gradcam.photos.listing import list_images
from onnx_gradcam.photos.tensor import to_tensor
from onnx_gradcam.results.explanation import Explanation

CLASSIFIERS = (
    "squeezenet-fp32-from-fp16", "squeezenet-fp16", "stm-mobilenetv2-035-tfs", "mesonet", "ppocr-cls-v3",
    "winml-mnist", "geometric-shapes", "shufflenetv2-int8",
)  # fmt: skip
DEMOS = [MODELS / f"shapes-{name}.onnx" for name in ("inception", "resnet", "vgg")]  # which the photos were drawn for

TOLERANCE = 1e-5  # largest difference of an output, as a share of its largest magnitude
# Exposing a value rounds it to float16 where onnxruntime would have passed on float32: 6.2e-4 was measured over the
# four photos, half a unit in the last place is 4.9e-4.
FLOAT16_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Subject:
    """What a model is shown, and which classes may come first; none: nothing is known."""

    image: Any
    preprocess: str | ogc.Preprocess
    expected: tuple[int, ...]


@dataclass(frozen=True)
class Explained:
    """A subject, what the untouched file gives for it, and our explanation."""

    subject: Subject
    original: dict[str, Any]
    explanation: Explanation


def of_zoo(name: str, entry: dict[str, Any], zoo: Path) -> Iterator[Subject]:
    if name in DRAWN:
        yield from DRAWN[name]()
    for photo, classes in entry.get("expect", {}).items():
        expected = (int(classes[0] == ">"),) if isinstance(classes, str) else tuple(classes)
        yield Subject(zoo / "images" / photo, declared(entry), expected)


def grey(side: int) -> ogc.Preprocess:
    return ogc.Preprocess((side, side), "stretch", None, 1 / 255, (0.0,), (1.0,), "L", "NCHW", "float32")


def digits() -> Iterator[Subject]:
    for digit in range(10):
        image = np.zeros((28, 28), np.uint8)
        cv2.putText(image, str(digit), (5, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
        yield Subject(image, grey(28), (digit,))


def triangle() -> Iterator[Subject]:
    image = np.zeros((64, 64), np.uint8)
    cv2.fillPoly(image, [np.array([[20, 45], [45, 45], [32, 18]])], 255)
    yield Subject(image, grey(64), (1,))


def text() -> Iterator[Subject]:
    """A line of text upright and upside down."""
    image = np.full((48, 192, 3), 255, np.uint8)
    cv2.putText(image, "Example 47", (8, 34), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (0, 0, 0), 2)
    half = (0.5, 0.5, 0.5)
    spec = ogc.Preprocess((48, 192), "stretch", None, 1 / 255, half, half, "BGR", "NCHW", "float32")
    yield Subject(image, spec, (0,))
    yield Subject(image[::-1, ::-1].copy(), spec, (1,))


DRAWN = {"winml-mnist": digits, "geometric-shapes": triangle, "ppocr-cls-v3": text}


def of_demo(images: Path, labels: tuple[str, ...]) -> Iterator[Subject]:
    for path in list_images([str(images)]):
        yield Subject(path, "auto", tuple(labels.index(name) for name in path.stem.split("-and-")))


def explain(path: Path, explainer: ogc.Explainer, subjects: Iterator[Subject]) -> list[Explained]:
    untouched = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in untouched.get_outputs()]
    found = []
    for subject in subjects:
        x, _ = to_tensor(decode(subject.image), explainer.preprocessing(subject.preprocess).preprocess)
        original = untouched.run(names, {untouched.get_inputs()[0].name: x})
        explanation = explainer.explain_image(subject.image, preprocess=subject.preprocess)
        found.append(Explained(subject, dict(zip(names, original, strict=True)), explanation))
    return found


@pytest.fixture(scope="module", params=CLASSIFIERS)
def classifier(request: pytest.FixtureRequest, zoo: Path, zoo_index: dict[str, Any]) -> tuple[str, list[Explained]]:
    name, entry = request.param, zoo_index[request.param]
    with ogc.Explainer(zoo / entry["file"], providers=["cpu"]) as explainer:
        return name, explain(zoo / entry["file"], explainer, of_zoo(name, entry, zoo))


@pytest.fixture(scope="module", params=[pytest.param(p, id=p.stem) for p in DEMOS])
def demo(request: pytest.FixtureRequest) -> list[Explained]:
    path: Path = request.param
    with ogc.Explainer(path, providers=["cpu"]) as explainer:
        assert explainer.labels
        return explain(path, explainer, of_demo(path.parent / "images", explainer.labels))


def check_outputs(explained: list[Explained], tolerance: float) -> None:
    """Every tensor that the untouched file gives."""
    for one in explained:
        tensors = {k: v for k, v in one.original.items() if isinstance(v, np.ndarray)}
        assert tensors
        for name, expected in tensors.items():
            found = one.explanation.outputs[name]
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
            if expected.dtype.kind != "f":
                np.testing.assert_array_equal(found, expected)
            else:
                limit = tolerance * float(np.abs(expected).max())
                np.testing.assert_allclose(found, expected, rtol=0, atol=limit, err_msg=name)


def check_classes(explained: list[Explained]) -> None:
    for one in explained:
        assert one.explanation.class_index[0] in one.subject.expected


def check_maps(explained: list[Explained]) -> None:
    """Not blank, neither one cell alone nor the same everywhere, and as large as the picture."""
    for one in explained:
        cam, heatmap = one.explanation.cam[0], one.explanation.heatmap[0]
        assert not one.explanation.is_blank[0]
        assert cam.max() < 0.5 * cam.sum()
        assert cam.min() < 0.5 * cam.max()
        assert heatmap.shape == decode(one.subject.image).shape[:2]
        assert heatmap.min() >= 0
        assert 0.9 < heatmap.max() <= 1


def test_outputs(classifier: tuple[str, list[Explained]]) -> None:
    name, explained = classifier
    check_outputs(explained, FLOAT16_TOLERANCE if name == "squeezenet-fp16" else TOLERANCE)


def test_classes(classifier: tuple[str, list[Explained]]) -> None:
    check_classes(classifier[1])


def test_maps(classifier: tuple[str, list[Explained]]) -> None:
    check_maps(classifier[1])


def test_outputs_of_a_demo_model(demo: list[Explained]) -> None:
    check_outputs(demo, TOLERANCE)


def test_classes_of_a_demo_model(demo: list[Explained]) -> None:
    """With one object. Both of two are promised for shapes-resnet only (models/README.md): test_cli.py has the demo."""
    single = [one for one in demo if len(one.subject.expected) == 1]
    assert single
    check_classes(single)


def test_maps_of_a_demo_model(demo: list[Explained]) -> None:
    check_maps(demo)


def test_what_stands_before_a_zipmap_is_what_it_maps(zoo: Path) -> None:
    """The score of winml-mnist goes on into ai.onnx.ml, as a list of {class: probability}."""
    path = zoo / "models" / "winml-mnist.onnx"
    with ogc.Explainer(path, providers=["cpu"]) as explainer:
        for one in explain(path, explainer, digits()):
            (probabilities,) = one.original["prediction"]
            (found,) = one.explanation.outputs["prediction1"]
            np.testing.assert_allclose(found, list(probabilities.values()), rtol=0, atol=TOLERANCE)


def test_a_blank_map_is_called_blank(zoo: Path) -> None:
    """geometric-shapes calls this a circle for what is missing: at the layer nothing speaks for it."""
    image = np.zeros((64, 64), np.uint8)
    cv2.circle(image, (30, 35), 14, 255, -1)
    with ogc.Explainer(zoo / "models" / "geometric-shapes.onnx", providers=["cpu"]) as explainer:
        explanation = explainer.explain_image(image, preprocess=grey(64))
        against = explainer.explain_image(image, preprocess=grey(64), counterfactual=True)
    assert explanation.class_index[0] == 0
    assert explanation.is_blank[0]
    assert not explanation.heatmap.any()
    assert any("blank" in warning for warning in explanation.warnings)
    assert not against.is_blank[0]


def test_what_is_no_classifier_is_refused(zoo: Path) -> None:
    """A detector's boxes by themselves: nothing says what class they are of."""
    model = onnx.load(zoo / "models" / "ultraface-320.onnx")
    del model.graph.output[0]
    with pytest.raises(ogc.ScoreError) as caught:
        ogc.Explainer(model)
    assert "boxes (1, 4420, 4)" in caught.value.where
    assert "--score" in caught.value.hint
