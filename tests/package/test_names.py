"""One name, one thing."""

from __future__ import annotations

import ast
from collections import Counter

from repository import ROOT


def test_no_class_name_stands_twice_in_the_package() -> None:
    trees = [ast.parse(path.read_text("utf-8")) for path in sorted((ROOT / "onnx_gradcam").rglob("*.py"))]
    names = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert names["Explainer"] == 1
    assert [name for name, count in names.items() if count > 1] == []
