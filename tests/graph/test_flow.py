from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import BATCH, Net
from onnx import TensorProto, helper

from onnx_gradcam.graph.flow import (
    NO_GRADIENT,
    STEERING,
    beginnings,
    captured,
    carriers,
    dependents,
    downstream,
    is_float,
    upstream,
)
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare


def graph_of(net: Net, *outputs: str) -> tuple[list[ir.Node], dict[str, ir.Value]]:
    graph = prepare(load(net.model(dict.fromkeys(outputs))).model).graph
    return list(graph), ir.convenience.create_value_mapping(graph)


def names(values: object) -> set[str | None]:
    return {v.name for v in values}  # type: ignore[attr-defined]


@pytest.fixture
def branched() -> tuple[list[ir.Node], dict[str, ir.Value]]:
    """x → a → (b, c) → y, and the shape of a, a comparison and a rounding beside it."""
    net = Net()
    a = net.op("Relu", net.input("x", [BATCH, 4]), out="a")
    b, c = net.op("Neg", a, out="b"), net.op("Mul", a, net.array(np.ones(4, np.float32), "w"), out="c")
    shape = net.op("Shape", a, out="shape")
    floats = net.op("Cast", shape, to=TensorProto.FLOAT, out="size")
    rounded = net.op("Floor", a, out="rounded")
    mask = net.op("Greater", a, rounded, out="mask")
    net.op("Where", mask, b, c, out="y")
    net.op("ReduceSum", floats, out="count")
    return graph_of(net, "y", "count")


def test_operators_without_gradient_exist() -> None:
    for name in [*NO_GRADIENT, *(op_type for op_type, _ in STEERING)]:
        assert onnx.defs.has(name), name
    for op_type, i in STEERING:
        schema = onnx.defs.get_schema(op_type, 9 if op_type == "Upsample" else 19)
        assert i < schema.max_input


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (ir.DataType.FLOAT, True),
        (ir.DataType.FLOAT16, True),
        (ir.DataType.BFLOAT16, True),
        (ir.DataType.DOUBLE, True),
        (ir.DataType.INT64, False),
        (ir.DataType.UINT8, False),
        (ir.DataType.BOOL, False),
        (None, True),
    ],
)
def test_is_float(dtype: ir.DataType | None, expected: bool) -> None:
    value = ir.val("x") if dtype is None else ir.val("x", dtype=dtype)
    assert is_float(value) == expected


def test_carriers_are_the_inputs_that_a_gradient_can_flow_to(branched: tuple[list[ir.Node], dict]) -> None:
    nodes, _ = branched
    carried = {n.outputs[0].name: [(i, v.name) for i, v in carriers(n)] for n in nodes}
    assert carried["y"] == [(1, "b"), (2, "c")]
    assert carried["c"] == [(0, "a"), (1, "w")]
    assert carried["shape"] == carried["rounded"] == carried["mask"] == carried["size"] == []


def test_inputs_that_only_steer_carry_nothing() -> None:
    net = Net()
    x = net.input("x", [1, 1, 2, 2])
    roi, scales = net.array(np.zeros(8, np.float32)), net.array(np.array([1, 1, 2, 2], np.float32))
    net.op("Resize", x, roi, scales, out="y")
    (node,), _ = graph_of(net, "y")
    assert [(i, v.name) for i, v in carriers(node)] == [(0, "x")]


def test_the_same_name_in_another_domain_carries() -> None:
    node = ir.node("Shape", [ir.val("x", dtype=ir.DataType.FLOAT)], domain="mine")
    assert [i for i, _ in carriers(node)] == [0]


def test_downstream(branched: tuple[list[ir.Node], dict]) -> None:
    nodes, v = branched
    assert names(downstream(nodes, [v["x"]])) == {"x", "a", "b", "c", "y"}
    assert names(downstream(nodes, [v["b"]])) == {"b", "y"}
    assert names(downstream(nodes, [v["b"], v["c"]])) == {"b", "c", "y"}
    assert names(downstream(nodes, [v["rounded"]])) == {"rounded"}


def test_upstream(branched: tuple[list[ir.Node], dict]) -> None:
    nodes, v = branched
    assert names(upstream(nodes, v["y"])) == {"y", "b", "c", "a", "w", "x"}
    assert names(upstream(nodes, v["b"])) == {"b", "a", "x"}
    assert names(upstream(nodes, v["count"])) == {"count", "size"}


def test_dependents_ask_for_no_float() -> None:
    net = Net()
    x = net.op("Cast", net.input("x", [BATCH, 4], np.uint8), to=TensorProto.INT32, out="ints")
    net.op("Add", net.op("Cast", x, to=TensorProto.FLOAT, out="floats"), net.array(np.float32(1), "w"), out="y")
    net.op("Shape", x, out="shape")
    nodes, v = graph_of(net, "y", "shape")
    assert names(dependents(nodes, [v["x"]])) == {"x", "ints", "floats", "y"}
    assert names(beginnings(nodes, [v["x"]])) == {"floats"}


def test_differentiable_paths_begin_at_float_inputs_and_where_others_become_float() -> None:
    net = Net()
    image = net.op("Cast", net.input("bytes", [BATCH, 4], np.uint8), to=TensorProto.FLOAT, out="image")
    joined = net.op("Add", net.op("Neg", image, out="minus"), net.input("more", [BATCH, 4]), out="joined")
    table = net.array(np.zeros((9, 4), np.float32), "table")
    net.op("Add", joined, net.op("Gather", table, net.input("word", [BATCH], np.int64), out="row"), out="y")
    nodes, v = graph_of(net, "y")
    found = beginnings(nodes, [v["bytes"], v["more"], v["word"]])
    assert sorted(x.name or "" for x in found) == ["image", "more", "row"]


def branching() -> tuple[list[ir.Node], dict[str, ir.Value]]:
    """x → a → If(bright) of two bodies that read a, and one of them w → y; nothing of this is an input of the If."""
    net = Net()
    a = net.op("Relu", net.input("x", [BATCH, 4]), out="a")
    bright = net.op("Greater", net.op("ReduceMax", a, keepdims=0), net.array(np.float32(1)), out="bright")
    bodies = {
        "then_branch": [helper.make_node("Neg", ["a"], ["inner"]), helper.make_node("Exp", ["inner"], ["t"])],
        "else_branch": [helper.make_node("Add", ["a", "w"], ["e"])],
    }
    net.array(np.ones(4, np.float32), "w")
    graphs = {
        k: helper.make_graph(v, k, [], [helper.make_empty_tensor_value_info(v[-1].output[0])])
        for k, v in bodies.items()
    }
    net.op("Neg", net.op("If", bright, out="chosen", **graphs), out="y")
    return graph_of(net, "y")


def test_what_a_body_reads_from_outside_is_an_input_in_all_but_name() -> None:
    nodes, v = branching()
    node = v["chosen"].producer()
    assert node is not None
    assert names(captured(node)) == {"a", "w"}
    assert sorted((i, value.name) for i, value in carriers(node)) == [(1, "a"), (2, "w")]
    assert names(downstream(nodes, [v["w"]])) == {"w", "chosen", "y"}
    assert names(upstream(nodes, v["y"])) == {"y", "chosen", "a", "w", "x"}
    assert {"chosen", "y"} <= names(dependents(nodes, [v["a"]]))
    assert captured(v["y"].producer()) == []  # type: ignore[arg-type]
