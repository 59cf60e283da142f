"""Which class of which photo is measured, what fails alone, and where a region lies in the model's input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from labelled import LABELS, network, photo, table
from nets import Net, run

import onnx_gradcam as ogc
from onnx_gradcam.jobs.evaluate.chosen import QUICK
from onnx_gradcam.jobs.evaluate.subjects import boxes_in_input
from onnx_gradcam.metrics.table import METRICS

MODEL = network()
HOW: dict[str, Any] = {"labels": LABELS, "preprocess": "zero-one,stretch", "providers": ["cpu"]}
OWN_CLASS = "the data name no classes: each photo is explained for the class that the model puts first"


def test_folders_with_the_names_of_classes(tmp_path: Path) -> None:
    for seed, name in enumerate(("star/a.png", "moon/b.png", "c.png")):
        photo(tmp_path / name, seed)
    evaluation = ogc.evaluate(MODEL, tmp_path, ["sparseness"], **HOW)
    assert sorted((Path(row.image).name, row.label) for row in evaluation.rows) == [
        ("a.png", "star"),
        ("b.png", "moon"),
    ]
    ((image, error),) = evaluation.errors
    assert Path(image).name == "c.png"
    assert "lies in no folder with the name of a class" in error
    assert OWN_CLASS not in evaluation.warnings


def test_without_classes_the_first_of_the_model_is_measured(tmp_path: Path) -> None:
    pixels = photo(tmp_path / "a.png", 0)
    evaluation = ogc.evaluate(MODEL, tmp_path, **HOW)
    logits = run(MODEL, {"image": pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255})["logits"][0]
    (row,) = evaluation.rows
    assert evaluation.accuracy is None
    assert (row.class_index, row.rank) == (int(logits.argmax()), None)
    assert evaluation.warnings == (OWN_CLASS,)
    of_data = {"region", "boxes", "rank", "maps_of_others", "regions"}
    assert [m.name for m in evaluation.metrics] == [name for name in QUICK if not of_data & set(METRICS[name].needs)]


def test_what_fails_fails_alone(tmp_path: Path) -> None:
    for seed in (0, 1):
        photo(tmp_path / f"{seed}.png", seed)
    (tmp_path / "broken.png").write_bytes(b"no photo")
    cv2.imwrite(str(tmp_path / "small-mask.png"), np.ones((3, 3), np.uint8))
    lines = [
        "0.png,star,,,",
        "broken.png,star,,,",
        "missing.png,star,,,",
        "1.png,sun,,,",
        "1.png,moon,,small-mask.png,",
    ]
    reports: list[Any] = []
    data = table(tmp_path, *lines, "1.png,heart,,,")
    evaluation = ogc.evaluate(
        MODEL, data, ["complexity"], report=lambda row, total: reports.append((row, total)), **HOW
    )
    assert [row.label for row in evaluation.rows] == ["star", "heart"]
    errors = [(Path(image).name, error.splitlines()[0]) for image, error in evaluation.errors]
    assert [name for name, _ in errors] == ["broken.png", "missing.png", "1.png", "1.png"]
    assert "sun" in errors[2][1]
    assert errors[3][1] == "the mask has 3×3 pixels, the photo 16×16"
    assert [total for _, total in reports] == [6] * 6
    with pytest.raises(ogc.InputError, match="none of the 2 samples could be measured"):
        ogc.evaluate(MODEL, table(tmp_path, *lines[1:3]), ["complexity"], **HOW)
    with pytest.raises(ogc.TargetError, match="sun"):
        ogc.evaluate(MODEL, table(tmp_path, lines[3]), ["complexity"], **HOW)


@pytest.mark.parametrize(("names", "message"), [
    (["energie"], "unknown metric 'energie'"),
    (["energy"], "metric 'energy' needs a box, an outline or a mask, and no sample has one"),
    (["discrimination"], "metric 'discrimination' needs a box, an outline or a mask"),
    (["localisation-error-top1"], "metric 'localisation-error-top1' needs a box"),
])  # fmt: skip
def test_a_metric_that_cannot_be_measured(tmp_path: Path, names: list[str], message: str) -> None:
    photo(tmp_path / "a.png", 0)
    with pytest.raises(ogc.MetricError, match=message):
        ogc.evaluate(MODEL, tmp_path, names, **HOW)


def test_a_region_moves_with_its_photo(tmp_path: Path) -> None:
    """A photo of 32 × 64 pixels: its middle half is the input, at half the size."""
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((32, 64, 3), 128, np.uint8))
    data = table(tmp_path, "wide.png,star,24 8 32 24,,")
    evaluation = ogc.evaluate(MODEL, data, ["energy", "pointing"], **{**HOW, "preprocess": "zero-one,crop"})
    assert evaluation.rows[0].chance == {"energy": 4 * 8 / 256, "pointing": 4 * 8 / 256}
    seen = ogc.Geometry(photo=(32, 64), model=(16, 16), scale=(0.5, 0.5), offset=(0.0, -8.0))
    boxes = np.array([[24.0, 8, 32, 24], [0, 0, 20, 40], [0, 0, 10, 10]])
    np.testing.assert_allclose(boxes_in_input(boxes, seen), [[4, 4, 8, 12], [0, 0, 2, 16]])


def test_what_the_model_does_not_see_is_not_measured(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((32, 64, 3), 128, np.uint8))
    data = table(tmp_path, "wide.png,star,0 0 10 10,,", "wide.png,moon,30 0 40 10,,")
    evaluation = ogc.evaluate(MODEL, data, ["energy", "localisation-error"], **{**HOW, "preprocess": "zero-one,crop"})
    assert [row.figures["energy"] is None for row in evaluation.rows] == [True, False]
    assert evaluation["localisation-error"].map.n == 1


def test_a_guessed_preprocessing_is_refused_where_it_must_not_be(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 0)
    with pytest.raises(ogc.PreprocessError, match="guess"):
        ogc.evaluate(MODEL, tmp_path, labels=LABELS, strict=True, providers=["cpu"])


def test_arrays_are_measured_as_the_photos_that_they_are_made_of(tmp_path: Path) -> None:
    pixels = photo(tmp_path / "a.png", 0)
    np.save(tmp_path / "a.npy", pixels.transpose(2, 0, 1).astype(np.float32) / 255)
    np.save(tmp_path / "two.npy", np.zeros((2, 3, 16, 16), np.float32))
    data = table(tmp_path, "a.png,star,2 3 9 12,,", "a.npy,star,2 3 9 12,,", "two.npy,star,,,")
    evaluation = ogc.evaluate(MODEL, data, ["deletion", "energy", "localisation-error"], **HOW)
    of_photo, of_array = evaluation.rows
    assert of_array.figures == pytest.approx(of_photo.figures, rel=1e-5)
    assert of_array.ceiling == pytest.approx(of_photo.ceiling)
    assert "holds 2 images" in evaluation.errors[0][1]


def test_a_volume_has_a_mask_of_its_own_shape(tmp_path: Path) -> None:
    net = Net()
    weight = net.array(np.abs(np.random.default_rng(0).standard_normal((2, 1, 3, 3, 3))).astype(np.float32))
    x = net.op("Relu", net.op("Conv", net.input("volume", ["N", 1, 6, 6, 8]), weight, pads=[1] * 6), out="last")
    flat = net.op("Flatten", net.op("GlobalAveragePool", x))
    model = net.model({net.op("Gemm", flat, net.array(np.ones((2, 2), np.float32)), out="logits"): ["N", 2]})
    volume, mask = np.random.default_rng(1).random((1, 6, 6, 8)).astype(np.float32), np.zeros((6, 6, 8), np.uint8)
    mask[1:4, 2:5, 3:7] = 1
    np.save(tmp_path / "v.npy", volume)
    np.save(tmp_path / "m.npy", mask)
    data = table(tmp_path, "v.npy,0,,m.npy,", "v.npy,1,1 1 3 3,,")
    evaluation = ogc.evaluate(model, data, ["energy", "deletion"], providers=["cpu"])
    (row,) = evaluation.rows
    heatmap = ogc.Explainer(model, providers=["cpu"]).explain(volume[None], 0).heatmap[0]
    assert row.figures["energy"] == pytest.approx(heatmap[mask > 0].sum() / heatmap.sum(), rel=1e-5)
    assert row.chance["energy"] == pytest.approx(mask.mean())
    assert "a box or an outline in an array with 3 axes" in evaluation.errors[0][1]


def test_pictures_of_earlier_evaluations_and_comparisons_are_no_photos(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 0)
    evaluation = ogc.evaluate(MODEL, tmp_path, ["deletion"], **HOW)
    evaluation.save(tmp_path / "evaluation")
    comparison = ogc.compare(
        MODEL, MODEL, [tmp_path / "a.png"], preprocess="zero-one,stretch", keep=1, providers=["cpu"]
    )
    comparison.save(tmp_path / "comparison")
    assert {file.suffix for file in tmp_path.rglob("*/*")} == {".png", ".json"}
    again = ogc.evaluate(MODEL, tmp_path, ["deletion"], **HOW)
    assert [row.image for row in again.rows] == [str(tmp_path / "a.png")]


def test_regions_that_cover_the_photo_leave_nothing_elsewhere(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 0)
    lines = ["path,region:left,region:right", "a.png,0 0 6 16,6 0 16 16"]
    (tmp_path / "data.csv").write_text("\n".join(lines), "utf-8")
    evaluation = ogc.evaluate(MODEL, tmp_path / "data.csv", ["evidence-share"], **HOW)
    assert [one.name for one in evaluation.metrics] == ["evidence-share:left", "evidence-share:right"]
    assert sum(one.map.value or 0 for one in evaluation.metrics) == pytest.approx(1)
    assert [one.chance.value for one in evaluation.metrics if one.chance] == pytest.approx([6 / 16, 10 / 16])
    with pytest.raises(ogc.MetricError, match="needs a named region"):
        ogc.evaluate(MODEL, tmp_path / "a.png", ["evidence-share"], **HOW)
