from __future__ import annotations

import itertools

import builders
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import BATCH, Net

from onnx_gradcam.anatomy.grids import grids
from onnx_gradcam.anatomy.layers import candidates, choose
from onnx_gradcam.anatomy.linear_head import CARRYING
from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.errors import LayerError
from onnx_gradcam.explain.network import Network
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.lowering.registry import LOWERINGS, MICROSOFT
from onnx_gradcam.graph.operators import OPERATORS
from onnx_gradcam.graph.prepare.prepare import prepare

F = ir.DataType.FLOAT
NCHW, NHWC = (0, 1, 2, 3), (0, 3, 1, 2)


def graph_of(proto: onnx.ModelProto) -> ir.Graph:
    return prepare(load(proto).model).graph


def ranked(proto: onnx.ModelProto) -> dict[str, tuple[bool, str]]:
    graph = graph_of(proto)
    return {layer.name: (layer.chosen, layer.reason) for layer in candidates(graph, find_score(graph))}


def auto(proto: onnx.ModelProto) -> tuple[str, tuple[int, ...]]:
    graph = graph_of(proto)
    (layer,) = choose(graph, find_score(graph), ["auto"])
    assert layer.chosen
    return layer.name, layer.axes


# ------------------------------------------------------------------------------------ the automatic choice


@pytest.mark.parametrize(
    ("name", "layer", "axes"),
    [
        ("plain", "relu", NCHW),
        ("residual", "stage2", NCHW),
        ("vgg", "relu2", NCHW),
        ("densenet", "last_relu", NCHW),
        ("convnext", "block1", NCHW),
        ("inception", "mixed1", NCHW),
        ("squeeze_excite", "last", NCHW),
        ("mobilenet_v3", "features", NCHW),
        ("squeezenet", "class_map", NCHW),
        ("nhwc", "relu", NHWC),
    ],
)
def test_the_end_of_the_last_convolutional_stage(name: str, layer: str, axes: tuple[int, ...]) -> None:
    assert auto(builders.ARCHITECTURES[name]()) == (layer, axes)


@pytest.mark.parametrize("name", [name for name in builders.HABITS if "if" not in name])
def test_habits_of_exporters_do_not_matter(name: str) -> None:
    expected = "block2" if name == "with_function" else "relu"
    assert auto(builders.HABITS[name]()) == (expected, NCHW)


def test_an_image_of_any_size() -> None:
    """The two sides of an Add are then not known to be equal."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, "H", "W"]), (3, 4)), out="stem")
    inner = net.conv(net.op("Relu", net.conv(x, (4, 6), stride=2)), (6, 6), out="inner")
    x = net.op("Add", inner, net.conv(x, (4, 6), kernel=1, stride=2), out="added")
    gate = net.op("Sigmoid", net.conv(net.op("GlobalAveragePool", x), (6, 6), kernel=1), out="gate")
    net.head(net.op("Mul", gate, net.op("Relu", x, out="relu"), out="gated"), 6)
    proto = net.model({"logits": None})
    assert auto(proto) == ("gated", NCHW)


@pytest.mark.parametrize(("dims", "kernel"), [([BATCH, 3, 9], 3), ([BATCH, 3, 4, 5, 6], 3)])
def test_one_and_three_spatial_axes(dims: list[int | str], kernel: int) -> None:
    net = Net()
    weight = net.random(4, 3, *[kernel] * (len(dims) - 2))
    net.head(net.op("Relu", net.op("Conv", net.input("x", dims), weight), out="relu"), 4)
    assert auto(net.model({"logits": None})) == ("relu", tuple(range(len(dims))))


def group_norm(net: Net, x: str, channels: int, sizes: list[int]) -> str:
    """As torch exports nn.GroupNorm: regrouped, normalised, put back, scaled."""
    ones, zeros = net.array(np.ones(2, np.float32)), net.array(np.zeros(2, np.float32))
    y = net.op("InstanceNormalization", net.op("Reshape", x, net.ints(0, 2, -1)), ones, zeros)
    y = net.op("Reshape", y, net.ints(*sizes))
    return net.op("Add", net.op("Mul", y, net.random(channels, 1, 1)), net.random(channels, 1, 1))


def test_a_group_norm_belongs_to_the_block() -> None:
    net = Net()
    x = net.op("Relu", group_norm(net, net.conv(net.input("x", [1, 3, 8, 8]), (3, 4)), 4, [1, 4, 8, 8]))
    inner = group_norm(net, net.conv(x, (4, 4), out="inner"), 4, [1, 4, 8, 8])
    net.head(net.op("Relu", net.op("Add", inner, x), out="last"), 4)
    assert auto(net.model({"logits": None})) == ("last", NCHW)


def test_a_window_partition_does_not_keep_the_grid() -> None:
    net = Net()
    x = net.conv(net.input("x", [1, 3, 4, 4]), (3, 4), out="conv")
    y = net.op("Transpose", net.op("Reshape", x, net.ints(1, 4, 2, 8)), perm=[0, 1, 3, 2])
    y = net.op("Reshape", y, net.ints(1, 4, 4, 4), out="moved")
    net.head(net.op("Relu", y, out="relu"), 4)
    proto = net.model({"logits": None})
    assert auto(proto) == ("conv", NCHW)
    assert "moved" not in {v.name for v in grids(list(graph_of(proto)))}


def test_a_last_pool_without_convolution_is_concatenated() -> None:
    """Inception's reduction: a strided convolution beside a strided pool."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out="relu")
    pooled = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    net.head(net.op("Concat", net.conv(x, (4, 4), stride=2, out="strided"), pooled, axis=1, out="mixed"), 8)
    assert auto(net.model({"logits": None})) == ("mixed", NCHW)


def test_only_inputs_that_are_convolved_count() -> None:
    """Paths from further features to the score go around every layer."""
    layers = ranked(builders.two_inputs())
    assert layers["relu"] == (True, "the end of the last convolutional stage")


def test_the_ranking_says_why() -> None:
    layers = ranked(builders.residual())
    assert list(layers) == ["stage2", "relu2", "stage1", "relu1", "relu0"]
    assert layers["stage2"] == (True, "the end of the last convolutional stage")
    assert layers["stage1"] == (False, "a deeper one is there")
    assert layers["relu2"] == (False, "some paths to the score go around it")
    layers = ranked(builders.mobilenet_v3())
    assert layers["head_act"] == (False, "has one spatial position only")
    assert list(layers) == ["features", "head_act"], "the one chosen goes before deeper ones"


def test_the_ranking_goes_from_deep_to_shallow() -> None:
    assert list(ranked(builders.vgg())) == ["relu2", "relu1"]
    assert list(ranked(builders.convnext())) == ["block1", "block0", "patches"]


def test_dims_are_channels_first() -> None:
    graph = graph_of(builders.nhwc())
    (layer,) = choose(graph, find_score(graph), ["auto"])
    assert layer.dims == (BATCH, 4, 8, 8)
    assert layer.value.shape is not None
    assert list(layer.value.shape)[1:] == [8, 8, 4]


def test_a_model_without_convolutions_has_no_automatic_layer() -> None:
    net = Net()
    x = net.op("Relu", net.linear(net.input("x", [BATCH, 6]), 6, 4), out="relu")
    net.linear(x, 4, 5, out="logits")
    with pytest.raises(LayerError, match="no convolutional stage") as error:
        auto(net.model({"logits": None}))
    assert "'logits'" in str(error.value)
    assert "--layer NAME" in str(error.value)


def test_a_convolution_on_one_position_is_no_stage() -> None:
    net = Net()
    net.op("Flatten", net.conv(net.input("x", [BATCH, 3, 1, 1]), (3, 5), kernel=1), out="logits")
    with pytest.raises(LayerError, match="no convolutional stage"):
        auto(net.model({"logits": None}))


# ------------------------------------------------------------------------------------------- layers by name


def named(proto: onnx.ModelProto, *names: str) -> list[tuple[str, tuple[int, ...]]]:
    graph = graph_of(proto)
    return [(layer.name, layer.axes) for layer in choose(graph, find_score(graph), names)]


def test_a_layer_by_value_and_by_node_name() -> None:
    proto = builders.residual()
    assert named(proto, "stage1", "node_inner2", "x") == [("stage1", NCHW), ("inner2", NCHW), ("x", NCHW)]


def test_a_value_goes_before_a_node_of_the_same_name() -> None:
    proto = builders.residual()
    next(n for n in proto.graph.node if n.output[0] == "stage2").name = "stage1"
    assert named(proto, "stage1") == [("stage1", NCHW)]


def test_axes_of_named_layers() -> None:
    proto = builders.nhwc()
    assert named(proto, "conv", "conv_nhwc", "relu") == [("conv", NCHW), ("conv_nhwc", NHWC), ("relu", NHWC)]


def test_axes_behind_a_pool() -> None:
    net = Net()
    x = net.op("MaxPool", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), kernel_shape=[2, 2], out="pool")
    x = net.op("Relu", net.op("Transpose", x, perm=[0, 2, 3, 1], out="moved"), out="relu")
    net.linear(net.op("Flatten", x), 4 * 49, 5, out="logits")
    assert named(net.model({"logits": None}), "pool", "moved", "relu") == [
        ("pool", NCHW),
        ("moved", NHWC),
        ("relu", NHWC),
    ]


def test_an_unknown_layer_names_the_nearest() -> None:
    with pytest.raises(LayerError, match="no value, node or module 'stage3'") as error:
        named(builders.residual(), "stage3")
    assert "'stage2'" in error.value.hint
    assert "'stage1'" in error.value.hint
    with pytest.raises(LayerError, match="no value, node or module 'w0'"):
        named(builders.residual(), "w0")


def test_a_layer_without_space() -> None:
    with pytest.raises(LayerError, match="'flat' has no spatial axes") as error:
        named(builders.residual(), "flat")
    assert "shape [N,6]" in str(error.value)
    assert error.value.name == "flat"


# ------------------------------------------------------------------------------------------------- the grid


def test_the_grid_of_a_gate_is_not_that_of_the_block() -> None:
    found = {v.name: axes for v, axes in grids(list(graph_of(builders.squeeze_excite()))).items()}
    assert {"stem", "body", "gated", "added", "last", "gate", "squeezed"} <= set(found)
    assert not {"pooled", "flat", "logits"} & set(found)


def test_transposes_move_the_axes() -> None:
    net = Net()
    x = net.conv(net.input("x", [2, 3, 4, 5]), (3, 6), out="conv")
    net.op("Relu", net.op("Transpose", x, perm=[2, 0, 3, 1], out="a"), out="b")
    net.op("Transpose", x, out="reversed")
    found = {v.name: axes for v, axes in grids(list(graph_of(net.model({"b": None, "reversed": None})))).items()}
    sizes = {0: 2, 1: 6, 2: 4, 3: 5}
    assert found == {"conv": NCHW, "a": (1, 3, 0, 2), "b": (1, 3, 0, 2), "reversed": (3, 2, 1, 0)}
    assert [[4, 2, 5, 6][k] for k in found["a"]] == list(sizes.values())


def test_a_pointwise_matmul_keeps_the_grid_and_another_does_not() -> None:
    net = Net()
    x = net.op("Transpose", net.conv(net.input("x", [2, 3, 4, 4]), (3, 4), out="conv"), perm=[0, 2, 3, 1])
    net.op("MatMul", x, net.random(4, 7), out="pointwise")
    net.op("MatMul", "conv", net.random(4, 4), out="mixes_space")
    net.op("MatMul", x, x, out="attention")
    proto = net.model({"pointwise": None, "mixes_space": None, "attention": None})
    found = {v.name: axes for v, axes in grids(list(graph_of(proto))).items()}
    assert found["pointwise"] == NHWC
    assert "mixes_space" not in found
    assert "attention" not in found


@pytest.mark.parametrize(("axis", "kept"), [(1, True), (0, True), (2, False), (-1, False)])
def test_concatenation_along_space_leaves_the_grid(axis: int, kept: bool) -> None:
    for dims in ([2, 3, 4, 4], [2, 3, "H", "W"]):
        net = Net()
        x = net.conv(net.input("x", dims), (3, 4), out="conv")
        net.op("Concat", x, x, axis=axis, out="y")
        found = {v.name for v in grids(list(graph_of(net.model({"y": None}))))}
        assert ("y" in found) == kept


def test_all_parts_of_a_split_stay_on_the_grid() -> None:
    net = Net()
    x = net.conv(net.input("x", [2, 3, 4, 4]), (3, 4), out="conv")
    net.ops("Split", x, net.ints(1, 3), out=["a", "b"], axis=1)
    found = {v.name for v in grids(list(graph_of(net.model({"a": None, "b": None}))))}
    assert {"a", "b"} <= found


def test_everything_named_here_is_an_operator() -> None:
    without_lowering = {"GroupQueryAttention", "QAttention", "SimplifiedLayerNormalization"}  # onnxruntime's own
    for name in {*itertools.chain(*OPERATORS.values()), *CARRYING} - without_lowering:
        assert onnx.defs.has(name) or (MICROSOFT, name) in LOWERINGS, name


def token_block(net: Net, x: str, width: int, out: str) -> str:
    """x + attention(x), without projections."""
    y = net.op("Softmax", net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1])), axis=-1)
    return net.op("Add", x, net.op("MatMul", net.op("MatMul", y, x), net.random(width, width)), out=out)


@pytest.mark.parametrize("count", [1, 3])
def test_tokens_that_were_mixed_into_others(count: int) -> None:
    """Three that each image mixes of its own: a block of them is the last, and its places are not known.

    One is no grid to be placed: the block before it is taken.
    """
    net = Net()
    x = net.conv(net.input("x", [2, 3, 8, 8]), (3, 6), kernel=2, stride=2)
    x = net.op("Transpose", net.op("Reshape", x, net.ints(2, 6, 16)), perm=[0, 2, 1], out="tokens")
    x = token_block(net, x, 6, "block1")
    shares = net.op("Softmax", net.op("Transpose", net.op("MatMul", x, net.random(6, count)), perm=[0, 2, 1]), axis=-1)
    mixed = net.op("MatMul", shares, x, out="mixed")
    y = token_block(net, token_block(net, mixed, 6, "block2"), 6, "block3")
    net.linear(net.op("ReduceMean", y, net.ints(1), keepdims=0), 6, 5, out="logits")
    proto = net.model({"logits": [2, 5]})
    if count == 1:
        assert auto(proto) == ("tokens", (0, 2, 1))
        return
    with pytest.raises(LayerError, match="the tokens of 'block2' are not a grid") as error:
        auto(proto)
    assert "--grid HxW" in error.value.hint
    assert ranked(proto)["tokens"] == (False, "a deeper one is there")


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 2)])
def test_a_convolution_along_a_row_of_tokens_begins_no_grid(kernel: int, stride: int) -> None:
    """A pointwise one keeps their places; one that joins neighbours of the row does not."""
    net = Net()
    x = net.op("Reshape", net.conv(net.input("x", [2, 3, 8, 8]), (3, 6), kernel=2, stride=2), net.ints(2, 6, 16))
    x = token_block(net, net.op("Transpose", x, perm=[0, 2, 1], out="tokens"), 6, "block1")
    row = net.op("Conv", net.op("Transpose", x, perm=[0, 2, 1]), net.random(6, 6, kernel), strides=[stride])
    x = net.op("Transpose", row, perm=[0, 2, 1], out="again")
    y = token_block(net, x, 6, "block2")
    net.linear(net.op("ReduceMean", y, net.ints(1), keepdims=0), 6, 5, out="logits")
    graph = graph_of(net.model({"logits": [2, 5]}))
    if kernel == 1:
        (layer,) = choose(graph, find_score(graph), ["auto"])
        assert (layer.name, layer.dims) == ("again", (2, 6, 4, 4))
        return
    with pytest.raises(LayerError, match="the tokens of 'again' are not a grid"):
        choose(graph, find_score(graph), ["auto"])


def test_tokens_without_a_grid_name_a_layer_before_them_that_has_one() -> None:
    """Windows of tokens stand in an axis of their own: no ``--grid`` fits them."""
    net = Net()
    y = net.op("Relu", net.conv(net.input("x", [1, 3, 8, 8]), (3, 4)), out="stage")
    windows = net.op("Reshape", y, net.ints(1, 4, 4, 2, 4, 2))
    tokens = net.op("Reshape", net.op("Transpose", windows, perm=[0, 2, 4, 3, 5, 1]), net.ints(1, 16, 4, 4))
    for _ in range(2):
        shares = net.op("Softmax", net.op("MatMul", tokens, net.op("Transpose", tokens, perm=[0, 1, 3, 2])), axis=-1)
        tokens = net.op("Add", tokens, net.op("MatMul", shares, net.op("MatMul", tokens, net.random(4, 4))))
    net.linear(net.op("ReduceMean", tokens, net.ints(1, 2), keepdims=0), 4, 5, out="logits")
    proto = net.model({"logits": [1, 5]})
    with pytest.raises(LayerError, match="are not a grid") as caught:
        _ = Network(proto).layers
    assert caught.value.hint == "--layer stage"
    assert Network(proto, "stage").layer_names == ("stage",)
