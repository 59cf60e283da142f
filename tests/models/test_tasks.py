"""The models of the tasks answer, tell, find and colour; their maps lie on what they speak of."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from repository import ROOT
from task_pointing import TASKS, draw, hits, mean_of, shuffled, tensors
from task_scenes import box_of

import onnx_gradcam as ogc

MODELS = ROOT / "models"
PHOTO = MODELS / "images-tasks" / "red-star-left-of-blue-heart.png"
LEAST = {
    "shapes-vqa": {"colour": 0.8, "shape": 0.8, "presence": 0.8, "place": 0.8},
    "shapes-caption": {"word": 0.8, "sentence": 0.85},
    "shapes-detector": {"object": 0.85},
    "shapes-segmenter": {"object": 0.85},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_the_maps_lie_on_their_objects(name: str) -> None:
    task = TASKS[name]
    scenes = draw(40, task.objects)
    with ogc.Explainer(MODELS / f"{name}.onnx", providers=["cpu"]) as explainer:
        x = tensors(explainer, scenes)
        rates = {group: mean_of(found).value or 0 for group, found in hits(explainer, task, scenes, x, "auto").items()}
        quality = task.quality(explainer, scenes, x)
        if name == "shapes-caption":
            rates |= {g: mean_of(v).value or 0 for g, v in hits(explainer, task, scenes, x, "gradcam").items()}
    assert {group: rate for group, rate in rates.items() if rate < LEAST[name].get(group, 0)} == {}
    assert min(quality.values()) >= 0.85
    with ogc.Explainer(shuffled(MODELS / f"{name}.onnx")) as explainer:
        found = hits(explainer, task, scenes[:15], x[:15], task.methods[0])
    assert max(mean_of(each).value or 0 for each in found.values()) < 0.4


@pytest.mark.parametrize("name", TASKS)
def test_files_are_small_and_say_what_their_users_must_know(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    assert path.stat().st_size <= 1_000_000
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    keys = {entry.key for entry in model.metadata_props}
    words = {"onnx_gradcam.vocabulary"} if name in ("shapes-vqa", "shapes-caption") else set()
    assert keys == {"onnx_gradcam.labels", "onnx_gradcam.preprocess", *words}
    assert not any(node.metadata_props for node in model.graph.node)


@pytest.mark.parametrize(
    ("question", "answer", "column"),
    [
        ("What colour is the star?", "red", 64),
        ("What shape is the blue thing?", "heart", 290),
        ("Is there a star?", "yes", 64),
        ("What is left of the heart?", "star", 64),
        ("What is right of the star?", "heart", 290),
    ],
)
def test_answers_about_the_photo(question: str, answer: str, column: int) -> None:
    explanation = ogc.explain_question(ogc.Explainer(MODELS / "shapes-vqa.onnx"), PHOTO, question)
    assert explanation.label(0) == answer
    _, x = np.unravel_index(explanation.heatmap[0].argmax(), explanation.heatmap.shape[1:])
    assert abs(int(x) - column) < 64


def test_what_is_said_of_the_photo() -> None:
    explainer = ogc.Explainer(MODELS / "shapes-caption.onnx")
    caption = ogc.explain_caption(explainer, PHOTO)
    assert caption.text == "a red star left of a blue heart"
    assert caption.explanation.probability[0] > 0.9
    for word, column in (("red", 64), ("star", 64), ("blue", 290), ("heart", 290)):
        heatmap = caption.word(caption.words.index(word)).heatmap[0]
        _, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
        assert abs(int(x) - column) < 64, word


def test_the_default_cell_of_the_detector_lies_in_its_object() -> None:
    with ogc.Explainer(MODELS / "shapes-detector.onnx", providers=["cpu"]) as explainer:
        for scene in draw(10, 3):
            x = tensors(explainer, [scene])
            explanation = explainer.explain(x, ogc.Boxes(5, threshold=0.5))
            found = {
                explanation.label(row).partition(",")[0]: explanation.box_of(row) for row in range(len(explanation))
            }
            assert set(found) == {thing.words[1] for thing in scene.things}
            for thing, mask in zip(scene.things, scene.masks, strict=True):
                np.testing.assert_allclose(found[thing.words[1]], box_of(mask), atol=6)


def test_the_segmenter_colours_the_photo() -> None:
    explanation = ogc.Explainer(MODELS / "shapes-segmenter.onnx").explain_image(PHOTO, ogc.TopK(2))
    assert {explanation.label(row) for row in range(2)} == {"star", "heart"}
    assert explanation.labels is not None
    labels = explanation.outputs["classes"][0].argmax(axis=0)
    assert {explanation.labels[k] for k in np.unique(labels)} == {"background", "star", "heart"}
