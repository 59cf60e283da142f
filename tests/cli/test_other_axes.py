"""Volumes, signals and texts on the command line: files in, files of the same axes out."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from extras import extra
from nets import Net
from repository import DOCS

import onnx_gradcam as ogc

AFFINE = np.array([[-2, 0, 0, 90], [0, 0, 3, -126], [0, 1.5, 0, -72], [0, 0, 0, 1.0]])


def save(net: Net, x: str, space: int, name: str, channels: int = 1) -> None:
    """Save a network that shows what it sees: a mean over channels, a ReLU, and a mean over space."""
    weight = np.full((2, channels, *[1] * space), 1 / channels, np.float32)
    x = net.op("Relu", net.op("Conv", x, net.array(weight)), out="relu")
    flat = net.op("Flatten", net.op("GlobalAveragePool", x))
    y = net.op("Gemm", flat, net.array(np.array([[2, 0, 1], [2, 0, -1]], np.float32)), out="y")
    Path(name).write_bytes(net.model({y: ["N", 3]}).SerializeToString())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def volume_model(layout: str = "NCXYZ") -> None:
    net = Net()
    if layout == "NCXYZ":
        save(net, net.input("x", ["N", 1, "X", "Y", "Z"]), 3, "model.onnx")
    else:
        save(net, net.op("Transpose", net.input("x", ["N", 4, 5, 6, 1]), perm=[0, 4, 1, 2, 3]), 3, "model.onnx")


def write_volume(name: str = "brain.nii.gz") -> np.ndarray:
    nibabel = importlib.import_module("nibabel")
    values = np.random.default_rng(1).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), name)
    return np.asarray(values)


def manifest() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("out", "manifest.json").read_text("utf-8"))
    jsonschema.validate(content, json.loads((DOCS / "manifest.schema.json").read_text("utf-8")))
    return content


@extra("nifti", "nibabel")
@pytest.mark.parametrize("layout", ["NCXYZ", "NXYZC"])
def test_a_volume_comes_back_with_its_affine(layout: str, place: Path, run: Any) -> None:
    nibabel = importlib.import_module("nibabel")
    volume_model(layout)
    values = write_volume()
    window = "window=0:1000,scale=1/255"
    status, out, err = run(
        "explain", "model.onnx", "brain.nii.gz", "--preprocess", window, "--target", "0", "-o", "out"
    )
    assert status == 0, err
    assert "brain.gradcam.0.png" in out
    expected = np.clip((values + 500) / 1000, 0, 1)
    drawn = nibabel.load("out/brain.gradcam.0.nii.gz")
    np.testing.assert_array_equal(drawn.affine, AFFINE)
    np.testing.assert_allclose(np.asarray(drawn.dataobj), expected / expected.max(), atol=1e-6)
    np.testing.assert_array_equal(np.load("out/brain.gradcam.0.npy"), np.asarray(drawn.dataobj))
    (row,) = manifest()["results"][0]["rows"]
    assert row["nii"] == "brain.gradcam.0.nii.gz"
    assert run("explain", "--from", "out/manifest.json")[0] == 0


@extra("nifti", "nibabel")
def test_a_folder_of_volumes(place: Path, run: Any) -> None:
    volume_model()
    Path("scans/deep").mkdir(parents=True)
    write_volume("scans/a.nii")
    write_volume("scans/deep/a.nii.gz")
    status, _, err = run("explain", "model.onnx", "scans", "--target", "0", "-o", "out")
    assert status == 0, err
    assert sorted(p.relative_to("out").as_posix() for p in Path("out").rglob("*.nii.gz")) == [
        "a.gradcam.0.nii.gz",
        "deep/a.gradcam.0.nii.gz",
    ]


@extra("nifti", "nibabel")
def test_both_sides_of_a_volume(place: Path, run: Any) -> None:
    nibabel = importlib.import_module("nibabel")
    volume_model()
    write_volume()
    status, _, err = run("explain", "model.onnx", "brain.nii.gz", "--target", "0", "--both", "-o", "out")
    assert status == 0, err
    for part in ("for", "against", "net"):
        drawn = nibabel.load(f"out/brain.gradcam-both.0.{part}.nii.gz")
        np.testing.assert_array_equal(np.asarray(drawn.dataobj), np.load(f"out/brain.gradcam-both.0.{part}.npy"))
        np.testing.assert_array_equal(drawn.affine, AFFINE)


@extra("nifti", "nibabel")
def test_what_fits_no_volume(place: Path, run: Any) -> None:
    volume_model()
    write_volume()
    status, _, err = run("explain", "model.onnx", "brain.nii.gz", "--preprocess", "imagenet")
    assert (status, "is no preprocessing of a volume" in err) == (2, True)
    net = Net()
    save(net, net.input("x", ["N", 1, "H", "W"]), 2, "model.onnx")
    status, _, err = run("explain", "model.onnx", "brain.nii.gz")
    assert (status, "does not take a volume" in err) == (2, True)


def test_a_text_is_drawn_in_the_words_of_a_file(place: Path, run: Any) -> None:
    net = Net()
    table = np.array([[0, 0], [3, 3], [1, 1]], np.float32)
    x = net.op("Transpose", net.op("Gather", net.array(table), net.input("ids", ["N", 4], "int64")), perm=[0, 2, 1])
    save(net, x, 1, "model.onnx", 2)
    np.save("text.npy", np.array([[2, 1, 0, 2]]))
    Path("words.txt").write_text("a\ndog\nthe\n")
    command = ("explain", "model.onnx", "text.npy", "--target", "0", "-o", "out")
    status, _, err = run(*command, "--vocabulary", "words.txt")
    assert status == 0, err
    np.testing.assert_allclose(np.load("out/text.gradcam.0.npy"), [1 / 3, 1, 0, 1 / 3], rtol=1e-6)
    in_words = cv2.imread("out/text.gradcam.0.png")
    assert manifest()["request"]["vocabulary"] == "words.txt"
    assert "words.txt" in manifest()["files_read"]
    assert run(*command, "--overwrite")[0] == 0
    in_numbers = cv2.imread("out/text.gradcam.0.png")
    assert in_words.shape != in_numbers.shape or (in_words != in_numbers).any()
    status, _, err = run(*command, "--overwrite", "--vocabulary", "missing.txt")
    assert (status, "cannot read the vocabulary" in err) == (2, True)


def test_words_of_a_model_and_of_a_list(place: Path) -> None:
    net = Net()
    x = net.op("Transpose", net.op("Gather", net.random(3, 2), net.input("ids", ["N", 4], "int64")), perm=[0, 2, 1])
    save(net, x, 1, "model.onnx", 2)
    with ogc.Explainer("model.onnx") as explainer:
        found = explainer.explain(np.array([[2, 1, 0, 2]]))
        assert found.frame.words == ()
        assert ogc.with_words(found, ["a", "dog"]).frame.words == (("#2", "dog", "a", "#2"),)
    volume_model()
    with ogc.Explainer("model.onnx") as explainer, pytest.raises(ogc.InputError, match="no tokens"):
        ogc.with_words(explainer.explain(np.ones((1, 1, 2, 2, 2), np.float32)), ["a"])


def test_tiles_on_the_command_line(place: Path, run: Any) -> None:
    net = Net()
    save(net, net.input("x", ["N", 1, 16, 16]), 2, "model.onnx")
    slide = np.random.default_rng(0).integers(0, 256, (40, 72)).astype(np.uint8)
    cv2.imwrite("slide.png", slide)
    command = ("explain", "model.onnx", "slide.png", "--preprocess", "zero-one,stretch", "--target", "0", "-o", "out")
    status, out, err = run(*command, "--tile", "16,8")
    assert status == 0, err
    assert "slide.gradcam.0.png" in out
    np.testing.assert_allclose(np.load("out/slide.gradcam.0.npy"), slide / slide.max(), atol=1e-6)
    (row,) = manifest()["results"][0]["rows"]
    assert len(row["tiles"]) == 4 * 8
    assert run("explain", "--from", "out/manifest.json")[0] == 0
    status, _, err = run(*command, "--tile", "16,8", "--both", "--overwrite")
    assert (status, "tiles have one map of one target" in err) == (2, True)
