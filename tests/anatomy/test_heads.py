"""All heads of a model, what each is taken for, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from nets import BATCH, Net

from onnx_gradcam.anatomy.score import Score, find_heads, find_score
from onnx_gradcam.errors import ScoreError
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare


def heads_of(proto: onnx.ModelProto) -> tuple[Score, ...]:
    return find_heads(prepare(load(proto).model).graph)


def score(proto: onnx.ModelProto) -> Score:
    (head,) = heads_of(proto)
    return head


def kind(proto: onnx.ModelProto) -> str:
    return score(proto).kind


def features(net: Net, width: int = 6) -> str:
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, width)), out="features")
    return net.op("Flatten", net.op("GlobalAveragePool", x), out="flat")


def ending(write: Callable[[Net, str], object]) -> onnx.ModelProto:
    """A small CNN with a linear layer of 5 numbers, ``y``, and what is written behind it."""
    net = Net()
    y = net.linear(features(net), 6, 5, out="y")
    write(net, y)
    return net.model({"out": [BATCH, 5]})


def l2_exported(net: Net, y: str, steps: str) -> None:
    """y / max(‖y‖, ε) as exporters write it."""
    if steps == "ReduceL2":
        length = net.op("ReduceL2", y, net.ints(-1), keepdims=1)
    else:
        square = net.op("Mul", y, y) if steps == "Mul" else net.op("Pow", y, net.array(np.float32(2)))
        length = net.op("Sqrt", net.op("ReduceSum", square, net.ints(1), keepdims=1))
    length = net.op("Expand", net.op("Clip", length, net.array(np.float32(1e-12))), net.op("Shape", y))
    net.op("Div", y, length, out="out")


def layer_norm(net: Net, y: str) -> None:
    centred = net.op("Sub", y, net.op("ReduceMean", y, net.ints(1), keepdims=1))
    variance = net.op("ReduceMean", net.op("Pow", centred, net.array(np.float32(2))), net.ints(1), keepdims=1)
    spread = net.op("Sqrt", net.op("Add", variance, net.array(np.float32(1e-5))))
    scaled = net.op("Mul", net.op("Div", centred, spread), net.random(5))
    net.op("Add", scaled, net.random(5), out="out")


def softmax_written_out(net: Net, y: str) -> None:
    e = net.op("Exp", net.op("Sub", y, net.op("ReduceMax", y, net.ints(1), keepdims=1)))
    net.op("Div", e, net.op("ReduceSum", e, net.ints(1), keepdims=1), out="out")


ENDINGS: dict[str, tuple[str, Callable[[Net, str], object]]] = {
    "linear": ("classes", lambda net, y: net.op("Identity", y, out="out")),
    "softmax": ("classes", lambda net, y: net.op("Softmax", y, axis=1, out="out")),
    "sigmoid": ("classes", lambda net, y: net.op("Sigmoid", y, out="out")),
    "temperature": ("classes", lambda net, y: net.op("Div", y, net.array(np.float32(3)), out="out")),
    "bias apart": ("classes", lambda net, y: net.op("Add", y, net.random(5), out="out")),
    "softmax written out": ("classes", softmax_written_out),
    "LpNormalization": ("embedding", lambda net, y: net.op("LpNormalization", y, axis=1, p=2, out="out")),
    "ReduceL2": ("embedding", lambda net, y: l2_exported(net, y, "ReduceL2")),
    "Mul": ("embedding", lambda net, y: l2_exported(net, y, "Mul")),
    "Pow": ("embedding", lambda net, y: l2_exported(net, y, "Pow")),
    "batch norm": ("classes", lambda net, y: net.batch_norm(y, 5, out="out")),
    "layer norm": ("embedding", layer_norm),
    "the larger of two": (
        "classes",
        lambda net, y: net.op("Max", y, net.linear("flat", 6, 5), out="out"),
    ),
    "at least 0": ("values", lambda net, y: net.op("Max", y, net.array(np.float32(0)), out="out")),
    "tanh": ("values", lambda net, y: net.op("Tanh", y, out="out")),
    "relu": ("values", lambda net, y: net.op("Relu", y, out="out")),
    "softplus": ("values", lambda net, y: net.op("Softplus", y, out="out")),
    "sigmoid times 90": (
        "values",
        lambda net, y: net.op("Mul", net.op("Sigmoid", y), net.array(np.float32(90)), out="out"),
    ),
    "mean and spread": (
        "values",
        lambda net, y: net.op("Add", net.op("Mul", y, net.random(5)), net.random(5), out="out"),
    ),
}


def constant(net: Net, *numbers: float) -> str:
    return net.array(np.float32(numbers if len(numbers) > 1 else numbers[0]))


ENDINGS |= {
    "times 180": ("values", lambda net, y: net.op("Mul", y, constant(net, 180), out="out")),
    "degrees": ("values", lambda net, y: net.op("Mul", y, constant(net, 180 / np.pi), out="out")),
    "as many factors": ("values", lambda net, y: net.op("Mul", y, constant(net, 1, 2, 3, 4, 5), out="out")),
    "tanh times 90": ("values", lambda net, y: net.op("Mul", net.op("Tanh", y), constant(net, 90), out="out")),
    "logit scale": ("classes", lambda net, y: net.op("Mul", y, constant(net, 30), out="out")),
    "batch norm, softmax": ("classes", lambda net, y: net.op("Softmax", net.batch_norm(y, 5), axis=1, out="out")),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_what_the_numbers_are(name: str) -> None:
    expected, write = ENDINGS[name]
    assert kind(ending(write)) == expected


@pytest.mark.parametrize(("trunk", "expected"), [("residual", "embedding"), ("class maps", "classes")])
def test_pooled_features_are_no_classes_and_pooled_class_maps_are(trunk: str, expected: str) -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 6)))
    y = net.conv(x, (6, 6))
    y = net.op("Relu", net.op("Add", x, y) if trunk == "residual" else y)
    net.op("Flatten", net.op("GlobalAveragePool", y), out="out")
    assert kind(net.model({"out": [BATCH, 6]})) == expected


def test_a_scale_and_a_shift_behind_the_bias_of_a_linear_layer() -> None:
    """MatMul, Add, Mul, Add: the first Add is the bias."""
    net = Net()
    y = net.op("Add", net.op("MatMul", features(net), net.random(6, 5)), net.random(5))
    net.op("Add", net.op("Mul", y, constant(net, 2)), constant(net, 1, 2, 3, 4, 5), out="out")
    assert kind(net.model({"out": [BATCH, 5]})) == "values"


def row(count: int, output: str = "out", *, normalised: bool = False, layer: str = "", end: str = "") -> Score:
    """The score of a CNN with ``count`` numbers, whose output and linear layer have these names."""
    net = Net()
    flat, last = features(net), end or "Identity"
    net.array(np.zeros((count, 6), np.float32), f"{layer or 'w'}.weight")
    y = net.op("Gemm", flat, f"{layer or 'w'}.weight", net.random(count), transB=1)
    net.op(last, net.batch_norm(y, count) if normalised else y, out=output)
    return score(net.model({output: [BATCH, count]}))


@pytest.mark.parametrize(
    ("count", "names", "expected"),
    [
        (3, {"output": "pose"}, "values"),
        (3, {"output": "yaw_pitch_roll"}, "values"),
        (66, {"output": "yaw"}, "classes"),  # bins of an angle
        (2, {"output": "gazeVector"}, "values"),
        (10, {"output": "landmarks"}, "values"),
        (10, {"layer": "head.fc_landmarks"}, "values"),
        (10, {"output": "landmarks", "end": "Sigmoid"}, "values"),
        (10, {"output": "scores", "end": "Sigmoid"}, "classes"),
        (10, {"output": "logits", "layer": "landmark_head"}, "classes"),
        (10, {"output": "class_scores"}, "classes"),
        (4, {"output": "bboxPred"}, "values"),
        (4, {"output": "lemurs"}, "classes"),  # "lmu" and "emu" are no words here
        (100, {"output": "embedding"}, "embedding"),
        (100, {"output": "img_feats"}, "embedding"),
        (100, {"layer": "features.18"}, "classes"),
        (100, {}, "classes"),
        (101, {}, "classes"),
        (1000, {}, "classes"),
        (128, {}, "embedding"),
        (384, {}, "embedding"),
        (512, {"normalised": True}, "embedding"),
        (10, {"normalised": True}, "classes"),
        (512, {"output": "logits"}, "classes"),
        (512, {"end": "Softmax"}, "classes"),
        (32, {}, "classes"),
    ],
)
def test_names_and_numbers_say_what_a_linear_layer_gives(count: int, names: dict[str, Any], expected: str) -> None:
    found = row(count, **names)
    assert found.kind == expected
    assert any(word in found.reason for word in ("called", "numbers", "Softmax", "Sigmoid", "one number for each"))


def test_labels_in_the_model_say_that_numbers_are_classes() -> None:
    net = Net()
    net.op("Identity", net.linear(features(net), 6, 128), out="embedding")
    proto = net.model({"embedding": [BATCH, 128]})
    graph = prepare(load(proto).model).graph
    assert find_heads(graph)[0].kind == "embedding"
    (head,) = find_heads(graph, labels=128)
    assert (head.kind, head.reason) == ("classes", "the model brings 128 labels, one for each number")


def points(*steps: str, output: str = "out") -> Score:
    """The score of a CNN with 5 points of 2 coordinates: the steps behind its linear layer, one after the other."""
    net = Net()
    y = net.linear(features(net), 6, 10, out="row")
    for k, step in enumerate(steps):
        second = {"Reshape": net.ints(0, 5, 2), "Mul": constant(net, 224), "Transpose": ""}.get(step)
        y = net.op(step, *filter(None, (y, second)), out=output if k == len(steps) - 1 else "")
    return score(net.model({output: [BATCH, 5, 2]}))


@pytest.mark.parametrize(
    "steps",
    [("Reshape",), ("Reshape", "Sigmoid"), ("Sigmoid", "Reshape"), ("Reshape", "Tanh"), ("Sigmoid", "Mul", "Reshape")],
)
def test_rows_of_coordinates_are_values_of_points(steps: tuple[str, ...]) -> None:
    found = points(*steps)
    assert (found.kind, found.name, found.count, found.output) == ("values", "row", 10, "out")
    assert found.reason.startswith("5 points of 2 coordinates")
    assert "coordinate K mod 2 of point K div 2" in found.reason


def test_pairs_that_are_called_scores_are_no_points() -> None:
    net = Net()
    net.op("Reshape", net.linear(features(net), 6, 10), net.ints(0, 5, 2), out="logits")
    assert heads_of(net.model({"logits": [BATCH, 5, 2]})) == ()


def autoencoder(flat: bool) -> onnx.ModelProto:
    net = Net()
    code = net.op("Relu", net.linear(net.op("Flatten", net.input("x", [BATCH, 1, 8, 8])), 64, 9), out="code")
    y = net.op("Sigmoid", net.linear(code, 9, 64, out="y"), out="out" if flat else "pixels")
    if not flat:
        net.op("Reshape", y, net.ints(0, 1, 8, 8), out="out")
    return net.model({"out": [BATCH, 64] if flat else [BATCH, 1, 8, 8]})


@pytest.mark.parametrize("flat", [True, False])
def test_as_many_sigmoids_as_pixels_are_the_image_once_more(flat: bool) -> None:
    assert kind(autoencoder(flat)) == "values"


def image_to_image(kind: str, channels: int, end: str = "Sigmoid", side: int | str = 8) -> onnx.ModelProto:
    """Down by 2 and up again; a U-Net's last convolution reads the stem, too."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, channels, side, side]), (channels, 4)), out="stem")
    low = net.op("Relu", net.conv(x, (4, 2), stride=2), out="low")
    up = net.op("Resize", low, "", net.array(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    if kind == "u-net":
        up, width = net.op("Concat", up, x, axis=1), 6
    else:
        width = 2
    net.op(end, net.conv(up, (width, channels), out="y"), out="out")
    return net.model({"out": [BATCH, channels, side, side]})


@pytest.mark.parametrize("end", ["Sigmoid", "Tanh", "Identity"])
@pytest.mark.parametrize("kind", ["autoencoder", "u-net"])
def test_an_image_of_three_channels_is_refused_with_the_way_to_a_part_of_it(kind: str, end: str) -> None:
    graph = prepare(load(image_to_image(kind, 3, end)).model).graph
    with pytest.raises(ScoreError, match="'out' is an image like the input, and holds no classes") as error:
        find_score(graph)
    assert "--score out --target box:0@X1,Y1,X2,Y2" in error.value.hint
    assert find_score(graph, "out").kind == "dense"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_larger_image_is_no_map_of_classes(channels: int) -> None:
    """Super-resolution: twice as large as the input, behind a Sigmoid."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, channels, 8, 8]), (channels, 4 * channels)))
    net.op("Sigmoid", net.op("DepthToSpace", x, blocksize=2), out="out")
    graph = prepare(load(net.model({"out": [BATCH, channels, 16, 16]})).model).graph
    with pytest.raises(ScoreError, match="is an image like the input"):
        find_score(graph)


def test_an_autoencoder_with_channels_last() -> None:
    net = Net()
    x = net.op("Transpose", net.input("x", [BATCH, 8, 8, 3]), perm=[0, 3, 1, 2])
    low = net.op("Relu", net.conv(x, (3, 4), stride=2))
    up = net.op("Resize", low, "", net.array(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    net.op("Sigmoid", net.op("Transpose", net.conv(up, (4, 3)), perm=[0, 2, 3, 1]), out="out")
    graph = prepare(load(net.model({"out": [BATCH, 8, 8, 3]})).model).graph
    with pytest.raises(ScoreError, match="is an image like the input"):
        find_score(graph)


@pytest.mark.parametrize("side", [8, "side"])
def test_a_map_of_one_channel_is_a_mask_where_a_skip_reaches_it(side: int | str) -> None:
    assert kind(image_to_image("u-net", 1, side=side)) == "dense"
    assert heads_of(image_to_image("autoencoder", 1, side=side)) == ()


def two_heads() -> onnx.ModelProto:
    """An age and, behind it in the file, a gender."""
    net = Net()
    flat = features(net)
    net.linear(flat, 6, 1, out="age")
    net.op("Softmax", net.linear(flat, 6, 2, out="logits"), axis=1, out="gender")
    return net.model({"age": [BATCH, 1], "gender": [BATCH, 2]})


def test_all_heads_with_the_one_that_is_taken_first() -> None:
    assert [(h.output, h.kind, h.count) for h in heads_of(two_heads())] == [
        ("gender", "classes", 2),
        ("age", "regression", 1),
    ]
    graph = prepare(load(two_heads()).model).graph
    assert find_score(graph).value.name == "logits"
    assert find_score(graph, head="age").value.name == "age"
    with pytest.raises(ScoreError, match="no head 'agee' could be explained") as error:
        find_score(graph, head="agee")
    assert "'age'" in error.value.hint
    assert "gender, age" in error.value.where


def test_heads_of_cells_beside_others() -> None:
    """A map of four classes, one of two, and boxes beside scores."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [1, 3, 16, 16]), (3, 6)), out="features")
    net.op("Softmax", net.conv(x, (6, 4)), axis=1, out="parts")
    net.op("Sigmoid", net.conv(x, (6, 2)), out="lines")
    net.conv(x, (6, 1), out="depth")
    found = heads_of(net.model({"depth": [1, 1, 16, 16], "lines": [1, 2, 16, 16], "parts": [1, 4, 16, 16]}))
    assert [(h.outputs, h.kind, h.count) for h in found] == [(("parts",), "dense", 4), (("lines",), "dense", 2)]
    assert "pass through a Softmax" in found[0].reason


def test_a_map_of_one_cell_is_one_head() -> None:
    """(N, 5, 1, 1) behind a Softmax, as SqueezeNet ends."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 6)), out="features")
    y = net.op("GlobalAveragePool", net.conv(x, (6, 5), kernel=1), out="logits")
    net.op("Softmax", y, axis=1, out="p")
    (head,) = heads_of(net.model({"p": [BATCH, 5, 1, 1]}))
    assert (head.kind, head.count, head.name) == ("classes", 5, "logits")


def test_one_column_of_many_cells_is_no_vector_of_classes() -> None:
    """(N, 64, 1): 64 cells of one class, and not 64 classes."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [1, 3, 8, 8]), (3, 6)), out="features")
    y = net.op("Transpose", net.conv(x, (6, 1), kernel=1, out="head"), perm=[0, 2, 3, 1])
    net.op("Sigmoid", net.op("Reshape", y, net.ints(1, 64, 1)), out="p")
    (head,) = heads_of(net.model({"p": [1, 64, 1]}))
    assert (head.kind, head.count, head.name) == ("dense", 1, head.value.name)


def test_scores_that_were_picked_among_cells_are_no_classes() -> None:
    """The 5 best of 64 cells, and how probable they are."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [1, 3, 8, 8]), (3, 6)), out="features")
    p = net.op("Sigmoid", net.op("Reshape", net.conv(x, (6, 3), kernel=1, out="head"), net.ints(1, 3, 64)), out="p")
    best = net.op("ReduceMax", p, net.ints(1), keepdims=0)
    net.ops("TopK", best, net.ints(5), out=["scores", "index"])
    (head,) = heads_of(net.model({"scores": [1, 5]}))
    assert (head.kind, head.count, head.outputs) == ("dense", 3, ("scores",))


def test_a_number_of_classes_that_only_the_declared_output_tells() -> None:
    """The logits are reshaped to a shape that the image computes, and the batch has another name behind it."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 6)), out="features")
    y = net.conv(net.op("GlobalAveragePool", x), (6, 5), kernel=1)
    rows = net.op("Gather", net.op("Shape", "x"), net.ints(0))
    rest = net.op("Div", net.op("Size", y), net.op("Gather", net.op("Shape", "x"), net.ints(0)))
    net.op("Reshape", y, net.op("Concat", rows, rest, axis=0), out="logits")
    net.op("Softmax", "logits", axis=1, out="p")
    (head,) = heads_of(net.model({"p": ["Softmax_dim_0", 5]}))
    assert (head.kind, head.count, head.activation, head.value.name) == ("classes", 5, "Softmax", "logits")


def test_a_number_that_an_if_makes_is_not_looked_into() -> None:
    """Whether a Sigmoid stands in a branch, nothing outside tells."""
    net = Net()
    y = net.linear(features(net), 6, 1, out="y")
    large = net.op("Greater", net.op("ReduceMax", y, keepdims=0), net.array(np.float32(0)))
    made = onnx.helper.make_tensor_value_info("made", onnx.TensorProto.FLOAT, None)
    branches = {
        name: onnx.helper.make_graph([onnx.helper.make_node(op_type, ["y"], ["made"])], name, [], [made])
        for name, op_type in (("then_branch", "Sigmoid"), ("else_branch", "Identity"))
    }
    net.op("If", large, out="out", **branches)
    reason = score(net.model({"out": [BATCH, 1]})).reason
    assert reason.startswith("one number for each image, made inside an If, which is not looked into")


def test_a_mean_of_sigmoids_is_no_number_without_a_sigmoid() -> None:
    """The probability of speech, averaged over the steps of a window."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 6)), out="features")
    steps = net.op("ReduceMean", net.conv(x, (6, 1), kernel=1), net.ints(2), keepdims=0)
    net.op("ReduceMean", net.op("Sigmoid", steps), net.ints(2), keepdims=0, out="out")
    head = score(net.model({"out": [BATCH, 1]}))
    assert head.kind == "regression"
    assert head.reason == "one number for each image, a mean of what a Sigmoid makes: a probability, explained as it is"
