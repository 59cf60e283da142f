"""An image with NaN fails alone: it stands under ``errors``, the others are written, and the exit status is 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from nets import Net

import onnx_gradcam as ogc
from onnx_gradcam.cli import main

BLACK_IMAGE = 1  # its norm is 0


def by_norm() -> onnx.ModelProto:
    """The features are divided by their norm: a black image, of which they are 0, gives NaN."""
    net = Net()
    x = net.input("x", ["N", 3, 8, 8])
    relu = net.op("Relu", net.op("Conv", x, net.random(4, 3, 3, 3), pads=[1] * 4), out="relu")
    flat = net.op("Flatten", net.op("GlobalAveragePool", relu))
    unit = net.op("Div", flat, net.op("ReduceL2", flat, net.ints(1), keepdims=1), out="unit")
    net.linear(unit, 4, 5, out="logits")
    return net.model({"logits": ["N", 5]})


def explain(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = ["explain", str(folder / "model.onnx"), *arguments, "--provider", "cpu", "-o", str(folder / "out")]
    monkeypatch.setattr(sys, "argv", ["onnx-gradcam", *command])
    with pytest.raises(SystemExit) as status:
        main()
    path = folder / "out" / "manifest.json"
    return int(status.value.code or 0), json.loads(path.read_text("utf-8")) if path.exists() else {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(by_norm(), tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    images = rng.standard_normal((3, 3, 8, 8)).astype(np.float32)
    images[BLACK_IMAGE] = 0
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "black.npy", images[[BLACK_IMAGE]])
    for name, photo in {
        "a": rng.integers(1, 255, (8, 8, 3)),
        "b": np.zeros((8, 8, 3)),
        "c": np.full((8, 8, 3), 9),
    }.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), photo.astype(np.uint8))
    return tmp_path


@pytest.mark.parametrize("options", [(), ("--target", "top2"), ("--both",), ("--method", "saliency")], ids=str)
def test_one_image_of_an_array(folder: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]) -> None:
    status, manifest = explain(monkeypatch, folder, str(folder / "x.npy"), *options)
    assert status == 2
    (error,) = manifest["errors"]
    assert error["error"] == "NotFinite"
    assert error["what"].endswith(f"for image {BLACK_IMAGE}")
    assert error["where"] == "NaN first at node 'node_unit' (Div)"
    rows = manifest["results"][0]["rows"]
    assert sorted({row["image_index"] for row in rows}) == [0, 2]
    for row in rows:
        assert np.isfinite(np.load(folder / "out" / row["npy"])).all()
        assert row["npy"].startswith(f"x-{row['image_index']}.")


def test_one_photo_of_several(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [str(folder / f"{name}.png") for name in "abc"]
    status, manifest = explain(monkeypatch, folder, *photos, "--preprocess", "zero-one")
    assert status == 2
    assert [Path(entry["image"]).name for entry in manifest["results"]] == ["a.png", "c.png"]
    assert [(Path(e["image"]).name, e["error"]) for e in manifest["errors"]] == [("b.png", "NotFinite")]


def test_the_only_image(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, manifest = explain(monkeypatch, folder, str(folder / "black.npy"))
    assert (status, manifest) == (2, {})
    assert "hold NaN or infinity, for image 0" in capsys.readouterr().err


def test_one_photo_of_a_comparison(folder: Path) -> None:
    photos, model = [folder / f"{name}.png" for name in "abc"], folder / "model.onnx"
    found = ogc.compare(model, model, photos, preprocess="zero-one", providers=["cpu"])
    assert [Path(pair.image).name for pair in found.pairs] == ["a.png", "c.png"]
    ((image, error),) = found.errors
    assert Path(image).name == "b.png"
    assert "hold NaN or infinity" in error
