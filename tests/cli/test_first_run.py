"""``inspect`` of a model whose output shapes only a run tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from nets import Net

CLASSES = 5


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model file ``reader.onnx`` whose steps stand before the images, and a photo ``word.png``."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [1, 1, 8, "W"]), (1, 6)), out="relu")
    steps = net.op("Transpose", net.op("ReduceMean", x, net.ints(2), keepdims=0), perm=[2, 0, 1])
    logits = net.op("MatMul", net.op("Reshape", steps, net.ints(-1, 6)), net.random(6, CLASSES))
    images = net.op("Slice", net.op("Shape", steps), net.ints(0), net.ints(2))
    net.op("Reshape", logits, net.op("Concat", images, net.ints(-1), axis=0), out="logits")
    onnx.save(net.model({"logits": [1, "T"]}), tmp_path / "reader.onnx")
    cv2.imwrite(str(tmp_path / "word.png"), np.random.default_rng(0).integers(0, 255, (16, 40, 3), np.uint8))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("reader")
def test_without_a_photo_it_says_what_the_first_run_decides(run: Any) -> None:
    status, out, _ = run("inspect", "reader.onnx")
    assert status == 0
    assert "-  not found" in out
    assert "the shapes of the outputs are decided on the first run" in " ".join(out.split())


@pytest.mark.usefixtures("reader")
def test_with_a_photo_it_shows_the_score_that_explain_takes(run: Any) -> None:
    status, out, _ = run("inspect", "reader.onnx", "--image", "word.png")
    assert status == 0
    assert f"logits  {CLASSES} classes for each of many cells" in out
    assert "decided on the first run" not in out
    status, out, _ = run("explain", "reader.onnx", "word.png")
    assert status == 0
