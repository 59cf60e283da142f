"""Guided backpropagation and deconvolution against hand-computed numbers and a naive backward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import BATCH, Net
from onnx.reference import ReferenceEvaluator

from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.autodiff.rectifiers.gating import (
    DECONVOLUTION_RULES,
    GATES,
    GUIDED_RULES,
    Gating,
    deconvolution_rules,
    guided_rules,
    summary,
    watch_activations,
)
from onnx_gradcam.autodiff.registry import RULES, Rules
from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.engine.program import differentiate
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.targets import write_score

TABLES = {"gradient": RULES, "guided": GUIDED_RULES, "deconvolution": DECONVOLUTION_RULES}
HEADER = '<ir_version: 10, opset_import: ["": 20, "com.microsoft": 1]>\n'
X = np.array([-4.0, -4, -1, -1, -0.25, -0.25, 0.5, 0.5, 2, 2, 7, 7])
G = np.array([-3.0, 2] * 6)


def pulled(text: str, rules: Rules, fed: Mapping[str, np.ndarray], wrt: str = "h", seed: str = "y") -> np.ndarray:
    """The cotangent of ``wrt`` in the model ``text``, given the input g as that of ``seed``."""
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(HEADER + text))
    graph = ir.from_proto(proto).graph
    values = ir.convenience.create_value_mapping(graph)
    g = ir.val("g", dtype=values[seed].dtype, shape=values[seed].shape)
    nodes = list(graph)
    graph.inputs.append(g)
    (found,) = pull_back(Builder(graph), nodes, {values[seed]: g}, [values[wrt]], rules)
    graph.outputs[:] = [found]
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    return np.asarray(ReferenceEvaluator(model).run([found.name], dict(fed))[0])


def of_one(body: str, rules: Rules, x: np.ndarray = X, g: np.ndarray = G, start: str = "h = Neg(x)") -> np.ndarray:
    """The cotangent of h where y is made of h = −x by ``body``; ``x`` is given as h."""
    text = f"m (double[{len(x)}] x) => (double[{len(x)}] y) {{ {start}\n {body} }}"
    return pulled(text, rules, {"x": -x, "g": g})


RECTIFIERS = {
    "Relu": "y = Relu(h)",
    "LeakyRelu": "y = LeakyRelu <alpha = 0.1> (h)",
    "PRelu": "s = Constant <value = double[1] {0.2}> ()\n y = PRelu(h, s)",
    "ThresholdedRelu": "y = ThresholdedRelu <alpha = 1.0> (h)",
    "Relu6": "l = Constant <value = double {0}> ()\n u = Constant <value = double {6}> ()\n y = Clip(h, l, u)",
    "Clip from zero": "l = Constant <value = double {0}> ()\n y = Clip(h, l)",
    "Max with zero": "z = Constant <value = double {0}> ()\n y = Max(h, z)",
    "zero with Max": "z = Constant <value = double[1] {0}> ()\n y = Max(z, h)",
    "Elu": "y = Elu <alpha = 0.7> (h)",
    "Selu": "y = Selu(h)",
    "Celu": "y = Celu <alpha = 2.0> (h)",
    "Softplus": "y = Softplus(h)",
    "HardSwish": "y = HardSwish(h)",
    "Gelu": "y = Gelu(h)",
    "Gelu by Tanh": 'y = Gelu <approximate = "tanh"> (h)',
    "Mish": "y = Mish(h)",
}


@pytest.mark.parametrize("body", RECTIFIERS.values(), ids=RECTIFIERS.keys())
def test_every_rectifier(body: str) -> None:
    """Guided is the gradient of what is positive of g, and deconvolution is that itself."""
    gradient, positive = of_one(body, RULES), of_one(body, RULES, g=np.maximum(G, 0))
    guided, deconvolution = of_one(body, GUIDED_RULES), of_one(body, DECONVOLUTION_RULES)
    assert np.abs(gradient[::2]).max() > 1  # g is −3 there: the gradient is not guided already
    np.testing.assert_array_equal(guided, positive)
    np.testing.assert_array_equal(deconvolution, np.maximum(G, 0))


RELUS = {"Relu", "Clip from zero", "Max with zero", "zero with Max"}


@pytest.mark.parametrize("name", RECTIFIERS)
def test_relu_alone(name: str) -> None:
    """Every form of max(x, 0) is gated; a bound above, a slope below and a curve keep the gradient."""
    all_or_none = (GUIDED_RULES, DECONVOLUTION_RULES) if name in RELUS else (RULES, RULES)
    for rules, expected in zip((guided_rules, deconvolution_rules), all_or_none, strict=True):
        pulled_back = of_one(RECTIFIERS[name], rules(GATES["relu"]))
        np.testing.assert_array_equal(pulled_back, of_one(RECTIFIERS[name], expected))


@pytest.mark.parametrize("body", RECTIFIERS.values(), ids=RECTIFIERS.keys())
@pytest.mark.parametrize("rules", [GUIDED_RULES, DECONVOLUTION_RULES], ids=["guided", "deconvolution"])
def test_only_a_relu_more_is_written(body: str, rules: Rules) -> None:
    """Every provider has it."""
    added = {name: written(body, table) for name, table in [("ordinary", RULES), ("gated", rules)]}
    assert added["gated"] - added["ordinary"] == Counter(["Relu"])


def written(body: str, rules: Rules) -> Counter[str]:
    """The operators that the walk writes, and how often."""
    text = f"m (double[2] x) => (double[2] y) {{ h = Neg(x)\n {body} }}"
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(HEADER + text))).graph
    values, op = ir.convenience.create_value_mapping(graph), Builder(graph)
    pull_back(op, list(graph), {values["y"]: op.const([1, 1], like=values["y"])}, [values["h"]], rules)
    return Counter(n.op_type for n in op.written)


SILU = "m (double[3] x) => (double[3] y) { h = Neg(x)\n s = Sigmoid(h)\n y = Mul(h, s) }"


@pytest.mark.parametrize("name", TABLES)
def test_an_inner_value_of_a_composite_gets_its_own_gradient(name: str) -> None:
    """Asked for s of y = h · s, the two nodes are two: s̄ = g · h by every table."""
    h, g = np.array([-1.0, 2, 3]), np.array([1.0, -1, 2])
    assert pulled(SILU, TABLES[name], {"x": -h, "g": g}, wrt="s").tolist() == [-1, -2, 6]


def test_a_composite_by_hand() -> None:
    """At h = 0: y′ = ½."""
    fed = {"x": np.zeros(3), "g": np.array([1.0, -1, 2])}
    found = {name: pulled(SILU, rules, fed).tolist() for name, rules in TABLES.items()}
    assert found == {"gradient": [0.5, -0.5, 1], "guided": [0.5, 0, 1], "deconvolution": [1, 0, 2]}


def test_what_is_read_beside_a_composite_adds_its_own_share() -> None:
    """y = (h·σ(h), σ(h)), h = 0: the second share, a quarter of its cotangent, passes no gate."""
    text = """m (double[1] x) => (double[2] y)
    { h = Neg(x)\n s = Sigmoid(h)\n p = Mul(h, s)\n y = Concat <axis = 0> (p, s) }"""
    for second in (4.0, -4.0):
        fed = {"x": np.zeros(1), "g": np.array([-2.0, second])}
        found = {name: pulled(text, rules, fed).item() for name, rules in TABLES.items()}
        assert found == {"gradient": -1 + second / 4, "guided": second / 4, "deconvolution": second / 4}


def test_relu_by_hand() -> None:
    x, g = np.array([-1.0, -1, 2, 2]), np.array([-3.0, 5, -3, 5])
    assert of_one("y = Relu(h)", RULES, x, g).tolist() == [0, 0, -3, 5]
    assert of_one("y = Relu(h)", GUIDED_RULES, x, g).tolist() == [0, 0, 0, 5]
    assert of_one("y = Relu(h)", DECONVOLUTION_RULES, x, g).tolist() == [0, 5, 0, 5]


def test_leaky_relu_by_hand() -> None:
    x, g = np.array([-1.0, -1, 2, 2]), np.array([-3.0, 5, -3, 5])
    body = "y = LeakyRelu <alpha = 0.5> (h)"
    assert of_one(body, RULES, x, g).tolist() == [-1.5, 2.5, -3, 5]
    assert of_one(body, GUIDED_RULES, x, g).tolist() == [0, 2.5, 0, 5]
    assert of_one(body, DECONVOLUTION_RULES, x, g).tolist() == [0, 5, 0, 5]


OTHERS = {
    "Clip to both sides": "l = Constant <value = double {-1}> ()\n u = Constant <value = double {1}> ()\n "
    "y = Clip(h, l, u)",
    "guard of a divisor": "l = Constant <value = double {0.3}> ()\n y = Clip(h, l)",
    "Clip from above": "u = Constant <value = double {6}> ()\n y = Clip(h, , u)",
    "Max with one": "z = Constant <value = double {1}> ()\n y = Max(h, z)",
    "Max of two": "k = Mul(h, h)\n y = Max(h, k)",
    "Sigmoid": "y = Sigmoid(h)",
    "HardSigmoid": "y = HardSigmoid(h)",
    "hard sigmoid in pieces": "c = Constant <value = double {3}> ()\n l = Constant <value = double {0}> ()\n "
    "u = Constant <value = double {6}> ()\n a = Add(h, c)\n b = Clip(a, l, u)\n y = Div(b, u)",
    "the same of Relu and Min": "c = Constant <value = double {0.5}> ()\n u = Constant <value = double {1}> ()\n "
    "a = Add(c, h)\n b = Relu(a)\n y = Min(b, u)",
    "Tanh": "y = Tanh(h)",
    "Softmax": "y = Softmax <axis = 0> (h)",
    "Softsign": "y = Softsign(h)",
    "Abs": "y = Abs(h)",
    "square": "y = Mul(h, h)",
    "cube": "s = Mul(h, h)\n y = Mul(s, h)",
    "sum of itself and half of it": "u = Constant <value = double {0.5}> ()\n k = Mul(h, u)\n y = Add(h, k)",
    "norm": "s = Mul(h, h)\n c = Constant <value = double {1}> ()\n a = Add(s, c)\n r = Sqrt(a)\n y = Div(h, r)",
}


@pytest.mark.parametrize("body", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("rules", [GUIDED_RULES, DECONVOLUTION_RULES], ids=["guided", "deconvolution"])
def test_what_is_no_rectifier_keeps_its_gradient(body: str, rules: Rules) -> None:
    np.testing.assert_array_equal(of_one(body, rules), of_one(body, RULES))


def test_a_clip_of_the_models_own_input_is_the_range_of_its_pixels() -> None:
    text = """m (double[3] x) => (double[3] y) <double l = {0}, double u = {255}> { y = Clip(x, l, u) }"""
    fed = {"x": np.array([-1.0, 5, 300]), "g": np.array([-1.0, -2, -3])}
    assert pulled(text, GUIDED_RULES, fed, wrt="x").tolist() == [0, -2, 0]


# ------------------------------------------------------------------------------------------- a whole network

# x → a = W·x → r = relu(a) → b = V·r → c = clip(b, 0, 6) → y = u·c
W = np.array([[1.0, -2], [3, 1], [-1, 1]])
V = np.array([[1.0, 2, -1], [-2, 1, 4]])
U = np.array([3.0, -1])
NETWORK = """m (double[2] x) => (double y)
<double[3, 2] W = {1, -2, 3, 1, -1, 1}, double[2, 3] V = {1, 2, -1, -2, 1, 4}, double[2] u = {3, -1},
 double zero = {0}, double six = {6}>
{ a = MatMul(W, x)\n r = Relu(a)\n b = MatMul(V, r)\n c = Clip(b, zero, six)\n y = MatMul(u, c) }"""


def naive(x: np.ndarray, rule: str) -> np.ndarray:
    """Number by number, straight from the papers."""
    a = [sum(W[i, j] * x[j] for j in range(2)) for i in range(3)]
    b = [sum(V[i, j] * max(a[j], 0) for j in range(3)) for i in range(2)]

    def back(g: float, slope: float) -> float:
        if rule == "gradient":
            return slope * g
        return slope * max(g, 0) if rule == "guided" else max(g, 0)

    b_bar = [back(U[i], float(0 <= b[i] <= 6)) for i in range(2)]
    a_bar = [back(sum(V[i, j] * b_bar[i] for i in range(2)), float(a[j] > 0)) for j in range(3)]
    return np.array([sum(W[i, j] * a_bar[i] for i in range(3)) for j in range(2)])


@pytest.mark.parametrize("rule", TABLES)
@pytest.mark.parametrize("x", [(1.0, 0.5), (-1, 1), (0.25, 0.5), (-2, -3)])
def test_a_network(x: tuple[float, float], rule: str) -> None:
    at = np.array(x, np.float64)
    found = pulled(NETWORK, TABLES[rule], {"x": at, "g": np.array(1.0)}, wrt="x")
    np.testing.assert_allclose(found, naive(at, rule), rtol=1e-15, atol=0)


def test_that_network_by_hand() -> None:
    """At (¼, ½): a = (−¾, 1¼, ¼), r = (0, 1¼, ¼), b = (2¼, 2¼), u = (3, −1).

    Gradient: b̄ = (3, −1), r̄ = (5, 5, −7), ā = (0, 5, −7), x̄ = (22, −2).
    Guided: b̄ = (3, 0), r̄ = (3, 6, −3), ā = (0, 6, 0), x̄ = (18, 6).
    Deconvolution: b̄ = (3, 0), ā = (3, 6, 0), x̄ = (21, 0).
    """
    fed = {"x": np.array([0.25, 0.5]), "g": np.array(1.0)}
    found = {name: pulled(NETWORK, rules, fed, wrt="x").tolist() for name, rules in TABLES.items()}
    assert found == {"gradient": [22, -2], "guided": [18, 6], "deconvolution": [21, 0]}


def test_a_rectified_input_of_a_sum() -> None:
    """The skip around a Relu is not gated: y = relu(x) + x, at −1 and 1, with g = −1."""
    text = "m (double[2] x) => (double[2] y) { r = Relu(x)\n y = Add(r, x) }"
    fed = {"x": np.array([-1.0, 1]), "g": np.array([-1.0, -1])}
    assert pulled(text, GUIDED_RULES, fed, wrt="x").tolist() == [-1, -1]


# --------------------------------------------------------------------------------------------- the count


def counted(net: Net, table: Rules = GUIDED_RULES, wrt: str = "x", output: str = "logits", dims: int = 5) -> Gating:
    prepared = prepare(load(net.model({output: [BATCH, dims]})).model)
    return differentiate(*write_score(prepared, find_score(prepared.graph)), [wrt], table).gating


def test_the_count_names_what_was_gated_and_what_was_not() -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out="stem")
    y = net.op("Elu", net.conv(x, (4, 4)))
    pooled = net.op("Relu", net.conv(net.op("GlobalAveragePool", y), (4, 4), kernel=1))
    gate = net.op("Sigmoid", net.conv(pooled, (4, 4), kernel=1))
    net.head(net.op("Tanh", net.op("Mul", gate, y)), 4)
    found = counted(net)
    assert found == Gating({"Relu": 2}, {"Elu": 1}, {"Sigmoid": 1, "Tanh": 1})
    assert counted(net, wrt="stem") == Gating({"Relu": 1}, {"Elu": 1}, {"Sigmoid": 1, "Tanh": 1})
    assert counted(net, RULES) == Gating({}, {}, {"Elu": 1, "Relu": 2, "Sigmoid": 1, "Tanh": 1})


def test_only_what_lies_between_input_and_score_is_counted() -> None:
    """Neither the Softmax after the score nor a branch beside it, nor what does not depend on the input."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", [BATCH, 3, 8, 8]), (3, 4)), out="relu")
    net.op("Sigmoid", x, out="beside")
    net.op("Add", x, net.op("Relu", net.random(4, 1, 1)), out="shifted")
    net.head("shifted", 4)
    net.op("Softmax", "logits", out="p")
    assert counted(net, output="p") == Gating({"Relu": 1}, {}, {})


def test_the_noting_rules_are_the_same_rules() -> None:
    """Whoever notes changes no number, and whatever has no activation in its name is the very same rule."""
    seen: dict = {}
    table = watch_activations(GUIDED_RULES, seen)
    fed = {"x": np.array([0.25, 0.5]), "g": np.array(1.0)}
    assert pulled(NETWORK, table, fed, wrt="x").tolist() == [18, 6]
    assert summary(seen.values()) == Gating({"Clip": 1, "Relu": 1}, {}, {})
    assert table["Conv", 0] is RULES["Conv", 0]
