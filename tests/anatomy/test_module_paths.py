"""Modules by the paths that exporters leave in a graph; what torch leaves stands in tests/models/test_modules.py."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import BATCH, Net

from onnx_gradcam.anatomy.layers import choose
from onnx_gradcam.anatomy.module_paths import SCOPES, modules
from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.errors import LayerError
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare


def net(opset: int = 18) -> Net:
    """stem → relu → block → relu → head, twice the same rectifier and two of other names."""
    made = Net(opset)
    x = made.input("x", [BATCH, 3, 8, 8])
    stem = made.op("Relu", made.conv(x, (3, 4), out="conv"), out="relu")
    inner = made.op("Add", made.conv(stem, (4, 4), out="conv2"), stem, out="add")
    made.head(made.op("Relu", inner, out="relu2"), 4)
    return made


def named(made: Net, names: Mapping[str, str]) -> onnx.ModelProto:
    """The nodes that make these values are renamed."""
    for node in made.nodes:
        node.name = names.get(node.output[0], node.name)
    return made.model({"logits": [BATCH, 5]})


TORCHSCRIPT = {
    "conv": "/stem/stem.0/Conv", "relu": "/stem/stem.1/Relu", "conv2": "/block/body/Conv", "add": "/block/Add",
    "relu2": "/Relu", "pooled": "/pool/Pool", "flat": "/Flatten", "logits": "/head/Gemm",
}  # fmt: skip


def graph_of(proto: onnx.ModelProto) -> ir.Graph:
    return prepare(load(proto).model).graph


def values(proto: onnx.ModelProto) -> dict[str, list[str | None]]:
    return {path: [v.name for v in found] for path, found in modules(graph_of(proto)).outputs.items()}


def test_names_of_nodes() -> None:
    assert values(named(net(), TORCHSCRIPT)) == {
        "stem": ["relu"], "stem.0": ["conv"], "stem.1": ["relu"], "block": ["add"], "block.body": ["conv2"],
        "pool": ["pooled"], "head": ["logits"],
    }  # fmt: skip


def test_names_of_values_where_the_nodes_have_others() -> None:
    made = net()
    made.nodes[1].output[0] = made.nodes[2].input[0] = made.nodes[3].input[1] = "/stem/act/Relu_output_0"
    assert values(named(made, {}))["stem.act"] == ["/stem/act/Relu_output_0"]


def test_metadata() -> None:
    proto = named(net(), {})
    scopes = {"conv": ["", "stem", "stem.0", "conv2d"], "relu": ["", "stem", "relu"], "relu2": ["", "relu2"]}
    for node in proto.graph.node:
        if node.output[0] in scopes:
            node.metadata_props.add(key=SCOPES, value=repr(scopes[node.output[0]]))
    assert values(proto) == {"stem": ["relu"], "stem.0": ["conv"]}


def test_a_module_that_is_no_container_of_its_part() -> None:
    """``/a/b.0``: the list b has no node of its own; ``/a/ab``: a name that only begins alike."""
    names = {"conv": "/a/b.0/Conv", "relu": "/a/ab/Relu", "conv2": "/a/Conv"}
    assert values(named(net(), names)).keys() == {"a", "a.b.0", "a.ab"}


def test_nodes_that_raising_the_opset_put_in_are_of_the_module_that_reads_them() -> None:
    made = Net(opset=9)
    x = made.op("Relu", made.conv(made.input("x", [BATCH, 3, 8, 8]), (3, 4), out="conv"), out="relu")
    made.op("Upsample", x, made.array(np.float32([1, 1, 2, 2])), out="up", mode="nearest")
    made.head("up", 4)
    proto = named(made, {"conv": "/stem/Conv", "relu": "/relu/Relu", "up": "/up/Upsample", "pooled": "/pool/Pool"})
    assert values(proto) == {"stem": ["conv"], "relu": ["relu"], "up": ["up"], "pool": ["pooled"]}


# ------------------------------------------------------------------------------------ one value, or an error


def named_layer(proto: onnx.ModelProto, path: str) -> str:
    graph = graph_of(proto)
    (layer,) = choose(graph, find_score(graph), [path])
    return layer.name


def test_a_layer_by_the_path_of_its_module() -> None:
    assert named_layer(named(net(), TORCHSCRIPT), "stem") == "relu"


def test_the_name_of_a_value_comes_first() -> None:
    proto = named(net(), {**TORCHSCRIPT, "relu2": "/conv/Relu"})
    assert named_layer(proto, "conv") == "conv"


def test_a_module_with_several_outputs() -> None:
    proto = named(net(), {**TORCHSCRIPT, "conv2": "/two/Conv", "relu": "/two/Relu"})
    with pytest.raises(LayerError, match="the module 'two' gives 2 values") as error:
        named_layer(proto, "two")
    assert error.value.where == "'relu', 'conv2'"


def test_a_module_that_is_called_twice() -> None:
    proto = named(net(), {**TORCHSCRIPT, "relu": "/act/Relu", "relu2": "/act_1/Relu"})
    with pytest.raises(LayerError, match="the module 'act' gives 2 values") as error:
        named_layer(proto, "act")
    assert error.value.where == "'relu', 'relu2'"


def test_a_module_of_its_own_that_is_called_like_a_second_call() -> None:
    """Its weights are others."""
    proto = named(net(), {**TORCHSCRIPT, "conv": "/conv/Conv", "conv2": "/conv_1/Conv"})
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "first"
    assert named_layer(proto, "conv_1") == "conv2"
    assert named_layer(proto, "conv") == "first"


def test_an_unknown_path_gets_the_nearest() -> None:
    with pytest.raises(LayerError, match=r"no value, node or module 'block\.bdoy'") as error:
        named_layer(named(net(), TORCHSCRIPT), "block.bdoy")
    assert "'block.body'" in error.value.hint


def test_the_outermost_module_of_a_value() -> None:
    found = modules(graph_of(named(net(), TORCHSCRIPT))).outermost()
    assert {v.name: path for v, path in found.items()} == {
        "conv": "stem.0", "relu": "stem", "conv2": "block.body", "add": "block", "pooled": "pool", "logits": "head",
    }  # fmt: skip
