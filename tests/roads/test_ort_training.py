"""The road through onnxruntime-training, where that is not installed."""

from __future__ import annotations

import sys

import builders
import pytest

import onnx_gradcam as ogc
from onnx_gradcam.errors import MethodError, ProviderError


def test_with_an_ordinary_runtime_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = type(sys)("onnxruntime.capi._pybind_state")  # without a GradientGraphBuilder
    monkeypatch.setitem(sys.modules, ordinary.__name__, ordinary)
    with pytest.raises(ProviderError, match="needs onnxruntime-training, and this environment has none") as caught:
        ogc.gradient_model(builders.plain(), ["relu"], engine="ort-training")
    assert "onnxruntime-training-cpu==1.19.2" in caught.value.hint
    assert "an environment of its own" in caught.value.hint
    assert 'engine="rules"' in caught.value.hint


def test_another_engine() -> None:
    with pytest.raises(MethodError, match="no engine 'ort_training'") as caught:
        ogc.gradient_model(builders.plain(), ["relu"], engine="ort_training")
    assert "'ort-training'" in caught.value.hint
