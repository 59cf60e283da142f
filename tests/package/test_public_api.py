"""The public surface: a change here is a decision, not an accident."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
import typing
from collections.abc import Iterator
from typing import Any

import onnx_gradcam as ogc

NAMES = [
    "AttackResult", "Box", "Boxes", "Caption", "Check", "Choice", "Classes", "Comparison", "Completeness", "Custom",
    "Difference", "Doubt", "Each", "EvaluatedRow", "EvaluationResult", "EvidenceShare", "Explainer", "Explanation",
    "Failure", "FailureReport", "Finding", "Finer", "ForwardMismatch", "Frame", "Geometry", "HeadInfo", "InputError",
    "InputSpec", "LayerError", "LayerInfo", "LayerResult", "LogProbability", "MapFile", "Mean", "MethodError",
    "MetricError", "MetricPart", "MetricResult", "ModelError", "Network", "NoGradientPath", "NodeCheck", "NotFinite",
    "OnnxGradcamError", "Opening", "Options", "Output", "OutputError", "Pair", "Preprocess", "PreprocessError",
    "Probability", "Provenance", "ProviderError", "Recipe", "Rectifiers", "Region", "Report", "Requirement",
    "RequirementError", "Scan", "ScoreError", "Sheet", "Side", "SideBySide", "Similar", "Style", "TargetError",
    "TargetObject", "Tiles", "Tiling", "Timing", "Tokens", "TopK", "UnknownOperator", "UnsupportedGradient",
    "UserFunction", "VolumeSpace", "Words", "WorstPair", "attack", "both", "compare", "concepts", "contact_sheet",
    "contrast", "evaluate", "evidence_share", "explain_caption", "explain_question", "explain_tiles", "explain_volume",
    "failures", "gradient_model", "heads", "layers", "roads", "verify", "with_words",
]  # fmt: skip


def test_names() -> None:
    assert ogc.__all__ == NAMES
    assert all(hasattr(ogc, name) for name in NAMES)


def test_arguments() -> None:
    assert list(inspect.signature(ogc.Explainer).parameters) == [
        "model", "target_layer", "labels", "score", "head", "grid", "image_input", "providers", "provider_options",
        "session_options", "custom_ops", "check_forward",
    ]  # fmt: skip
    assert list(inspect.signature(ogc.Explainer.explain).parameters) == [
        "self", "x", "target", "method", "counterfactual", "signed", "fusion", "smooth", "levels", "threshold",
        "progress", "options",
    ]  # fmt: skip
    opening = list(ogc.Opening.__annotations__)
    assert list(inspect.signature(ogc.compare).parameters) == [
        "a", "b", "images", "target", "method", "counterfactual", "signed", "fusion", "smooth", "levels", "options",
            "inputs",
        "layer_a", "layer_b", "score_a", "score_b", "only_a", "only_b", "labels", "preprocess", "preprocess_b",
        "strict", "threshold", "max_pixels", "require", "keep", "report",
        *opening,
    ]  # fmt: skip
    assert list(inspect.signature(ogc.evaluate).parameters) == [
        "model", "data", "metrics", "method", "target_layer", "fusion", "smooth", "options", "inputs", "labels",
        "preprocess", "strict", "cluster", "group", "seed", "max_pixels", "start", "report",
        *opening,
    ]  # fmt: skip
    assert list(inspect.signature(ogc.attack).parameters) == [
        "model", "x", "target", "true", "method", "epsilon", "steps", "step_size", "norm", "loss", "random_start",
        "seed", "preprocess", "bounds", "inputs", "labels", "max_pixels",
        *opening,
    ]  # fmt: skip
    assert list(inspect.signature(ogc.failures).parameters) == [
        "model", "data", "limit", "method", "target_layer", "fusion", "smooth", "options", "inputs", "labels",
        "preprocess", "strict", "max_pixels", "start", "report",
        *opening,
    ]  # fmt: skip
    assert list(inspect.signature(ogc.gradient_model).parameters) == ["model", "wrt", "engine", *opening]
    assert list(inspect.signature(ogc.heads).parameters) == ["model", *opening]
    assert list(inspect.signature(ogc.layers).parameters) == ["model", *opening]
    assert list(inspect.signature(ogc.verify).parameters) == ["model", "target_layer", "x", "seed", "table", *opening]


def test_import_brings_neither_torch_nor_a_runtime() -> None:
    heavy = ("torch", "onnxscript", "onnxruntime", "PIL")
    code = f"import sys, onnx_gradcam; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def public() -> Iterator[tuple[str, Any]]:
    """Each public class and function, and the public methods of the classes, by name.

    Errors hold no hints. What binds a target to a model, and what a network does for this package, is not for users.
    """
    for name in NAMES:
        item = getattr(ogc, name)
        if inspect.ismodule(item) or (inspect.isclass(item) and issubclass(item, Exception)):
            continue
        yield name, item
        if not inspect.isclass(item) or item is ogc.Network:
            continue
        for key, value in vars(item).items():
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if inspect.isfunction(function) and (key == "__init__" or not key.startswith("_")) and key != "bind":
                yield f"{name}.{key}", function


def classes_in(hint: object) -> Iterator[type]:
    if inspect.isclass(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from classes_in(part)


def test_type_hints_resolve_and_name_exported_types() -> None:
    missing = {}
    for name, item in public():
        for hint in typing.get_type_hints(item).values():
            for found in classes_in(hint):
                if found.__module__.startswith("onnx_gradcam") and found.__name__ not in [*ogc.__all__, "Rule"]:
                    missing[name] = found.__name__
    assert missing == {}


def test_every_public_name_is_documented() -> None:
    assert [name for name, item in public() if not inspect.getdoc(item)] == []


def test_every_option_of_opening_a_model_has_its_default_and_its_place() -> None:
    keywords = list(ogc.Opening.__annotations__)
    of_network = [
        name for name in inspect.signature(ogc.Network).parameters if name not in ("model", "layer", "options")
    ]
    assert keywords == [*of_network, *(option.name for option in dataclasses.fields(ogc.Options))]
    assert keywords == list(inspect.signature(ogc.Explainer).parameters)[3:]
