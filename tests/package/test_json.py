"""JSON has neither NaN nor infinity, and json.dumps writes them unless it is told not to."""

from __future__ import annotations

import ast
import json

import pytest
from repository import ROOT

from onnx_gradcam.results.records import without_nan

SOURCES = sorted(path for folder in ("onnx_gradcam", "tools") for path in (ROOT / folder).rglob("*.py"))


def careless(tree: ast.AST) -> list[int]:
    """The lines in which JSON is written without ``allow_nan=False``."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    writes = [c for c in calls if ast.unparse(c.func) in ("json.dumps", "json.dump", "json.JSONEncoder")]
    return [
        call.lineno
        for call in writes
        if not any(word.arg == "allow_nan" and ast.unparse(word.value) == "False" for word in call.keywords)
    ]


def test_no_document_may_hold_nan() -> None:
    found = {str(path.relative_to(ROOT)): careless(ast.parse(path.read_text("utf-8"))) for path in SOURCES}
    assert SOURCES
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_the_test_sees_what_is_careless() -> None:
    assert careless(ast.parse("json.dumps(1)\njson.dump(1, f, allow_nan=True)\njson.dumps(1, allow_nan=False)")) == [
        1,
        2,
    ]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_becomes_null(number: float) -> None:
    content = {"rows": [{"error": number, "name": "x", "box": (1, number)}], "worst": number}
    assert json.dumps(without_nan(content), allow_nan=False) == json.dumps(
        {"rows": [{"error": None, "name": "x", "box": [1, None]}], "worst": None}
    )
