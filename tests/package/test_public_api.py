"""The public surface: a change here is a decision, not an accident."""

from __future__ import annotations

import inspect
import subprocess
import sys

import onnx_gradcam as ogc

NAMES = [
    "Box", "Classes", "Comparison", "Custom", "Difference", "Each", "Explainer", "Explanation", "Finer",
    "ForwardMismatch", "InputError", "LayerError", "LayerResult", "LogProbability", "MethodError", "ModelError",
    "NoGradientPath", "OnnxGradcamError", "Output", "OutputError", "Preprocess", "PreprocessError", "Probability",
    "ProviderError",
    "Region", "RequirementError", "ScoreError", "SideBySide", "Similar", "TargetError", "Tokens", "TopK",
    "UnsupportedGradient", "both", "compare", "contrast", "gradient_model", "layers", "roads", "verify",
]  # fmt: skip


def test_names() -> None:
    assert ogc.__all__ == NAMES
    assert all(hasattr(ogc, name) for name in NAMES)


def test_arguments() -> None:
    assert list(inspect.signature(ogc.Explainer).parameters) == [
        "model", "target_layer", "labels", "score", "grid", "image_input", "providers", "provider_options",
        "session_options", "custom_ops", "check_forward",
    ]  # fmt: skip
    assert list(inspect.signature(ogc.Explainer.explain).parameters) == [
        "self", "x", "target", "method", "counterfactual", "signed", "fusion", "smooth", "options",
    ]  # fmt: skip
    assert list(inspect.signature(ogc.compare).parameters) == [
        "a", "b", "images", "target", "method", "layer_a", "layer_b", "score_a", "score_b", "labels", "preprocess",
        "preprocess_b", "require", "report",
    ]  # fmt: skip
    assert list(inspect.signature(ogc.gradient_model).parameters) == ["model", "wrt", "score", "engine"]


def test_import_brings_neither_torch_nor_a_runtime() -> None:
    heavy = ("torch", "onnxscript", "onnxruntime", "PIL")
    code = f"import sys, onnx_gradcam; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
