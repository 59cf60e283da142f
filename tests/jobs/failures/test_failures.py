"""The mistakes of a classifier: which they are, in which order, and the maps of the explained ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from labelled import LABELS, network, photo, pixels_of
from nets import Net, run
from repository import DOCS

import onnx_gradcam as ogc

MODEL = network()
HOW: dict[str, Any] = {"labels": LABELS, "preprocess": "zero-one,stretch", "providers": ["cpu"]}
SCHEMA = json.loads((DOCS / "failures.schema.json").read_text("utf-8"))
COUNT = 9


def probabilities(seed: int) -> np.ndarray:
    logits = run(MODEL, {"image": pixels_of(seed).transpose(2, 0, 1)[None].astype(np.float32) / 255})["logits"][0]
    return np.exp(logits) / np.exp(logits).sum()


P = np.stack([probabilities(seed) for seed in range(COUNT)])
TRUE = [(int(p.argmax()) + k % 3) % 3 for k, p in enumerate(P)]  # every third photo is right
WRONG = sorted((k for k in range(COUNT) if P[k].argmax() != TRUE[k]), key=lambda k: -P[k].max())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed, true in enumerate(TRUE):
        photo(folder / LABELS[true] / f"{seed}.png", seed)
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> ogc.FailureReport:
    return ogc.failures(MODEL, folder, limit=3, **HOW)


def test_mistakes_come_with_the_most_confident_first(report: ogc.FailureReport) -> None:
    assert (report.photos, len(report)) == (COUNT, len(WRONG)) == (9, 6)
    assert [int(Path(each.image).stem) for each in report.failures] == WRONG
    for each, k in zip(report.failures, WRONG, strict=True):
        assert (each.predicted, each.true) == (int(P[k].argmax()), TRUE[k])
        assert (each.predicted_label, each.true_label) == (LABELS[int(P[k].argmax())], LABELS[TRUE[k]])
        assert each.predicted_probability == pytest.approx(P[k].max(), rel=1e-4)
        assert each.true_probability == pytest.approx(P[k][TRUE[k]], rel=1e-4)
        assert each.rank == (P[k] > P[k][TRUE[k]]).sum()
    assert str(report) == "6 mistakes on 9 photos (accuracy 0.333); the 3 most confident are explained"


def test_the_first_are_explained_for_and_against_both_classes(report: ogc.FailureReport) -> None:
    assert [each.sides is not None for each in report.failures] == [True] * 3 + [False] * 3
    explainer = ogc.Explainer(MODEL, labels=LABELS, providers=["cpu"])
    for each in report.explained:
        expected = ogc.both(
            explainer.explain_image(each.image, ogc.Classes([each.predicted, each.true]), preprocess=HOW["preprocess"])
        )
        assert each.sides is not None
        assert list(each.sides.parts) == ["for", "against", "net"]
        for name, part in each.sides.parts.items():
            np.testing.assert_array_equal(part.heatmap, expected.parts[name].heatmap)
            np.testing.assert_array_equal(part.class_index, [each.predicted, each.true])


def test_the_page_shows_each_explained_photo(report: ogc.FailureReport, tmp_path: Path) -> None:
    path = report.save(tmp_path)
    content = json.loads(path.read_text("utf-8"))
    jsonschema.validate(content, SCHEMA)
    assert content["png"] == "failures.png"
    assert [row["explained"] for row in content["rows"]] == [True] * 3 + [False] * 3
    page = cv2.imread(str(tmp_path / "failures.png"))
    tops = []
    for each in report.explained:
        enlarged = cv2.resize(cv2.imread(each.image), (240, 240), interpolation=cv2.INTER_NEAREST)
        distance = cv2.matchTemplate(page, enlarged, cv2.TM_SQDIFF)
        assert distance.min() < 1e-6 * distance.max()
        tops.append(np.unravel_index(distance.argmin(), distance.shape))
    assert [x for _, x in tops] == [tops[0][1]] * 3
    assert [y for y, _ in tops] == sorted(y for y, _ in tops)
    with pytest.raises(ogc.OutputError, match="already holds a failures"):
        report.save(tmp_path)


def test_no_mistake_is_said_and_nothing_is_drawn(tmp_path: Path) -> None:
    for seed, p in enumerate(P[:4]):
        photo(tmp_path / LABELS[int(p.argmax())] / f"{seed}.png", seed)
    report = ogc.failures(MODEL, tmp_path, **HOW)
    assert (len(report), report.photos, report.sheet()) == (0, 4, None)
    assert str(report) == "no mistake on 4 photos"
    content = json.loads(report.save(tmp_path / "out").read_text("utf-8"))
    jsonschema.validate(content, SCHEMA)
    assert (content["mistakes"], content["png"]) == (0, None)


def test_a_photo_with_several_objects_is_right_where_one_of_them_comes_first(folder: Path, tmp_path: Path) -> None:
    first = [int(p.argmax()) for p in P]
    others = sorted({0, 1, 2} - {first[1]}, key=lambda k: P[1][k])
    lines = ["path,label", f"0.png,{first[0]}", f"0.png,{(first[0] + 1) % 3}", *(f"1.png,{k}" for k in others)]
    (tmp_path / "data.csv").write_text("\n".join(lines), "utf-8")
    for seed in (0, 1):
        photo(tmp_path / f"{seed}.png", seed)
    report = ogc.failures(MODEL, tmp_path / "data.csv", **HOW)
    assert report.photos == 2
    (failure,) = report.failures
    assert (Path(failure.image).name, failure.true, failure.rank) == ("1.png", others[-1], 1)


def test_arrays_other_sizes_and_what_fails_alone(tmp_path: Path) -> None:
    x = pixels_of(5).transpose(2, 0, 1).astype(np.float32) / 255
    np.save(tmp_path / "x.npy", x)
    photo(tmp_path / "7.png", 7)
    (tmp_path / "broken.png").write_bytes(b"no photo")
    wrong = [(int(P[k].argmax()) + 1) % 3 for k in (5, 7)]
    lines = ["path,label", f"x.npy,{wrong[0]}", f"7.png,{wrong[1]}", "broken.png,0", "7.png,sun", "x.npy,"]
    (tmp_path / "data.csv").write_text("\n".join(lines[:4]), "utf-8")
    report = ogc.failures(MODEL, tmp_path / "data.csv", **HOW)
    assert sorted(Path(each.image).name for each in report.failures) == ["7.png", "x.npy"]
    assert all(each.sides is not None for each in report.failures)
    assert [Path(image).name for image, _ in report.errors] == ["broken.png"]


def test_other_inputs_with_and_without_a_batch_axis(folder: Path) -> None:
    net = Net(seed=3)
    image, gain, shift = net.input("image", ["N", 3, 16, 16]), net.input("gain", ["N", 1]), net.input("shift", [3])
    x = net.op("Relu", net.conv(image, (3, 6)), out="last")
    logits = net.op("Mul", net.head(x, 6, 3, out="z"), gain)
    model = net.model({net.op("Add", logits, shift, out="logits"): ["N", 3]})
    inputs = {"gain": np.array([[2.0]], np.float32), "shift": np.array([0.0, 9, 0], np.float32)}
    report = ogc.failures(model, folder, inputs=inputs, **HOW)
    assert {each.predicted for each in report.failures} == {1}
    assert len(report) == sum(true != 1 for true in TRUE)
    assert all(each.sides is not None for each in report.failures)


def test_smoothed_maps_have_a_run_for_the_other_side(folder: Path) -> None:
    report = ogc.failures(MODEL, folder, limit=1, smooth="noise", options={"samples": 2}, **HOW)
    assert "noise" in report.method
    assert report.explained[0].sides is not None


@pytest.mark.parametrize(("keywords", "error", "text"), [
    ({"method": "saliency"}, ogc.MethodError, "does not have two sides"),
    ({"limit": 0}, ogc.MethodError, "0 mistakes"),
    ({"method": "gradcma"}, ogc.MethodError, "gradcma"),
])  # fmt: skip
def test_what_cannot_be_done(folder: Path, keywords: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ogc.failures(MODEL, folder, **HOW, **keywords)


def test_photos_without_classes_and_models_without_classes(folder: Path, tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 0)
    with pytest.raises(ogc.InputError, match="the data name no class"):
        ogc.failures(MODEL, tmp_path, **HOW)
    net = Net()
    x = net.op("Relu", net.conv(net.input("image", ["N", 3, 16, 16]), (3, 4)), out="last")
    regression = net.model({net.head(x, 4, 1): ["N", 1]})
    with pytest.raises(ogc.ScoreError, match="no classes that could be mistaken"):
        ogc.failures(regression, folder, score="logits", providers=["cpu"])
