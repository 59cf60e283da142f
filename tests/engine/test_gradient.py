"""Gradients of whole models: against closed forms and against finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import BATCH, Net, feeds, run
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from reference import evaluator

from onnx_gradcam.anatomy.layers import choose
from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.engine.program import differentiate, to_run
from onnx_gradcam.errors import LayerError, NoGradientPath, ScoreError, UnsupportedGradient
from onnx_gradcam.explain.network import open_network
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.names import CLASS_OUTPUT, SCALE_INPUT, SCORE_OUTPUT, TARGET_INDEX, gradient_names
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.roads.engines import gradient_model

ALL = {**builders.ARCHITECTURES, **builders.HABITS}
CLASSES = [3, -1, 0, 2]


def layer_of(proto: onnx.ModelProto) -> str:
    """The target layer that "auto" takes."""
    graph = prepare(load(proto).model).graph
    return choose(graph, find_score(graph), ["auto"])[0].name


def images(proto: onnx.ModelProto, batch: int = 4) -> dict[str, np.ndarray]:
    return feeds(proto, batch)


def classes(proto: onnx.ModelProto, count: int) -> np.ndarray:
    """The classes to explain, within what the model has."""
    found = find_score(prepare(load(proto).model).graph).count
    return np.array([c if c < found else 0 for c in CLASSES[:count]], np.int64)


def explained(proto: onnx.ModelProto, *names: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What the gradient model was fed, and what it returned."""
    fed = images(proto)
    fed[TARGET_INDEX] = classes(proto, len(next(iter(fed.values()))))
    return fed, run(gradient_model(proto, names), fed)


# ---------------------------------------------------------------------------------------- what it returns


@pytest.mark.parametrize("name", ALL)
def test_the_outputs_stay_and_the_gradients_join_them(name: str) -> None:
    proto = ALL[name]()
    layer = layer_of(proto)
    original = run(proto, images(proto))
    prepared = prepare(load(proto).model).graph
    score = find_score(prepared)
    model = gradient_model(proto, [layer])
    fed, found = explained(proto, layer)
    outputs = [v.name for v in prepared.outputs]
    assert list(found) == list(
        dict.fromkeys([*outputs, SCORE_OUTPUT, CLASS_OUTPUT, f"grad/{layer}", score.value.name, layer])
    )
    for key in set(original) - {"maps"}:
        np.testing.assert_allclose(found[key], original[key], rtol=1e-6, atol=1e-6)
    assert found[f"grad/{layer}"].shape == found[layer].shape
    logits = found[score.value.name].reshape(len(fed[TARGET_INDEX]), -1)
    logits = np.concatenate([-logits, logits], axis=1) if score.kind == "binary" else logits
    expected = np.where(fed[TARGET_INDEX] < 0, logits.argmax(axis=1), fed[TARGET_INDEX])
    np.testing.assert_array_equal(found[CLASS_OUTPUT], expected)
    np.testing.assert_allclose(found[SCORE_OUTPUT], logits[np.arange(len(logits)), expected], rtol=1e-6)
    assert {node.domain for node in model.graph.node} == {""}
    onnx.checker.check_model(model)


def test_the_gradient_behind_global_pooling_is_the_weight() -> None:
    """y_c = Σ_k w_ck · mean(A_k) + b_c:  ∂y_c/∂A_kij = w_ck / (H·W)."""
    proto = builders.residual()
    weight = next(t for t in proto.graph.initializer if list(t.dims) == [5, 6])
    _, found = explained(proto, "stage2")
    rows = numpy_helper.to_array(weight)[found[CLASS_OUTPUT]] / 16
    np.testing.assert_allclose(found["grad/stage2"], np.broadcast_to(rows[:, :, None, None], (4, 6, 4, 4)), rtol=1e-6)
    np.testing.assert_allclose(  # and through the Relu
        explained(proto, "added")[1]["grad/added"], found["grad/stage2"] * (found["stage2"] > 0), rtol=1e-6
    )


def test_the_gradient_of_the_score_itself() -> None:
    _, found = explained(builders.residual(), "logits")
    np.testing.assert_array_equal(found["grad/logits"], np.eye(5)[found[CLASS_OUTPUT]])


def test_a_sigmoid_logit() -> None:
    """Class 1: ∂z/∂A, class 0: its negative."""
    proto = builders.HABITS["sigmoid"]()
    weight = numpy_helper.to_array(next(t for t in proto.graph.initializer if list(t.dims) == [1, 4]))
    _, found = explained(proto, "relu")
    sign = np.where(found[CLASS_OUTPUT] == 1, 1, -1)[:, None, None, None]
    expected = np.broadcast_to(sign * weight[0][:, None, None] / 64, found["relu"].shape)
    np.testing.assert_allclose(found["grad/relu"], expected, rtol=1e-6)
    assert set(found[CLASS_OUTPUT]) == {0, 1}, "else the test shows nothing"


# ------------------------------------------------------------------------------------- finite differences


def in_float64(proto: onnx.ModelProto) -> onnx.ModelProto:
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for info in (*proto.graph.input, *proto.graph.output):
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    return proto


def with_nudge(proto: onnx.ModelProto, layer: str, score: str, shape: Sequence[int]) -> ReferenceEvaluator:
    """The model with ``nudge`` added to ``layer``, and only the score as output."""
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            if name == layer:
                node.input[i] = "nudged"
    made = [k for k, node in enumerate(proto.graph.node) if layer in node.output]
    proto.graph.node.insert(made[0] + 1 if made else 0, helper.make_node("Add", [layer, "nudge"], ["nudged"]))
    proto.graph.input.append(helper.make_tensor_value_info("nudge", TensorProto.DOUBLE, shape))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info(score, TensorProto.DOUBLE, None))
    return evaluator(proto)


@pytest.mark.parametrize("where", ["layer", "input"])
@pytest.mark.parametrize("name", builders.ARCHITECTURES)
def test_finite_differences_in_float64(name: str, where: str) -> None:
    proto = in_float64(builders.ARCHITECTURES[name]())
    layer = layer_of(proto) if where == "layer" else "x"
    fed = {**images(proto, 2), TARGET_INDEX: np.array([2, 4])}
    model = gradient_model(proto, [layer])
    activation, gradient = evaluator(model).run([layer, f"grad/{layer}"], fed)
    assert gradient.dtype == np.float64
    nudged = with_nudge(in_float64(proto), layer, "logits", activation.shape)

    def score(nudge: np.ndarray) -> float:
        (logits,) = nudged.run(None, {"x": fed["x"], "nudge": nudge})
        return float(sum(logits.reshape(2, 5)[[0, 1], fed[TARGET_INDEX]]))

    rng = np.random.default_rng(1)
    for _ in range(3):
        v = rng.standard_normal(gradient.shape)
        if name == "vgg":  # among zeros that a Relu left, the first is the maximum: differences see the largest nudge
            v *= activation != 0
        numeric = (score(1e-6 * v) - score(-1e-6 * v)) / 2e-6
        assert np.sum(gradient * v) == pytest.approx(numeric, rel=1e-6, abs=1e-7 * np.linalg.norm(gradient))
    assert np.linalg.norm(gradient) > 1e-3
    single = run(gradient_model(builders.ARCHITECTURES[name](), [layer]), {**fed, "x": fed["x"].astype(np.float32)})
    error = np.linalg.norm(single[f"grad/{layer}"] - gradient) / np.linalg.norm(gradient)
    assert error < 1e-5


# ------------------------------------------------------------------------------- each image its own gradient


@pytest.mark.parametrize("name", ["residual", "densenet", "convnext", "squeeze_excite", "two_inputs"])
def test_an_image_alone_has_the_gradient_that_it_has_in_a_batch(name: str) -> None:
    proto = ALL[name]()
    layer, image = layer_of(proto), "image" if name == "two_inputs" else "x"
    fed, together = explained(proto, layer, image)
    model = gradient_model(proto, [layer, image])
    for i in range(4):
        alone = run(model, {k: v[i : i + 1] for k, v in fed.items()})
        for key in (f"grad/{layer}", f"grad/{image}", SCORE_OUTPUT):
            np.testing.assert_allclose(alone[key][0], together[key][i], rtol=1e-5, atol=1e-7)


def test_gradients_at_several_values_are_those_at_each() -> None:
    proto = builders.residual()
    names = ["stage1", "relu2", "x"]
    _, together = explained(proto, *names)
    for name in names:
        _, alone = explained(proto, name)
        np.testing.assert_allclose(together[f"grad/{name}"], alone[f"grad/{name}"], rtol=1e-6, atol=1e-8)


def test_a_layer_that_a_skip_goes_around() -> None:
    """∂y/∂inner = ∂y/∂added, as for the skip's own end; what flows around does not count."""
    _, found = explained(builders.residual(), "inner2", "projection", "added", "stage1")
    np.testing.assert_allclose(found["grad/inner2"], found["grad/added"], rtol=1e-6)
    np.testing.assert_allclose(found["grad/projection"], found["grad/added"], rtol=1e-6)
    assert np.abs(found["grad/added"]).max() > 0


# ---------------------------------------------------------------------------------------------- names, dtypes


def test_the_class_is_an_input_of_the_size_of_the_batch() -> None:
    for proto, dim in ((builders.plain("N"), "N"), (builders.plain(4), 4), (builders.literal_minus_one(), "batch")):
        info = gradient_model(proto, ["relu"]).graph.input[-1]
        assert info.name == TARGET_INDEX
        assert info.type.tensor_type.elem_type == TensorProto.INT64
        (size,) = info.type.tensor_type.shape.dim
        assert (size.dim_value or size.dim_param) == dim


def test_names_like_our_own_are_no_clash() -> None:
    """A value called Mul_7 gets a gradient called grad/Mul_7, as a node of ours might be."""
    proto = builders.residual()
    plain = gradient_model(proto, ["stage2"])
    made = {name for node in plain.graph.node for name in node.output} | {t.name for t in plain.graph.initializer}
    ours = sorted({n.removeprefix("grad/") for n in made if n.startswith("grad/")} - {"score", "class_index", "stage2"})
    fed = {**images(proto), TARGET_INDEX: np.array(CLASSES)}
    assert len(ours) > 10
    for name in ours[:: len(ours) // 4]:
        renamed = builders.residual()
        for node in renamed.graph.node:
            node.input[:] = [name if n == "stage2" else n for n in node.input]
            node.output[:] = [name if n == "stage2" else n for n in node.output]
        found = run(gradient_model(renamed, [name]), fed)[f"grad/{name}"]
        np.testing.assert_array_equal(found, run(plain, fed)["grad/stage2"])


def test_the_opset_is_kept_from_18_on() -> None:
    assert gradient_model(builders.convnext(), ["block1"]).opset_import[0].version == 20
    assert gradient_model(builders.HABITS["opset7"](), ["relu"]).opset_import[0].version == 18


def test_the_model_stays_untouched(tmp_path: Path) -> None:
    proto = builders.residual()
    before = proto.SerializeToString()
    gradient_model(proto, ["stage2", "x"])
    assert proto.SerializeToString() == before


def test_external_data_is_carried_along(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    onnx.save(builders.residual(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    fed, expected = explained(builders.residual(), "stage2")
    model = gradient_model(path, ["stage2"])
    np.testing.assert_array_equal(run(model, fed)["grad/stage2"], expected["grad/stage2"])


def test_a_value_named_twice_comes_out_once() -> None:
    model = gradient_model(builders.plain(), ["relu", "relu"])
    assert [v.name for v in model.graph.output] == ["logits", SCORE_OUTPUT, CLASS_OUTPUT, "grad/relu", "relu"]


def test_half_precision() -> None:
    proto = builders.residual()
    half = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in half.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    for info in (*half.graph.input, *half.graph.output):
        info.type.tensor_type.elem_type = TensorProto.FLOAT16
    fed, expected = explained(proto, "stage1")
    fed = {**fed, SCALE_INPUT: np.array(1024, np.float32), "x": fed["x"].astype(np.float16)}
    found = run(gradient_model(half, ["stage1"]), fed)
    assert found["grad/stage1"].dtype == np.float16
    same = found[CLASS_OUTPUT] == expected[CLASS_OUTPUT]
    unscaled = found["grad/stage1"].astype(np.float32) / 1024
    error = np.linalg.norm(unscaled[same] - expected["grad/stage1"][same])
    assert error < 0.02 * np.linalg.norm(expected["grad/stage1"][same])
    assert same.sum() >= 3


# ------------------------------------------------------------------------------------------------- refusals


def test_an_unknown_value_names_the_nearest() -> None:
    with pytest.raises(LayerError, match="no value 'stage3'") as error:
        gradient_model(builders.residual(), ["stage2", "stage3"])
    assert "'stage2'" in error.value.hint


def test_a_value_that_does_not_lead_to_the_score() -> None:
    net = Net()
    conv = net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4), out="conv")
    net.head(net.op("Add", net.op("Floor", conv), net.op("Relu", "x_wide", out="relu")), 4)
    net.nodes.insert(0, helper.make_node("Concat", ["x", "x"], ["x_twice"], axis=1))
    net.nodes.insert(1, helper.make_node("Slice", ["x_twice", net.ints(0), net.ints(4), net.ints(1)], ["x_wide"]))
    net.op("Neg", "relu", out="aside")
    proto = net.model({"logits": [BATCH, 5], "aside": None})
    gradient_model(proto, ["relu"])
    for name in ("aside", "conv"):
        with pytest.raises(NoGradientPath, match=f"^'logits' does not depend on '{name}'") as error:
            gradient_model(proto, [name])
        assert (error.value.value, error.value.outputs) == (name, ("logits",))


def test_an_operator_without_a_rule_is_named() -> None:
    net = Net()
    relu = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out="relu")
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["more"]), helper.make_node("Tanh", ["v"], ["u"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [BATCH, 4, 8, 8]),
        ],
        [helper.make_empty_tensor_value_info(name) for name in ("more", "u")],
    )
    rows = net.op("Shape", "x", out="rows", start=0, end=1)
    net.head(net.op("Loop", rows, "", relu, out="repeated", body=body), 4)
    proto = net.model({"logits": None})
    with pytest.raises(UnsupportedGradient) as error:
        gradient_model(proto, ["relu"])
    assert "Loop" in str(error.value)
    assert "'node_repeated'" in str(error.value)
    gradient_model(proto, ["repeated"])


@pytest.mark.parametrize("name", ["score", "class_index"])
def test_a_value_whose_gradient_would_be_called_like_another_output(name: str) -> None:
    """Its gradient steps aside; the metadata tells where to."""

    def net(out: str) -> onnx.ModelProto:
        net = Net()
        net.head(net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out=out), 4)
        return net.model({"logits": None})

    made, plain = gradient_model(net(name), [name]), gradient_model(net("relu"), ["relu"])
    called = gradient_names(ir.from_proto(made))
    assert called is not None
    assert called.gradients == {name: f"ogc/grad/{name}"}
    fed = {**images(plain), TARGET_INDEX: np.array(CLASSES)}
    found, expected = run(made, fed), run(plain, fed)
    np.testing.assert_array_equal(found[f"ogc/grad/{name}"], expected["grad/relu"])
    np.testing.assert_array_equal(found[SCORE_OUTPUT], expected[SCORE_OUTPUT])
    np.testing.assert_array_equal(found[CLASS_OUTPUT], expected[CLASS_OUTPUT])


def test_an_unknown_score() -> None:
    with pytest.raises(ScoreError, match="no value 'logit'"):
        gradient_model(builders.residual(), ["stage2"], score="logit")


def test_a_score_by_name() -> None:
    proto = builders.two_outputs()
    model = gradient_model(proto, ["relu"], score="flat")
    found = run(model, {**images(proto), TARGET_INDEX: np.array([3, 1, 0, 2])})
    expected = np.zeros((4, 4, 8, 8), np.float32)
    expected[range(4), [3, 1, 0, 2]] = 1 / 64
    np.testing.assert_allclose(found["grad/relu"], expected, rtol=1e-6)


@pytest.mark.parametrize("proto", [builders.plain("N"), builders.ending(("Sigmoid", {}), classes=1, batch="N")])
def test_the_score_of_a_free_batch_needs_no_sums_over_axes_of_the_run(proto: onnx.ModelProto) -> None:
    """OpenVINO refuses those."""
    graph = gradient_model(proto, [value_of(proto)]).graph
    made = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    sums = [node for node in graph.node if node.op_type.startswith("Reduce") and node.name.startswith("grad/")]
    assert all(node.input[1] in constants for node in sums if len(node.input) > 1), made.keys()


def value_of(proto: onnx.ModelProto) -> str:
    return next(node.output[0] for node in proto.graph.node if node.op_type == "Relu")


def test_the_graph_to_run_returns_no_inputs() -> None:
    """OpenVINO takes no value for an input and an output."""
    network = open_network(builders.plain())
    whole = differentiate(network.scored_model, network.written_score, ["relu", "x"])
    assert "x" in {v.name for v in whole.model.graph.outputs}
    assert {v.name for v in to_run(whole).graph.outputs} == {
        "logits", "relu", "grad/relu", "grad/x", "grad/score", "grad/class_index",
    }  # fmt: skip
