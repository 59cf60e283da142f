"""The torch road without torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import onnx_gradcam as ogc


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_one_sentence_says_what_is_missing(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str, _package: Any = None) -> Any:
        return None if name == package else "something"

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(ogc.ProviderError) as error:
        ogc.roads.torch.export(None, (), tmp_path / "model.onnx", "layer4")
    assert error.value.what == f"exporting an nn.Module needs the package {package!r}, which is not installed"
    assert "onnx-gradcam[torch]" in error.value.hint
