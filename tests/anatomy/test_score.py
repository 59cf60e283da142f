from __future__ import annotations

from typing import Any

import builders
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from builders import ending
from nets import BATCH, Net
from onnx import TensorProto

from onnx_gradcam.anatomy.score import Score, find_score
from onnx_gradcam.errors import NoGradientPath, ScoreError
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

SQUEEZED = {"axes": [2, 3]}


def score_of(proto: onnx.ModelProto, name: str = "auto") -> Score:
    return find_score(prepare(load(proto).model).graph, name)


def facts(score: Score) -> tuple[Any, ...]:
    return score.value.name, score.class_axis, score.activation, score.count, score.kind


def refusal(proto: onnx.ModelProto, name: str = "auto") -> str:
    with pytest.raises(ScoreError) as error:
        score_of(proto, name)
    return str(error.value)


@pytest.mark.parametrize(
    ("steps", "activation"),
    [
        ([], ""),
        ([("Softmax", {"axis": 1})], "Softmax"),
        ([("Softmax", {})], "Softmax"),
        ([("LogSoftmax", {"axis": -1})], "LogSoftmax"),
        ([("Sigmoid", {})], "Sigmoid"),
        ([("Softmax", {}), ("Identity", {}), ("Reshape", {"shape": [0, 5, 1, 1]})], "Softmax"),
        ([("Softmax", {}), ("Cast", {"to": TensorProto.DOUBLE})], "Softmax"),
        ([("Softmax", {}), ("Unsqueeze", {"axes": [1]}), ("Squeeze", {"axes": [1]})], "Softmax"),
        ([("Softmax", {}), ("Transpose", {"perm": [1, 0]})], "Softmax"),
        ([("Sigmoid", {}), ("Flatten", {})], "Sigmoid"),
        ([("Softmax", {}), ("Dropout", {})], "Softmax"),
    ],
)
def test_the_score_is_the_logit(steps: list[builders.Step], activation: str) -> None:
    score = score_of(ending(*steps))
    assert facts(score) == ("logits" if steps else "out", 1, activation, 5, "classes")
    assert score.output == "out"


def test_casts_and_reshapes_before_the_softmax_stay_behind_the_score() -> None:
    score = score_of(ending(("Cast", {"to": TensorProto.FLOAT16}), ("Softmax", {})))
    assert facts(score) == ("step0", 1, "Softmax", 5, "classes")
    score = score_of(ending(("Reshape", {"shape": [0, 5, 1, 1]}), ("Softmax", {"axis": 1})))
    assert facts(score) == ("step0", 1, "Softmax", 5, "classes")


def test_an_output_that_is_only_reshaped_is_taken_itself() -> None:
    score = score_of(ending(("Reshape", {"shape": [0, 1, 5]})))
    assert facts(score) == ("out", 2, "", 5, "classes")


def test_softmax_over_channels_of_one_position() -> None:
    assert facts(score_of(builders.squeezenet())) == ("logits", 1, "Softmax", 5, "classes")


def test_softmax_over_the_last_axis_of_channels_last() -> None:
    assert facts(score_of(builders.nhwc())) == ("logits", 3, "Softmax", 5, "classes")


@pytest.mark.parametrize(
    ("steps", "facts_"),
    [
        ([("Sigmoid", {})], ("logits", None, "Sigmoid", 2, "binary")),
        ([("Sigmoid", {}), ("Squeeze", {"axes": [1]})], ("logits", None, "Sigmoid", 2, "binary")),
        ([("Squeeze", {"axes": [1]}), ("Sigmoid", {})], ("step0", None, "Sigmoid", 2, "binary")),
        ([], ("out", None, "", 1, "regression")),
        ([("Squeeze", {"axes": [1]})], ("out", None, "", 1, "regression")),
        ([("Exp", {})], ("out", None, "", 1, "regression")),
    ],
)
def test_a_single_value(steps: list[builders.Step], facts_: tuple[Any, ...]) -> None:
    assert facts(score_of(ending(*steps, classes=1))) == facts_


@pytest.mark.parametrize("name", ["batch1", "batch4", "initializers_in_inputs", "constant_weights", "opset7"])
def test_habits_of_exporters_do_not_matter(name: str) -> None:
    assert facts(score_of(builders.HABITS[name]())) == ("logits", 1, "", 5, "classes")


@pytest.mark.parametrize("name", ["with_function", "literal_minus_one", "decided_if", "two_inputs", "uint8_input"])
def test_more_habits_of_exporters_do_not_matter(name: str) -> None:
    assert facts(score_of(builders.HABITS[name]())) == ("logits", 1, "", 5, "classes")


def test_outputs_that_do_not_hold_classes_are_passed_over() -> None:
    """Anchors do not depend on the image, an embedding was never squashed."""
    score = score_of(builders.two_outputs())
    assert facts(score) == ("logits", 1, "Softmax", 5, "classes")
    assert score.output == "probabilities"


def test_of_equals_the_first_is_taken() -> None:
    net = Net()
    flat = net.op("Flatten", net.conv(net.input("x", [BATCH, 3, 1, 1]), (3, 4), kernel=1))
    net.linear(flat, 4, 3, out="first")
    net.linear(flat, 4, 5, out="second")
    for names in (["first", "second"], ["second", "first"]):
        assert score_of(net.model(dict.fromkeys(names))).value.name == names[0]


@pytest.mark.parametrize("squash", ["", "Sigmoid"])
def test_classes_come_before_a_single_value(squash: str) -> None:
    net = Net()
    flat = net.op("Flatten", net.conv(net.input("x", [BATCH, 3, 1, 1]), (3, 4), kernel=1))
    net.op(squash or "Identity", net.linear(flat, 4, 1), out="is_there")
    net.op(squash or "Identity", net.linear(flat, 4, 5, out="class"), out="y")
    proto = net.model({"is_there": None, "y": None})
    assert facts(score_of(proto)) == ("class" if squash else "y", 1, squash, 5, "classes")


def test_labels_are_made_of_the_score() -> None:
    assert facts(score_of(builders.labels_only())) == ("logits", 1, "", 5, "classes")


def test_maps_are_cut_off() -> None:
    score = score_of(builders.zipmap())
    assert facts(score) == ("logits", 1, "Softmax", 3, "classes")
    assert score.output == "probabilities"


@pytest.mark.parametrize("activation", ["Softmax", ""])
def test_the_best_k_are_picked_from_the_score(activation: str) -> None:
    net = Net()
    flat = net.op("Flatten", net.conv(net.input("x", [BATCH, 3, 1, 1]), (3, 4), kernel=1))
    x = net.linear(flat, 4, 5, out="logits")
    net.ops("TopK", net.op(activation, x) if activation else x, net.ints(3), out=["best", "places"])
    proto = net.model({"best": None, "places": None}, {"places": TensorProto.INT64})
    assert facts(score_of(proto)) == ("logits", 1, activation, 5, "classes")


@pytest.mark.parametrize("axes", [[0], [0, 2, 3]])
def test_a_batch_axis_that_was_squeezed_off(axes: list[int]) -> None:
    """(5,) is one score per class, not per image."""
    shape = [("Reshape", {"shape": [0, 5, 1, 1]})] if len(axes) > 1 else []
    for squashing, activation in (([], ""), ([("Softmax", {"axis": -1})], "Softmax")):
        proto = ending(*shape, ("Squeeze", {"axes": axes}), *squashing, batch=1)
        name = "step0" if shape else "logits"
        assert facts(score_of(proto)) == (name, 1, activation, 5, "classes")


def test_a_scalar_is_taken_where_it_still_has_a_batch_axis() -> None:
    proto = ending(("Sigmoid", {}), ("Squeeze", {"axes": [0, 1]}), classes=1, batch=1)
    assert facts(score_of(proto)) == ("logits", None, "Sigmoid", 2, "binary")
    proto = ending(("Squeeze", {"axes": [0, 1]}), classes=1, batch=1)
    assert facts(score_of(proto)) == ("logits", None, "", 1, "regression")


@pytest.mark.parametrize("declared", [[BATCH, 5], None])
def test_raising_the_opset_leaves_the_score_in_the_deployed_file(declared: Any) -> None:
    """A Softmax of opset 12 flattens where the rank is not known; its Flatten is none of the user's values."""
    net = Net(opset=11, ir_version=6)
    size = net.input("size", ["rank"], np.int64)
    x = net.op("Reshape", net.input("x", [BATCH, 3, 8, 8]), net.array(np.array([0, 3, 64])))
    x = net.op("ReduceMean", x, axes=[2], keepdims=0)
    logits = net.op("Reshape", net.linear(x, 3, 5), size, out="logits")
    net.op("Softmax", logits, out="probabilities")
    graph = prepare(load(net.model({"probabilities": declared})).model).graph
    logits = ir.convenience.create_value_mapping(graph)["logits"]
    inserted = [node.outputs[0].name for node in graph if node.op_type == "Flatten"]
    assert [name.startswith("opset18/") for name in inserted] == ([] if declared else [True])
    logits.shape = ir.Shape([BATCH, 5])  # type: ignore[assignment]  # as a declared output would have told
    assert facts(find_score(graph)) == ("logits", 1, "Softmax", 5, "classes")


def test_a_score_by_name() -> None:
    proto = ending(("Flatten", {}), ("Softmax", {}), ("Identity", {}))
    score = score_of(proto, "logits")
    assert facts(score) == ("logits", 1, "Softmax", 5, "classes")
    assert score.output == "out"
    assert facts(score_of(proto, "step1")) == ("step1", 1, "", 5, "classes")
    assert facts(score_of(proto, "flat")) == ("flat", 1, "", 4, "classes")
    assert facts(score_of(builders.two_outputs(), "flat")) == ("flat", 1, "", 4, "classes")
    single = ending(("Squeeze", {"axes": [1]}), ("Sigmoid", {}), classes=1)
    assert facts(score_of(single, "logits")) == ("logits", None, "Sigmoid", 2, "binary")


def test_a_name_that_is_not_there() -> None:
    message = refusal(builders.plain(), "logit")
    assert "no value 'logit'" in message
    assert "'logits'" in message
    assert "'w0'" not in refusal(builders.plain(), "w00"), "weights are no scores"


def test_a_name_that_is_no_score() -> None:
    net = Net()
    relu = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out="relu")
    net.op("ReduceMean", relu, net.ints(1), out="pooled_wide")
    net.head(relu, 4)
    proto = net.model({"logits": None, "pooled_wide": None})
    message = refusal(proto, "x")
    assert "'x' of shape (N, " in message
    assert "is not one score per class and image" in message
    named = score_of(proto, "pooled_wide")
    assert (named.kind, named.count) == ("dense", 1), "an output is what the user says, though its history is not known"


@pytest.mark.parametrize(
    "steps",
    [
        [("Reshape", {"shape": [0, 5, 4]})],
        [("Reshape", {"shape": [0, 5, 2, 2]}), ("Sigmoid", {})],
        [("Softmax", {"axis": 0})],
        [("Reshape", {"shape": [-1, 20, 1]}), ("Softmax", {"axis": 2}), ("Reshape", {"shape": [0, 5, 4]})],
    ],
)
def test_outputs_that_are_no_scores_are_listed(steps: list[builders.Step]) -> None:
    message = refusal(ending(*steps, classes=20))
    assert "no output holds one score per class and image" in message
    assert "outputs: out (" in message
    assert "--score NAME" in message


def test_the_error_carries_the_outputs() -> None:
    with pytest.raises(ScoreError) as error:
        score_of(ending(("Reshape", {"shape": [0, 5, 2, 2]}), classes=20, declared=[BATCH, 5, 2, 2]))
    assert error.value.outputs == ("out",)
    assert "outputs: out (N, 5, 2, 2)" in str(error.value)


def test_a_score_behind_steps_is_refused_with_the_operator() -> None:
    net = Net()
    features = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)))
    net.head(net.op("Identity", net.op("Round", features, out="steps")), 4)
    with pytest.raises(NoGradientPath, match=r"gradient of 'logits' is zero by definition.*Round") as error:
        score_of(net.model({"logits": [BATCH, 5]}))
    assert error.value.node == "node_steps"


def test_a_model_whose_outputs_do_not_depend_on_the_image() -> None:
    net = Net()
    net.op("Relu", net.input("x", [BATCH, 5]), out="unused")
    net.op("Neg", net.array(np.ones((1, 5), np.float32)), out="fixed")
    net.op("Cast", net.op("Shape", "unused"), to=TensorProto.FLOAT, out="size")
    assert "outputs: fixed (1, 5), size (2)" in refusal(net.model({"fixed": None, "size": None}))


def test_kind_needs_no_more_than_axis_and_activation() -> None:
    value = ir.val("v")
    assert Score(value, 1, "Sigmoid", 5, "").kind == "classes"
    assert Score(value, None, "Sigmoid", 2, "").kind == "binary"
    assert Score(value, None, "Softmax", 1, "").kind == "regression"
