"""A folder with a model and two photos, and the command line run in it."""

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

from onnx_gradcam.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(brightness_model(), tmp_path / "model.onnx")
    (tmp_path / "good.json").write_text(json.dumps({**PREPROCESS, "resize": "stretch"}))
    (tmp_path / "photos").mkdir()
    for name, column in [("left", 20), ("right", 140)]:
        photo = np.full((120, 160, 3), 30, np.uint8)
        photo[50:70, column - 10 : column + 10] = 255
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), photo)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["onnx-gradcam", *arguments])
        with pytest.raises(SystemExit) as status:
            main()
        printed = capsys.readouterr()
        return int(status.value.code or 0), printed.out, printed.err

    return call
