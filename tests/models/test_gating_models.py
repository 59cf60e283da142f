"""Guided backpropagation and deconvolution of deployed forms: quantized, fused, in float16, with one logit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from deployed import in_float16, quantize, scenes
from measures import cosine
from nets import BATCH, Net, run
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from repository import MODELS

import onnx_gradcam as ogc
from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.autodiff.rectifiers.gating import DECONVOLUTION_RULES, GUIDED_RULES, Gating
from onnx_gradcam.autodiff.registry import RULES, Rules
from onnx_gradcam.engine.program import differentiate
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.names import SCALE_INPUT
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.targets import write_score

TABLES = {"guided": GUIDED_RULES, "deconvolution": DECONVOLUTION_RULES}
every_table = pytest.mark.parametrize("table", TABLES)


def gradient(
    model: Any, x: np.ndarray, rules: Rules, classes: Sequence[int], name: str = "x", **more: np.ndarray
) -> tuple[np.ndarray, Gating]:
    """The gradient of the chosen scores with respect to the input, and what was gated."""
    prepared = prepare(load(model).model)
    whole = differentiate(*write_score(prepared, find_score(prepared.graph)), [name], rules)
    fed = {name: x, "target_index": np.array(classes), **more}
    return run(ir.to_proto(whole.model), fed, [f"grad/{name}"])[f"grad/{name}"], whole.gating


# form → the least median agreement with the float twin over its images: guided, deconvolution
FORMS = {
    "qdq": (0.99, 0.998),
    "qoperator": (0.99, 0.998),
    "qoperator per channel": (0.99, 0.999),
    "qdq of 16 bits in com.microsoft": (0.99, 0.99999),
}


@pytest.fixture(scope="module")
def twin() -> tuple[Path, np.ndarray, np.ndarray, list[int]]:
    """(the float model, images, images for calibration, their classes)."""
    path = MODELS / "shapes-resnet.onnx"
    with ogc.Explainer(path) as explainer:
        x, calibration = (scenes(explainer, count, seed) for count, seed in ((6, 0), (30, 1)))
        return path, x, calibration, explainer.explain(x).class_index.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_quantized_models_agree_with_their_float_twin(twin: Any, form: str, tmp_path: Path) -> None:
    """Where every Relu was folded into the format of what it makes: as many are gated, and the maps are alike."""
    source, x, calibration, classes = twin
    quantize(source, tmp_path / "quantized.onnx", form, "image", calibration)
    for rules, least in zip(TABLES.values(), FORMS[form], strict=True):
        expected, of_float = gradient(source, x, rules, classes, "image")
        rows = [
            gradient(tmp_path / "quantized.onnx", x[i : i + 1], rules, classes[i : i + 1], "image") for i in range(6)
        ]
        assert of_float == Gating({"Relu": 7}, {}, {})
        assert rows[0][1] == Gating({"QuantizeLinear": 7}, {}, {})
        assert np.median(cosine(np.concatenate([found for found, _ in rows]), expected)) >= least


def conv_net(*activations: str, domain: str = "com.microsoft", opset: int = 20) -> Net:
    """One convolution for each operator, which may be fused with it."""
    net = Net(opset)
    net.domains[domain] = 1
    x = net.input("x", [BATCH, 4, 6, 6])
    weights = [net.random(4, 4, 3, 3) for _ in activations]
    for activation, w in zip(activations, weights, strict=True):
        x = net.op("FusedConv", x, w, domain=domain, pads=[1] * 4, **fused(activation))
    net.head(x, 4)
    return net


def fused(activation: str) -> dict[str, Any]:
    numbers = {"LeakyRelu": [0.1], "Clip": [0.0, 6.0], "HardSigmoid": [0.2, 0.5]}.get(activation)
    return {"activation": activation, **({"activation_params": numbers} if numbers else {})}


@every_table
def test_activations_inside_fused_nodes(table: str) -> None:
    """As the same network of standard operators, which FusedConv stands for."""
    names = ("Relu", "LeakyRelu", "Tanh", "Clip", "HardSigmoid", "Relu")
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)
    found, gating = gradient(conv_net(*names).model({"logits": [BATCH, 5]}), x, TABLES[table], [1, 4])
    plain = Net(20)
    value = plain.input("x", [BATCH, 4, 6, 6])
    weights = [plain.random(4, 4, 3, 3) for _ in names]
    for name, w in zip(names, weights, strict=True):
        value = plain.op("Conv", value, w, pads=[1] * 4)
        bounds = [plain.array(np.float32(b)) for b in (0, 6)] if name == "Clip" else []
        numbers = {"LeakyRelu": {"alpha": 0.1}, "HardSigmoid": {"alpha": 0.2, "beta": 0.5}}.get(name, {})
        value = plain.op(name, value, *bounds, **numbers)
    plain.head(value, 4)
    expected, of_plain = gradient(plain.model({"logits": [BATCH, 5]}), x, TABLES[table], [1, 4])
    assert gating == of_plain == Gating({"Clip": 1, "LeakyRelu": 1, "Relu": 2}, {}, {"HardSigmoid": 1, "Tanh": 1})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


# operator of com.microsoft → how it is counted, and in standard operators of opset 20
CONTRIB = {
    "Gelu": ("Gelu", lambda net, x: net.op("Gelu", x)),
    "FastGelu": ("Gelu", lambda net, x: net.op("Gelu", x, approximate="tanh")),
    "QuickGelu": (
        "QuickGelu",
        lambda net, x: net.op("Mul", x, net.op("Sigmoid", net.op("Mul", x, net.array(np.float32(1.702))))),
    ),
    "BiasGelu": ("Gelu", lambda net, x: net.op("Gelu", net.op("Add", x, "bias"))),
}


@every_table
@pytest.mark.parametrize("opset", [18, 20])
@pytest.mark.parametrize("operator", CONTRIB)
def test_activations_of_com_microsoft(operator: str, opset: int, table: str) -> None:
    """Before opset 20 they are lowered to several nodes, in which the activation is recognised again."""
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 4)).astype(np.float32)

    def pulled(opset: int, write: Any) -> tuple[np.ndarray, Gating]:
        net = Net(opset)
        net.domains["com.microsoft"] = 1
        net.array(np.array([0.1, -0.2, 0.3, 0.4], np.float32), "bias")
        net.head(net.conv(write(net, net.conv(net.input("x", [BATCH, 3, 6, 4]), (3, 4))), (4, 4)), 4)
        return gradient(net.model({"logits": [BATCH, 5]}), x, TABLES[table], [1, 4])

    bias = ["bias"] if operator == "BiasGelu" else []
    name, standard = CONTRIB[operator]
    found, gating = pulled(opset, lambda net, v: net.op(operator, v, *bias, domain="com.microsoft"))
    expected, of_standard = pulled(20, standard)
    assert gating == of_standard == Gating({}, {name: 1}, {})
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@every_table
def test_a_function_body(table: str) -> None:
    """Swish of opset 24 has no rule of its own: its body is a product with a Sigmoid."""
    x, w = np.array([[-3.0, -1, 0.5, 2]]), np.array([[1.0, -1], [-2, 2], [3, -3], [4, 5]])
    net = Net(24, ir_version=11)
    hidden = net.op("Swish", net.input("x", [BATCH, 4], np.float64), alpha=1.5)
    net.op("MatMul", hidden, net.array(w), out="logits")
    model = net.model({"logits": [BATCH, 2]}, {"logits": TensorProto.DOUBLE})
    prepared = prepare(load(model).model)
    whole = differentiate(*write_score(prepared, find_score(prepared.graph)), ["x"], TABLES[table])
    assert whole.gating == Gating({}, {"Swish": 1}, {})
    evaluator = ReferenceEvaluator(ir.to_proto(whole.model))
    (found,) = evaluator.run(["grad/x"], {"x": x, "target_index": np.array([1])})
    s = 1 / (1 + np.exp(-1.5 * x))
    slope = s + 1.5 * x * s * (1 - s) if table == "guided" else np.ones_like(x)
    np.testing.assert_allclose(found, slope * np.maximum(w[:, 1], 0), rtol=1e-12)


@every_table
def test_float16_with_its_scale(table: str) -> None:
    """The scale of the cotangent passes through every gate."""
    path = MODELS / "shapes-resnet.onnx"
    x = np.random.default_rng(0).standard_normal((2, 3, 96, 96)).astype(np.float32)
    expected, _ = gradient(path, x, TABLES[table], [1, 4], "image")
    scale = {SCALE_INPUT: np.array(64, np.float32)}
    found, gating = gradient(
        in_float16(path, keep_io_types=False), x.astype(np.float16), TABLES[table], [1, 4], "image", **scale
    )
    assert gating == Gating({"Relu": 7}, {}, {})
    assert cosine(found.astype(np.float32) / 64, expected).min() >= 0.999
    assert np.abs(found.astype(np.float32) / 64 / np.abs(expected).max()).max() == pytest.approx(1, rel=0.05)


def one_logit() -> onnx.ModelProto:
    """x (N, 2) → relu(x·W) · u → sigmoid, W = (1 −1; 2 1), u = (3, −2)."""
    net = Net()
    hidden = net.op("MatMul", net.input("x", [BATCH, 2]), net.array(np.array([[1, -1], [2, 1]], np.float32)))
    z = net.op("MatMul", net.op("Relu", hidden), net.array(np.array([[3], [-2]], np.float32)), out="z")
    net.op("Sigmoid", z, out="p")
    return net.model({"p": [BATCH, 1]})


def test_the_sign_of_one_logit_comes_before_the_gates() -> None:
    """At (1, 2) hidden is (5, 1). Class 1: u = (3, −2) → (3, 0) → x̄ = (3, 6); class 0: −u → (0, 2) → x̄ = (−2, 2)."""
    x = np.array([[1, 2], [1, 2]], np.float32)
    found, gating = gradient(one_logit(), x, GUIDED_RULES, [1, 0])
    assert found.tolist() == [[3, 6], [-2, 2]]
    assert gating == Gating({"Relu": 1}, {}, {})  # the Sigmoid comes after the score
    assert gradient(one_logit(), x, RULES, [1, 0])[0].tolist() == [[5, 4], [-5, -4]]


def test_rectifiers_in_the_branches_of_an_if() -> None:
    """Both branches are gated and counted, once each, although two captured values are differentiated."""
    net = Net()
    x = net.input("x", [BATCH, 3])
    a, b = net.op("Neg", x, out="a"), net.op("Mul", x, net.array(np.float32(2)), out="b")
    bright = net.op("Greater", net.op("ReduceMax", x, keepdims=0), net.array(np.float32(0)))
    bodies = {}
    for name, nodes in {
        "then_branch": [helper.make_node("Add", [a, b], ["s"]), helper.make_node("Relu", ["s"], ["t"])],
        "else_branch": [helper.make_node("Sub", [a, b], ["d"]), helper.make_node("Elu", ["d"], ["e"])],
    }.items():
        output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [BATCH, 3])
        bodies[name] = helper.make_graph(nodes, name, [], [output])
    net.op("Mul", net.op("If", bright, **bodies), net.array(np.array([1, -1, 1], np.float32)), out="logits")
    model = net.model({"logits": [BATCH, 3]})
    at = np.array([[1.0, 2, -3]], np.float32)  # a + b = x
    for rules, expected in [(RULES, [0, -1, 0]), (GUIDED_RULES, [0, 0, 0]), (DECONVOLUTION_RULES, [0, 0, 0])]:
        found, gating = gradient(model, at, rules, [1])
        assert found.tolist() == [expected]
    assert gating == Gating({"Relu": 1}, {"Elu": 1}, {})
    assert gradient(model, at, DECONVOLUTION_RULES, [2])[0].tolist() == [[0, 0, 1]]
    assert gradient(model, at, GUIDED_RULES, [2])[0].tolist() == [[0, 0, 0]]


# Paddle's HardSwish of Add, Clip, Mul and Div; YOLOX's SiLU; ShuffleNetV2's 37 Relu, all folded; TensorFlow's Relu6.
ZOO = {
    "ppocr-cls-v3": Gating({"Relu": 15}, {"HardSwish": 18}, {"HardSigmoid": 9}),
    "yolox-nano": Gating({}, {"SiLU": 104}, {}),
    "shufflenetv2-int8": Gating({"QuantizeLinear": 37}, {}, {}),
    "stm-mobilenetv2-035-tfs": Gating({"Clip": 35}, {}, {}),
    "sinet-softmax": Gating({"PRelu": 39}, {}, {"Softmax": 1}),
    "mesonet": Gating({"LeakyRelu": 1, "Relu": 4}, {}, {}),
}


@pytest.mark.parametrize("name", ZOO)
def test_models_from_the_wild(name: str, zoo: Path) -> None:
    prepared = prepare(load(zoo / "models" / f"{name}.onnx").model)
    image = prepared.graph.inputs[0].name or ""
    for rules in TABLES.values():
        assert differentiate(*write_score(prepared, find_score(prepared.graph)), [image], rules).gating == ZOO[name]
