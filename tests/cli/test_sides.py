"""The command line shows what speaks for and against a class, and explains mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from brightness import EXPLAIN
from repository import DOCS


def test_both_sides(folder: Path, run: Any) -> None:
    """One picture and three arrays at one scale; class 1 is the negative of class 0, so that the sides are swapped."""
    status, out, _ = run(*EXPLAIN, "--both", "--target", "0", "--target", "1", "--json")
    assert status == 0
    manifest = json.loads(out)
    jsonschema.validate(manifest, json.loads((DOCS / "manifest.schema.json").read_text("utf-8")))
    assert manifest["request"]["both"] is True
    results = folder / "onnx-gradcam-out" / "model-gradcam"
    assert sorted(p.name for p in results.glob("left*")) == [
        f"left.gradcam-both.{k}.{end}" for k in (0, 1) for end in ("against.npy", "for.npy", "net.npy", "png")
    ]
    maps = {
        (k, part): np.load(results / f"left.gradcam-both.{k}.{part}.npy")
        for k in (0, 1)
        for part in ("for", "against", "net")
    }
    assert maps[0, "for"].max() > 0.99
    assert not maps[0, "against"].any()
    np.testing.assert_array_equal(maps[0, "for"], maps[1, "against"])
    np.testing.assert_array_equal(maps[1, "net"], -maps[0, "for"])
    rows = manifest["results"][0]["rows"]
    assert [(row["class_index"], row["part"]) for row in rows] == [
        (k, part) for k in (0, 1) for part in ("for", "against", "net")
    ]
    assert {row["scale"] for row in rows} == {rows[0]["scale"]}


def test_both_prints_a_line_for_each_picture_and_is_repeated(folder: Path, run: Any) -> None:
    status, out, _ = run(*EXPLAIN, "--both", "--target", "top2")
    assert status == 0
    assert [line.split("  ")[1] for line in out.splitlines()] == ["0", "1"] * 2
    assert run("explain", "--from", "onnx-gradcam-out/model-gradcam/manifest.json")[0] == 0
    file = folder / "onnx-gradcam-out" / "model-gradcam" / "right.gradcam-both.1.net.npy"
    np.save(file, 0 * np.load(file))
    status, out, _ = run("explain", "--from", "onnx-gradcam-out/model-gradcam/manifest.json")
    assert status == 1
    assert [line for line in out.splitlines() if "DIFFERS" in line] == [
        "right.gradcam-both.1.net.npy  DIFFERS  largest difference 1"
    ]


def test_concepts_are_of_no_class_that_could_be_the_true_one(folder: Path, run: Any) -> None:
    status, out, err = run(*EXPLAIN, "--true", "1", "--method", "dff")
    assert (status, out) == (2, "")
    assert "has a map for each concept, and none for a class" in err


def test_sides_of_a_smoothed_map_are_run_for(folder: Path, run: Any) -> None:
    """Class 1 is the negative of class 0, so that the sides of a class are the maps of the two."""
    status, _, _ = run(*EXPLAIN, "--both", "--smooth", "noise", "--option", "samples=3", "--target", "0")
    assert status == 0
    run(*EXPLAIN, "--both", "--smooth", "noise", "--option", "samples=3", "--target", "1", "-o", "other")
    folders = (folder / "onnx-gradcam-out" / "model-gradcam", folder / "other")
    stems = [results / f"left.gradcam-noise-both.{k}" for k, results in enumerate(folders)]
    for part, other in (("for", "against"), ("against", "for")):
        np.testing.assert_array_equal(np.load(f"{stems[0]}.{part}.npy"), np.load(f"{stems[1]}.{other}.npy"))
    assert np.load(f"{stems[0]}.for.npy").max() > 0.99
    assert run("explain", "--from", "other/manifest.json")[0] == 0
    status, _, _ = run(*EXPLAIN, "--true", "1", "--smooth", "noise", "--option", "samples=3", "-o", "true")
    assert status == 0
    predicted, difference = (
        np.load(folder / "true" / f"left.gradcam-noise.0-vs-1.{part}.npy") for part in ("predicted", "difference")
    )
    np.testing.assert_allclose(difference, 2 * predicted, atol=1e-6)


def test_a_wrong_prediction_against_the_true_class(folder: Path, run: Any) -> None:
    """Scores are b and −b: the map of their difference is twice that of class 0."""
    (folder / "labels.txt").write_text("bright\ndark\n")
    status, out, err = run(*EXPLAIN, "--labels", "labels.txt", "--true", "dark")
    assert status == 0
    assert out.splitlines()[0].split("  ")[1] == "predicted bright, true dark"
    assert "right" not in err
    results = folder / "onnx-gradcam-out" / "model-gradcam"
    names = ("difference.npy", "png", "predicted.npy", "true.npy")
    assert sorted(p.name for p in results.glob("left*")) == [f"left.gradcam.0-vs-1.{end}" for end in names]
    predicted, true, difference = (
        np.load(results / f"left.gradcam.0-vs-1.{part}.npy") for part in ("predicted", "true", "difference")
    )
    np.testing.assert_allclose(difference, 2 * predicted, atol=1e-6)
    assert difference.max() > 0.99
    assert not true.any()
    manifest = json.loads((results / "manifest.json").read_text("utf-8"))
    jsonschema.validate(manifest, json.loads((DOCS / "manifest.schema.json").read_text("utf-8")))
    assert manifest["request"]["true"] == "dark"
    rows = manifest["results"][0]["rows"]
    assert [(r["part"], r["label"]) for r in rows] == [
        ("predicted", "bright"),
        ("true", "dark"),
        ("difference", "bright − dark"),
    ]
    assert rows[2]["score"] == rows[0]["score"] - rows[1]["score"] > 0
    assert rows[0]["probability"] + rows[1]["probability"] == pytest.approx(1)
    assert rows[2]["probability"] is None
    assert run("explain", "--from", "onnx-gradcam-out/model-gradcam/manifest.json")[0] == 0


def test_a_right_prediction_is_shown_against_the_runner_up(folder: Path, run: Any) -> None:
    (folder / "labels.txt").write_text("bright\ndark\n")
    status, out, err = run(*EXPLAIN, "--labels", "labels.txt", "--true", "bright")
    assert status == 0
    assert out.splitlines()[0].split("  ")[1] == "predicted bright, runner-up dark"
    assert "the prediction is right (bright): shown against the runner-up" in err
    assert (folder / "onnx-gradcam-out" / "model-gradcam" / "left.gradcam.0-vs-1.runner-up.npy").exists()


def test_true_labels_from_a_table(folder: Path, run: Any) -> None:
    """By name or by path; the one that has no line is an error of its own."""
    (folder / "true.csv").write_text("image,label\nleft.png, 1\n\nphotos/right.png,0\n")
    status, out, _ = run(*EXPLAIN, "--true", "true.csv")
    assert status == 0
    assert [line.split("  ")[1] for line in out.splitlines()] == ["predicted 0, true 1", "predicted 0, runner-up 1"]
    (folder / "true.csv").write_text("left.png,1\n")
    status, out, err = run(*EXPLAIN, "--true", "true.csv", "--overwrite")
    assert status == 2
    assert len(out.splitlines()) == 1
    assert "'right.png' has no label in 'true.csv'" in err
    manifest = json.loads((folder / "onnx-gradcam-out" / "model-gradcam" / "manifest.json").read_text("utf-8"))
    assert [error["image"] for error in manifest["errors"]] == [str(Path("photos") / "right.png")]


def test_an_array_of_right_and_wrong_predictions(run: Any, folder: Path) -> None:
    """Rows of images, each against its own other class."""
    x = np.zeros((2, 3, 96, 112), np.float32)
    x[0, :, 16:32, 32:48] = 1
    np.save(folder / "x.npy", x)
    status, out, err = run("explain", "model.onnx", "x.npy", "--true", "0", "--json")
    assert status == 0
    result = json.loads(out)["results"][0]
    assert [(r["image_index"], r["part"], r["class_index"]) for r in result["rows"]] == [
        (i, part, k) for i in (0, 1) for part, k in (("predicted", 0), ("runner-up", 1), ("difference", 0))
    ]
    assert "2 of 2 predictions are right" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--true", "7"), "class 7 is out of range"),
        (("--true", "gone.csv"), "cannot be read"),
        (("--true", "bad.csv"), "3 columns instead of a photo and its label"),
        (("--true", "1", "--target", "0"), "leave --target and --both out"),
        (("--true", "1", "--both"), "leave --target and --both out"),
        (("--true", "1", "--signed"), "'gradcam signed' is already one of the two sides"),
        (("--both", "--counterfactual"), "'gradcam counterfactual' is already one of the two sides"),
        (("--both", "--method", "eigencam"), "'eigencam' has no counterfactual variant"),
        (("--both", "--method", "saliency"), "'saliency' has no counterfactual"),
        (("--both", "--smooth", "eigen"), "has no counterfactual variant"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_sides_that_cannot_be(folder: Path, run: Any, arguments: tuple[str, ...], message: str) -> None:
    (folder / "bad.csv").write_text("left.png,1\nright.png,tabby,cat\n")
    status, out, err = run(*EXPLAIN, *arguments)
    assert (status, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())
