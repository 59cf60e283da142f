"""The names that we write into a graph: one module holds them, and they step aside for the model's own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import builders
import onnx
import onnx_ir as ir
import pytest

import onnx_gradcam
from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph.names import NAMES_KEY, claim, gradient_names, names_in, values_by_name
from onnx_gradcam.roads.engines import gradient_model

ROOT = Path(onnx_gradcam.__file__).parent
RESERVED = re.compile(
    r"^(grad|score|target|ogc|delta|moved|held|opset18)/|^(target_index|grad_scale)$|^/(folded|real)$"
)


def test_no_other_module_holds_a_reserved_name() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}"
        for path in ROOT.rglob("*.py")
        if path != ROOT / "graph" / "names.py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and RESERVED.search(node.value)
    ]
    assert found == []


def test_a_name_that_is_free_is_taken_as_it_is() -> None:
    taken = {"x"}
    assert claim("grad/x", taken) == "grad/x"
    assert taken == {"x", "grad/x"}


def test_a_name_that_is_taken_steps_aside() -> None:
    taken = {"grad/x", "ogc/grad/x", "ogc/grad/x_2"}
    assert claim("grad/x", taken) == "ogc/grad/x_3"
    assert claim("grad/x", taken) == "ogc/grad/x_4"


BODIES = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 18]>
    agraph (float[2] x, bool c) => (float[2] later) <float[2] w = {1, 2}> {
        [first] y = If (c) <
            then_branch = t () => (float[2] inner) { [in_then] inner = Neg (x) },
            else_branch = e () => (float[2] later) { [in_else] later = Add (x, w) }
        >
        [second] later = Exp (y)
    }
""")


def test_the_names_of_a_graph_are_those_of_values_and_nodes_in_bodies_too() -> None:
    graph = ir.from_proto(BODIES).graph
    assert names_in(graph) == {"x", "c", "w", "y", "inner", "later", "first", "second", "in_then", "in_else"}


def test_a_value_is_the_graphs_own_where_a_body_has_one_of_its_name() -> None:
    graph = ir.from_proto(BODIES).graph
    values = values_by_name(graph)
    assert set(values) == {"x", "c", "w", "y", "later"}
    assert values["later"] is graph.outputs[0]


def test_a_gradient_graph_tells_what_is_called_what() -> None:
    model = ir.from_proto(gradient_model(builders.plain(), ["relu", "x"]))
    names = gradient_names(model)
    assert names is not None
    assert (names.score, names.class_index) == ("grad/score", "grad/class_index")
    assert names.inputs == {"target_index": "target_index"}
    assert names.gradients == {"relu": "grad/relu", "x": "grad/x"}
    assert names.outputs == ("grad/score", "grad/class_index", "grad/relu", "grad/x")


def test_one_without_metadata_is_known_by_the_convention() -> None:
    model = ir.from_proto(gradient_model(builders.plain(), ["relu", "x"]))
    told = gradient_names(model)
    model.metadata_props.clear()
    assert gradient_names(model) == told
    assert gradient_names(ir.from_proto(builders.plain())) is None


def test_metadata_that_was_changed_is_named() -> None:
    model = ir.from_proto(gradient_model(builders.plain(), ["relu"]))
    for text in ("", "[]", '{"score": 1}'):
        model.metadata_props[NAMES_KEY] = text
        with pytest.raises(ModelError, match="metadata of the gradient graph cannot be read"):
            gradient_names(model)
