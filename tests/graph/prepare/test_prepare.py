from __future__ import annotations

from collections.abc import Iterator

import builders
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import BATCH, Net, feeds, run
from onnx import helper

from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import NEWEST, prepare
from onnx_gradcam.roads.engines import gradient_model

ALL = {**builders.ARCHITECTURES, **builders.HABITS}
every_model = pytest.mark.parametrize("name", ALL)


def prepared(proto: onnx.ModelProto) -> ir.Model:
    return prepare(load(proto).model)


def values(graph: ir.Graph) -> Iterator[ir.Value]:
    for node in graph:
        yield from node.outputs


@every_model
def test_it_computes_what_the_original_computes(name: str) -> None:
    proto = ALL[name]()
    fed = feeds(proto)
    expected = run(proto, fed)
    found = run(ir.to_proto(prepared(proto)), fed)
    if "maps" in expected:
        maps = expected.pop("maps")
        expected["probabilities"] = np.array([[row[k] for k in ("cat", "dog", "bird")] for row in maps], np.float32)
    assert list(found) == list(expected)
    for key, array in expected.items():
        np.testing.assert_allclose(found[key], array, rtol=1e-6, atol=1e-6)


@every_model
def test_the_original_stays_untouched(name: str) -> None:
    proto = ALL[name]()
    before = proto.SerializeToString()
    model = load(proto).model
    read = serialized(model)
    prepare(model)
    assert proto.SerializeToString() == before
    assert serialized(model) == read


def test_a_model_that_is_out_of_order_stays_so() -> None:
    """Also in the body of an If, and in a function; what is prepared is in order and computes the same."""
    net = Net()
    x = net.input("x", [BATCH, 4])
    net.op("Relu", net.op("Neg", x, out="minus"), out="relu")
    model = net.model({"relu": [BATCH, 4]})
    branch = helper.make_graph(
        [helper.make_node("Abs", ["inner"], ["abs"]), helper.make_node("Neg", ["relu"], ["inner"])], "b", [], [
            helper.make_tensor_value_info("abs", onnx.TensorProto.FLOAT, [BATCH, 4])
        ]
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Neg", ["relu"], ["negative"])], "o", [], [
            helper.make_tensor_value_info("negative", onnx.TensorProto.FLOAT, [BATCH, 4])
        ]
    )  # fmt: skip
    decide = [
        helper.make_node("ReduceSum", ["relu"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["is_positive"], to=onnx.TensorProto.BOOL),
        helper.make_node("If", ["is_positive"], ["chosen"], then_branch=branch, else_branch=other),
        helper.make_node("Twice", ["chosen"], ["y"], domain="own"),
    ]
    body = [helper.make_node("Add", ["b", "b"], ["c"]), helper.make_node("Identity", ["a"], ["b"])]
    opset = helper.make_opsetid("", 18)
    ordered = onnx.ModelProto()
    ordered.CopyFrom(model)
    ordered.graph.node.extend(decide)
    ordered.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [BATCH, 4]))
    ordered.opset_import.append(helper.make_opsetid("own", 1))
    ordered.functions.append(helper.make_function("own", "Twice", ["a"], ["c"], list(reversed(body)), [opset]))
    shuffled = onnx.ModelProto()
    shuffled.CopyFrom(ordered)
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(reversed(ordered.graph.node))
    del shuffled.functions[:]
    shuffled.functions.append(helper.make_function("own", "Twice", ["a"], ["c"], body, [opset]))
    source = load(shuffled).model
    names = [node.op_type for node in source.graph]
    read = serialized(source)
    uses = {v.name: len(v.uses()) for v in values(source.graph)}
    copy = prepare(source)
    assert [node.op_type for node in source.graph] == names == [node.op_type for node in reversed(ordered.graph.node)]
    assert serialized(source) == read
    assert {v.name: len(v.uses()) for v in values(source.graph)} == uses
    fed = {"x": np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)}
    np.testing.assert_array_equal(run(ir.to_proto(copy), fed)["y"], 2 * np.maximum(-fed["x"], 0))


def serialized(model: ir.Model) -> bytes:
    """Without the names of tensors in attributes, which mean nothing and are shared with the copy."""
    proto = ir.to_proto(model)
    graphs = [proto.graph]
    for graph in graphs:
        for attribute in (a for node in graph.node for a in node.attribute):
            attribute.t.ClearField("name")
            if attribute.HasField("g"):
                graphs.append(attribute.g)
    return proto.SerializeToString()


@every_model
def test_names_are_kept(name: str) -> None:
    proto = ALL[name]()
    graph = prepared(proto).graph
    found = ir.convenience.create_value_mapping(graph)
    named = {v for node in proto.graph.node for v in node.output} - {"maps"}
    if "if" in name or name in ("view_batch2", "computed_pads"):  # what only computes known integers is folded away
        named &= {"padded", "relu", "pooled", "flat", "logits"}
    assert named <= set(found)
    assert [v.name for v in graph.inputs] == list(feeds(proto))
    assert all(node.name for node in graph)


@every_model
def test_one_form_is_left(name: str) -> None:
    model = prepared(ALL[name]())
    graph = model.graph
    assert not model.functions
    assert {node.domain for node in graph} == {""}
    assert not {node.op_type for node in graph} & {"Constant", "If"}
    assert not {v.name for v in graph.inputs} & set(graph.initializers)
    assert 18 <= graph.opset_imports[""] <= 20


@every_model
def test_all_shapes_are_known(name: str) -> None:
    proto = ALL[name]()
    graph = prepared(proto).graph
    fed = feeds(proto, batch=3)
    wanted = [v.name for v in values(graph) if v.name]
    expected = run(_exposing(graph), fed, wanted)
    for value in values(graph):
        assert value.shape is not None
        assert value.dtype is not None
        sizes = expected[value.name].shape
        assert len(value.shape) == len(sizes)
        known = [isinstance(d, int) for d in value.shape]
        assert all(d == n for d, n, k in zip(value.shape, sizes, known, strict=True) if k), value
        assert all(known[1:]) or name == "any_size" or value.name == "flat", value
        assert value.dtype.numpy() == expected[value.name].dtype


def _exposing(graph: ir.Graph) -> onnx.ModelProto:
    copy = graph.clone()
    copy.outputs[:] = [v for node in copy for v in node.outputs]
    return ir.to_proto(ir.Model(copy, ir_version=10))


@pytest.mark.parametrize(("batch", "size"), [(BATCH, 1), (1, 1), (BATCH, 8), (1, 8)])
def test_the_branch_that_is_always_taken_replaces_the_if(batch: int | str, size: int) -> None:
    graph = prepared(builders.decided_if(batch, size=size)).graph
    made = {node.outputs[0].name: node.op_type for node in graph}
    assert (made["squeezed0"], made["squeezed1"]) == ("Squeeze", "Squeeze" if size == 1 else "Identity")
    assert "Equal" not in made.values()


def test_what_a_branch_declares_wrongly_is_inferred() -> None:
    """As torch does: a branch that squeezes nothing declared as having one axis."""
    body = helper.make_node("Identity", ["relu"], ["same"])
    for declared in ([BATCH], [BATCH, 9, 9, 9, 9]):
        net = Net()
        net.op("Relu", net.input("x", [BATCH, 3, 8, 8]), out="relu")
        out = helper.make_tensor_value_info("same", onnx.TensorProto.FLOAT, declared)
        branch = helper.make_graph([body], "branch", [], [out])
        net.op("If", net.array(np.array(True)), out="chosen", then_branch=branch, else_branch=branch)
        net.op("Neg", "chosen", out="y")
        values = ir.convenience.create_value_mapping(prepared(net.model({"y": [BATCH, 3, 8, 8]})).graph)
        assert [list(values[name].shape)[1:] for name in ("chosen", "y")] == [[3, 8, 8]] * 2


def test_an_if_that_the_input_decides_stays() -> None:
    net = Net()
    relu = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out="relu")
    bright = net.op("Greater", net.op("ReduceMax", relu, keepdims=0), net.array(np.float32(3)))
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op_type, ["relu"], [f"{name}_out"])],
            name,
            [],
            [helper.make_empty_tensor_value_info(f"{name}_out")],
        )
        for name, op_type in (("then", "Neg"), ("else", "Identity"))
    }
    net.op("If", bright, out="chosen", **branches)
    proto = net.model({"chosen": [BATCH, 4, 8, 8]})
    model = ir.to_proto(prepared(proto))
    assert "If" in {node.op_type for node in model.graph.node}
    for scale in (0.01, 100.0):
        fed = {k: v * np.float32(scale) for k, v in feeds(proto).items()}
        np.testing.assert_array_equal(run(model, fed)["chosen"], run(proto, fed)["chosen"])


def test_a_function_may_make_the_untyped_output() -> None:
    proto = builders.with_function()
    del proto.graph.node[2:]
    del proto.graph.output[:]
    proto.graph.output.add().name = "block2"
    graph = prepared(proto).graph
    assert [v.name for v in graph.outputs] == ["block2"]


def test_symbolic_batches_keep_their_name_and_nameless_ones_get_one() -> None:
    assert str(prepared(builders.plain("N")).graph.inputs[0].shape) == "[N,3,8,8]"
    assert str(prepared(builders.literal_minus_one()).graph.inputs[0].shape) == "[batch,3,8,8]"
    proto = builders.plain()
    proto.graph.input[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
    graph = prepared(proto).graph
    assert str(graph.inputs[0].shape) == "[batch,3,8,8]"
    relu = ir.convenience.create_value_mapping(graph)["relu"]
    assert str(relu.shape) == "[batch,4,8,8]"


def test_unused_nodes_go() -> None:
    proto = builders.plain()
    proto.graph.node.append(helper.make_node("Exp", ["relu"], ["unused"]))
    assert "unused" not in {v.name for v in values(prepared(proto).graph)}


def test_a_blocked_layout_is_refused() -> None:
    proto = builders.plain()
    proto.graph.node[0].domain = "com.microsoft.nchwc"
    proto.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    with pytest.raises(ModelError, match="blocked memory layout") as error:
        prepared(proto)
    assert "node_conv" in str(error.value)
    assert "ORT_ENABLE_EXTENDED" in str(error.value)


def test_an_opset_that_onnx_does_not_know_is_refused() -> None:
    proto = builders.plain()
    proto.opset_import[0].version = 99
    with pytest.raises(ModelError, match=f"opset 99; the installed onnx {onnx.__version__} knows up to {NEWEST}"):
        prepared(proto)


@pytest.mark.parametrize("opset", range(24, onnx.defs.onnx_opset_version() + 1))
def test_the_newest_opsets_are_differentiated(opset: int) -> None:
    """The runtime runs them, and the gradient is that of the same network in opset 18."""
    proto = builders.plain()
    fed = feeds(proto)

    def gradient() -> np.ndarray:
        model = gradient_model(proto, ["relu"])
        return run(model, fed | {"target_index": np.array([-1] * len(fed["x"]))}, ["grad/relu"])["grad/relu"]

    expected = gradient()
    proto.opset_import[0].version = opset
    proto.ir_version = 10
    np.testing.assert_allclose(gradient(), expected, rtol=1e-6, atol=1e-9)


def test_the_newest_opset_has_been_looked_at() -> None:
    """Where it fails, onnx has moved on: read what changed, and run `make backend-tests`."""
    assert NEWEST == onnx.defs.onnx_opset_version() == 28


@pytest.mark.parametrize("opset", [18, 21])
def test_what_a_group_normalization_returns_is_known(opset: int) -> None:
    """onnx 1.23 infers nothing for it, and so nothing for what follows."""
    text = f"""<ir_version: 10, opset_import: ["": {opset}]>
        g (float[N, 4, 8, 8] x, float[{2 if opset < 21 else 4}] s) => (float[N, 4] y) {{
            n = GroupNormalization <num_groups = 2> (x, s, s)
            r = Relu(n)
            p = GlobalAveragePool(r)
            y = Flatten(p)
        }}"""
    prepared = prepare(ir.from_proto(onnx.parser.parse_model(text)))
    shapes = {
        v.name: [d if isinstance(d, int) else d.value for d in v.shape] for n in prepared.graph for v in n.outputs
    }
    assert shapes == {"n": ["N", 4, 8, 8], "r": ["N", 4, 8, 8], "p": ["N", 4, 1, 1], "y": ["N", 4]}
