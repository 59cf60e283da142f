"""Two builds of a model: a true twin agrees, a damaged one does not, and silence is no agreement."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from brightness import PREPROCESS, brightness_model
from onnx import numpy_helper
from repository import MODELS

import onnx_gradcam as ogc
from onnx_gradcam.cli import main
from onnx_gradcam.jobs.compare.agreement import agreement_of, peak_distance, pearson, top_iou
from onnx_gradcam.jobs.compare.sides import fitted
from onnx_gradcam.jobs.report import text

FORM = {**PREPROCESS, "resize": "stretch"}
RESNET, VGG = (MODELS / f"shapes-{name}.onnx" for name in ("resnet", "vgg"))
PHOTOS = MODELS / "images"


def spot(x: int, y: int) -> np.ndarray:
    photo = np.full((120, 160, 3), 30, np.uint8)
    photo[y - 10 : y + 10, x - 10 : x + 10] = 255
    return photo


def changed(model: onnx.ModelProto, name: str, factor: Any) -> onnx.ModelProto:
    """A copy with one weight multiplied."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (weight,) = (w for w in copy.graph.initializer if w.name == name)
    weight.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(weight) * factor).astype(np.float32), name))
    return copy


def test_a_model_agrees_with_itself() -> None:
    found = ogc.compare(RESNET, f"{RESNET}@cpu", PHOTOS, require=["pearson:worst>=1", "distance:worst<=0"])
    assert [Path(pair.image).name for pair in found.pairs] == [p.name for p in sorted(PHOTOS.glob("*.png"))]
    for pair in found.pairs:
        assert pair.pearson == pytest.approx(1, abs=1e-12)
        assert (pair.iou, pair.distance, pair.top1_a) == (1, 0, pair.top1_b)
    assert found.agreement == 1
    assert found.ok


def test_what_is_measured() -> None:
    """The maps that ``explain_image`` gives for A's top-1, whatever B puts first."""
    found = ogc.compare(RESNET, VGG, PHOTOS)
    with ogc.Explainer(RESNET) as a, ogc.Explainer(VGG) as b:
        for pair in found.pairs:
            of_a = a.explain_image(pair.image)
            of_b = b.explain_image(pair.image, target=pair.class_index)
            assert (pair.class_index, pair.label) == (of_a.class_index[0], of_a.label(0))
            first, second = of_a.heatmap[0], of_b.heatmap[0]
            assert pair.pearson == pytest.approx(pearson(first, second), rel=1e-12)
            assert pair.iou == top_iou(first, second)
            assert pair.distance_px == peak_distance(first, second)
    assert found.measure("pearson", "worst") == min(pair.pearson for pair in found.pairs if pair.pearson is not None)
    assert found.measure("distance", "p95") == pytest.approx(np.percentile([p.distance or 0 for p in found.pairs], 95))
    assert found.measure("iou", "median") == pytest.approx(np.median([p.iou or 0 for p in found.pairs]))


def test_another_prediction_is_counted_and_the_same_class_explained() -> None:
    """B, with its head turned round, puts class 1 first and sees nothing for class 0."""
    a = brightness_model()
    b = changed(a, "head", -1)
    found = ogc.compare(a, b, [spot(40, 40), spot(120, 80)], preprocess=FORM)
    assert [(p.class_index, p.top1_a, p.top1_b) for p in found.pairs] == [(0, 0, 1)] * 2
    assert found.agreement == 0
    for pair in found.pairs:
        assert (pair.pearson, pair.iou, pair.distance) == (0, 0, 1)
        assert pair.note == "the map of B is blank"
    agreed = ogc.compare(a, b, [spot(40, 40)], preprocess=FORM, target=1)
    assert agreed.pairs[0].class_index == 1
    assert agreed.pairs[0].note == "the map of A is blank"


def test_two_blank_maps_are_no_agreement() -> None:
    model = brightness_model()
    found = ogc.compare(model, model, [spot(40, 40)], preprocess=FORM, target=1, require=["pearson:worst>=0"])
    assert found.pairs[0].pearson is None
    assert found.measure("pearson", "median") is None
    assert [finding.value for finding in found.findings] == [None]
    assert not found.ok
    assert "1 of 1 images: both maps are blank" in text.compared(found)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["compared"] == 0


def test_a_map_that_is_not_finite() -> None:
    a, b = np.eye(3), np.full((3, 3), np.nan)
    assert agreement_of(a, b).note == "the map of B is not finite"
    assert agreement_of(a, b).pearson == 0


def test_only_what_both_saw_is_compared() -> None:
    """A crop leaves zeros at both sides of a wide photo: with them, two disjoint maps would correlate more."""
    photo = np.concatenate([spot(40, 40), spot(120, 80), spot(40, 80)], axis=1)
    crop = {**FORM, "size": [96, 112], "resize": "crop", "shorter": 96}
    model, other = brightness_model(), changed(brightness_model(), "w", np.linspace(0, 1, 16, dtype=np.float32))
    (pair,) = ogc.compare(model, other, [photo], preprocess=crop).pairs
    with ogc.Explainer(model) as a, ogc.Explainer(other) as b:
        one, two = (e.explain_image(photo, preprocess=crop, target=0) for e in (a, b))
    x1, y1, x2, y2 = one.seen[0]
    assert x2 - x1 < photo.shape[1] / 2
    assert pair.pearson == pytest.approx(pearson(one.heatmap[0][y1:y2, x1:x2], two.heatmap[0][y1:y2, x1:x2]))


def test_arrays_have_one_pair_per_row(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((3, 3, 96, 112), np.float32)
    np.save(tmp_path / "x.npy", x)
    found = ogc.compare(brightness_model(), brightness_model(), tmp_path / "x.npy")
    assert [pair.image_index for pair in found.pairs] == [0, 1, 2]
    assert found.measure("pearson", "worst") == pytest.approx(1)


def test_the_preprocessing_of_a_in_the_form_of_b(zoo: Path) -> None:
    """float16 for float16, 128 pixels for 128, the rest A's."""
    declared = ogc.Preprocess((224, 224), "crop", 256, 1, (104.0, 117.0, 123.0), (1.0,) * 3, "BGR", "NCHW", "float32")
    with ogc.Explainer(zoo / "models" / "squeezenet-fp16.onnx") as half:
        found = fitted(declared, half)
    assert (found.dtype, found.mean, found.channels, found.shorter) == ("float16", declared.mean, "BGR", 256)
    with ogc.Explainer(zoo / "models" / "stm-mobilenetv2-035-tfs.onnx") as smaller:
        found = fitted(declared, smaller)
    assert (found.size, found.shorter, found.mean) == ((128, 128), 146, declared.mean)


def test_float16_against_its_twin(zoo: Path, zoo_index: dict[str, Any]) -> None:
    twins = [zoo / "models" / f"squeezenet-{name}.onnx" for name in ("fp32-from-fp16", "fp16")]
    photos = [zoo / "images" / name for name in zoo_index["squeezenet-fp16"]["expect"]]
    found = ogc.compare(*twins, photos, preprocess="imagenet-caffe", require=["pearson:worst>=0.995", "agreement>=1"])
    assert found.ok, str(found)


def test_a_detector_that_sees_its_class_elsewhere(zoo: Path) -> None:
    """Its most probable cell is another one under another preprocessing: the note says so."""
    detector, photo = zoo / "models" / "yolox-nano.onnx", zoo / "images" / "darknet-dog.jpg"
    (same,) = ogc.compare(detector, detector, [photo], preprocess="raw").pairs
    assert (same.pearson, same.note) == (pytest.approx(1), "")
    (other,) = ogc.compare(detector, detector, [photo], preprocess="raw", preprocess_b="imagenet").pairs
    assert other.pearson is not None
    assert other.pearson < 0.9
    assert "A explains cell" in other.note


def test_different_classes() -> None:
    with pytest.raises(ogc.ScoreError, match=r"2 \(classes\)"):
        ogc.compare(brightness_model(), VGG, PHOTOS)


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(brightness_model(), tmp_path / "a.onnx")
    onnx.save(changed(brightness_model(), "head", np.array([[1], [4]])), tmp_path / "b.onnx")
    (tmp_path / "form.json").write_text(json.dumps(FORM))
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "left.png"), spot(20, 40))
    cv2.imwrite(str(tmp_path / "photos" / "right.png"), spot(140, 80))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["onnx-gradcam", "compare", *arguments, "--preprocess", "form.json"])
        with pytest.raises(SystemExit) as status:
            main()
        printed = capsys.readouterr()
        return int(status.value.code or 0), printed.out, printed.err

    return call


def test_lines_and_table(desk: Path, run: Any) -> None:
    status, out, err = run("a.onnx", "b.onnx@cpu", "photos", "--require", "pearson:p05>=0.9")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{Path('photos') / 'left.png'}  0  pearson 1.0000  iou 1.0000  distance 0.0000")
    assert "A  a.onnx on CPUExecutionProvider: score 'logits', layer cells" in lines
    assert "pearson:p05>=0.9: met, measured 1" in lines


@pytest.mark.parametrize(
    ("method", "place"), [("saliency", "input image"), ("guided-gradcam", "layer cells, input image")]
)
def test_methods_of_the_input(desk: Path, run: Any, method: str, place: str) -> None:
    status, out, err = run("a.onnx", "b.onnx", "photos", "--method", method, "--require", "pearson:worst>=0.9")
    assert (status, err) == (0, "")
    assert f"A  a.onnx on CPUExecutionProvider: score 'logits', {place}" in out.splitlines()


def test_a_failing_clause(desk: Path, run: Any) -> None:
    status, out, err = run(
        "a.onnx", "b.onnx", "photos", "--json", "--require", "agreement>=0.5", "--require", "iou:median<=0.5"
    )
    assert status == 1
    assert err == "failed: iou:median<=0.5: NOT met, measured 1\n"
    assert [r["ok"] for r in json.loads(out)["requirements"]] == [True, False]
    assert json.loads(out)["ok"] is False


def test_one_bad_image_among_several(desk: Path, run: Any) -> None:
    status, out, err = run("a.onnx", "b.onnx", "photos", "gone.png", "--json")
    assert status == 2
    assert "gone.png: no such file" in err
    found = json.loads(out)
    assert len(found["pairs"]) == 2
    assert [e["image"] for e in found["errors"]] == ["gone.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.onnx", "b.onnx", "gone.png"), "no such file: 'gone.png'"),
        (("a.onnx", "c.onnx", "photos"), "no such model file: 'c.onnx'"),
        (("a.onnx", "b.onnx@abacus", "photos"), "unknown execution provider 'abacus'"),
        (("a.onnx", "b.onnx", "photos", "--require", "pearson>=1"), "METRIC:STATISTIC>=NUMBER"),
        (("a.onnx", "b.onnx", "photos", "--layer-b", "sells"), "no value, node or module 'sells'"),
        (("a.onnx", "b.onnx", "photos", "--target", "7"), "class 7 is out of range"),
        (("a.onnx", "b.onnx", "photos", "--method", "magic"), "magic"),
        (("a.onnx", "b.onnx", "photos", "--preprocess-b", "nothing"), "nothing"),
    ],
)
def test_bad_usage(desk: Path, run: Any, arguments: tuple[str, ...], said: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert said in err
