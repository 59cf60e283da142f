from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import run
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_gradcam.autodiff.registry import Key, Rule, vjp
from onnx_gradcam.autodiff.walk import RULES, pull_back
from onnx_gradcam.errors import NoGradientPath, UnsupportedGradient
from onnx_gradcam.graph.builder import Builder, Value

HEADER = '<ir_version: 8, opset_import: ["": 18]>\n'


class Graph:
    """A parsed model, its cotangent inputs g_<output>, and what its walk appended."""

    def __init__(self, text: str) -> None:
        proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(HEADER + text), strict_mode=True)
        self.model = ir.from_proto(proto)
        self.graph = self.model.graph
        self.forward = list(self.graph)
        self.values = ir.convenience.create_value_mapping(self.graph)

    def pull_back(
        self, wrt: Sequence[str], seeds: Sequence[str] = ("y",), table: dict[Key, Rule] | None = None
    ) -> list[Value]:
        made = {}
        for name in seeds:
            y = self.values[name]
            made[y] = ir.val(f"g_{name}", dtype=y.dtype, shape=y.shape)
            self.graph.inputs.append(made[y])
        rules = RULES if table is None else table
        found = pull_back(Builder(self.graph), self.forward, made, [self.values[n] for n in wrt], rules)
        self.graph.outputs.extend(found)
        return found

    def run(self, fed: dict[str, np.ndarray], gradients: Sequence[Value]) -> list[np.ndarray]:
        names = [v.name or "" for v in gradients]
        return [np.asarray(a) for a in ReferenceEvaluator(ir.to_proto(self.model)).run(names, fed)]

    @property
    def added(self) -> list[str]:
        return [n.op_type for n in self.graph if n not in self.forward]


def gradients(text: str, wrt: Sequence[str], seeds: Sequence[str] = ("y",), **fed: object) -> list[list[float]]:
    """The gradients at wrt, for the inputs and cotangents given as lists."""
    made = Graph(text)
    found = made.pull_back(wrt, seeds)
    return [a.tolist() for a in made.run({k: np.array(v, np.float64) for k, v in fed.items()}, found)]


def test_a_value_that_is_read_twice_sums_its_shares() -> None:
    """y = x·x + eˣ at x = 0 and 3:  x̄ = 2x + eˣ."""
    text = "g (double[2] x) => (double[2] y) { s = Mul(x, x)\n e = Exp(x)\n y = Add(s, e) }"
    (found,) = gradients(text, ["x"], x=[0, 3], g_y=[1, 1])
    np.testing.assert_allclose(found, [1, 6 + np.exp(3)], rtol=1e-15)


def test_a_skip_connection() -> None:
    """y = relu(x) · w + x."""
    text = """g (double[3] x) => (double[3] y) <double[3] w = {2, 3, 4}>
    { r = Relu(x)\n m = Mul(r, w)\n y = Add(m, x) }"""
    assert gradients(text, ["x"], x=[-1, 0, 1], g_y=[1, 10, 100]) == [[1, 10, 500]]


def test_several_values_one_upstream_of_another() -> None:
    """x → h = 2x → y = h² + h:  each gets its own total, the outer one through the inner."""
    text = """g (double[2] x) => (double[2] y) <double[1] two = {2}>
    { h = Mul(x, two)\n s = Mul(h, h)\n y = Add(s, h) }"""
    assert gradients(text, ["h", "x"], x=[1, 2], g_y=[1, 1]) == [[5, 9], [10, 18]]
    assert gradients(text, ["x", "h", "s"], x=[1, 2], g_y=[1, 1]) == [[10, 18], [5, 9], [1, 1]]


def test_several_outputs_one_upstream_of_another() -> None:
    """⟨g_h, h⟩ + ⟨g_y, y⟩ with h = x², y = 3h."""
    text = "g (double[2] x) => (double[2] h, double[2] y) <double[1] c = {3}> { h = Mul(x, x)\n y = Mul(h, c) }"
    found = gradients(text, ["x", "h"], ["h", "y"], x=[1, 2], g_h=[1, 10], g_y=[100, 1])
    assert found == [[602, 52], [301, 13]]


def test_the_output_itself() -> None:
    text = "g (double[2] x) => (double[2] y) { y = Exp(x) }"
    assert gradients(text, ["y"], x=[0, 0], g_y=[7, 8]) == [[7, 8]]


def test_an_output_that_does_not_depend_on_the_value_adds_nothing() -> None:
    text = "g (double[2] x, double[2] z) => (double[2] y, double[2] w) { y = Neg(x)\n w = Exp(z) }"
    assert gradients(text, ["x"], ["y", "w"], x=[0, 0], z=[0, 0], g_y=[1, 2], g_w=[5, 5]) == [[-1, -2]]


def test_only_nodes_between_value_and_output_are_visited() -> None:
    """Neither what lies before the value, nor a branch beside it, nor what follows the output needs a rule."""
    text = """g (float[2, 2] x, float[2, 2] z) => (float[2, 2] y, float late)
    { h = Sin(x)\n side = Sin(z)\n r = Relu(h)\n y = Add(r, side)\n late = Det(y) }"""
    table = {("Relu", 0): RULES["Relu", 0], ("Add", 0): RULES["Add", 0]}
    made = Graph(text)
    made.pull_back(["h"], table=table)
    assert made.added == ["Mul", "Clip", "Mul"]


def test_added_nodes_and_values_are_named_under_grad() -> None:
    made = Graph("g (float[2] x) => (float[2] y) { s = Sigmoid(x)\n y = Mul(s, x) }")
    made.pull_back(["x"])
    names = [n.name or "" for n in made.graph if n not in made.forward]
    names += [v.name or "" for n in made.graph if n not in made.forward for v in n.outputs]
    names += list(made.graph.initializers)
    assert len(names) > 10
    assert all(n.startswith("grad/") for n in names)
    assert [v.name for n in made.forward for v in n.outputs] == ["s", "y"]


def test_names_that_the_model_has_taken_are_left_alone() -> None:
    made = Graph('g (float[2] x) => (float[2] "grad/Mul_1") { "grad/Mul_1" = Tanh(x) }')
    made.pull_back(["x"], seeds=["grad/Mul_1"])
    names = [v.name for n in made.graph for v in n.outputs]
    assert len(names) > 1
    assert len(set(names)) == len(names)


def test_a_compact_cotangent_is_expanded_for_a_rule_that_needs_it_whole() -> None:
    """ReduceMean hands back (1, 1, 1); LogSoftmax needs (1, 2, 3)."""
    text = """g (double[1, 2, 3] x) => (double y) <int64[3] axes = {0, 1, 2}>
    { l = LogSoftmax <axis = 2> (x)\n y = ReduceMean <keepdims = 0> (l, axes) }"""
    made = Graph(text)
    found = made.pull_back(["x"])
    assert "Expand" in made.added
    x = np.array([[[0.0, 1, 2], [5, 5, 5]]])
    (gradient,) = made.run({"x": x, "g_y": np.array(6.0)}, found)
    softmax = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    np.testing.assert_allclose(gradient, 1 - 3 * softmax, atol=1e-15)


def test_a_compact_cotangent_is_returned_in_the_full_shape() -> None:
    text = """g (double[1, 2, 3] x) => (double[1, 2, 1] y) <int64[1] axes = {2}> { y = ReduceSum(x, axes) }"""
    made = Graph(text)
    found = made.pull_back(["x"])
    assert list(found[0].shape or []) == [1, 2, 3]
    (gradient,) = made.run({"x": np.zeros((1, 2, 3)), "g_y": np.array([[[1.0], [2]]])}, found)
    assert gradient.tolist() == [[[1, 1, 1], [2, 2, 2]]]


def test_a_compact_and_a_full_share_are_added() -> None:
    """y = Σ_j x_ij + Σ_j x_ij², each summed by itself."""
    text = """g (double[2, 2] x) => (double[2, 1] y) <int64[1] axes = {1}>
    { a = ReduceSum(x, axes)\n s = Mul(x, x)\n b = ReduceSum(s, axes)\n y = Add(a, b) }"""
    assert gradients(text, ["x"], x=[[1, 2], [3, 4]], g_y=[[1], [10]]) == [[[3, 5], [70, 90]]]


def test_an_operator_without_a_gradient_stops_the_walk() -> None:
    """Of y = x · floor(x) only x itself is differentiated."""
    text = "g (double[2] x) => (double[2] y) { f = Floor(x)\n y = Mul(x, f) }"
    assert gradients(text, ["x"], x=[1.5, 2.5], g_y=[1, 1]) == [[1, 2]]


NO_PATH = {
    "floor": "g (float[2] x) => (float[2] y) { y = Floor(x) }",
    "beside": "g (float[2] x, float[2] z) => (float[2] y) { h = Exp(x)\n y = Exp(z) }",
    "integers": "g (float[2] x) => (float[2] y) { i = Cast <to = 7> (x)\n y = Cast <to = 1> (i) }",
    "shape": "g (float[2] x) => (float[1] y) { s = Shape(x)\n y = Cast <to = 1> (s) }",
    "condition": "g (float[2] x, float[2] z) => (float[2] y) { c = Greater(x, z)\n y = Where(c, z, z) }",
}


@pytest.mark.parametrize("text", NO_PATH.values(), ids=NO_PATH.keys())
def test_an_output_that_depends_on_no_value_is_an_error(text: str) -> None:
    with pytest.raises(NoGradientPath, match="'y' does not depend on 'x'") as caught:
        Graph(text).pull_back(["x"])
    assert (caught.value.outputs, caught.value.value) == (("y",), "x")
    assert "inspect" in caught.value.hint


def test_one_value_off_the_path_among_several_is_an_error() -> None:
    text = "g (float[2] x, float[2] z) => (float[2] y) { h = Exp(z)\n y = Exp(x) }"
    with pytest.raises(NoGradientPath, match="'y' does not depend on 'h'"):
        Graph(text).pull_back(["x", "h"])


def test_a_node_on_the_path_without_a_rule_is_named() -> None:
    text = 'g (float[2, 2] x) => (float y) { h = Relu(x)\n ["/head/Det"] y = Det(h) }'
    table = {key: rule for key, rule in RULES.items() if key[0] != "Det"}
    with pytest.raises(UnsupportedGradient, match="no VJP rule for Det, input 0") as caught:
        Graph(text).pull_back(["x"], table=table)
    assert "'/head/Det'" in caught.value.where


def test_another_table_changes_the_rules() -> None:
    """As guided backpropagation does: the same walk, another rule for Relu."""
    table = dict(RULES)
    del table["Relu", 0]

    @vjp("Relu", wrt=0, table=table)
    def deconvolution(op: Builder, g: Value, y: Value, x: Value) -> Value:
        return op.Relu(g)

    made = Graph("g (double[3] x) => (double[3] y) { r = Relu(x)\n y = Neg(r) }")
    found = made.pull_back(["x"], table=table)
    (gradient,) = made.run({"x": np.array([-1.0, 1, 1]), "g_y": np.array([-2.0, -3, 4])}, found)
    assert gradient.tolist() == [2, 3, 0]


def test_symbolic_batch() -> None:
    """The gradient of a mean over a batch that is known at run time only."""
    text = """g (double[N, 2] x) => (double y) { s = Mul(x, x)\n y = ReduceMean <keepdims = 0> (s) }"""
    made = Graph(text)
    found = made.pull_back(["x"])
    for n in (1, 3):
        x = np.arange(2.0 * n).reshape(n, 2)
        (gradient,) = made.run({"x": x, "g_y": np.array(2.0 * n)}, found)
        np.testing.assert_allclose(gradient, 2 * x, rtol=1e-15)


def test_a_value_that_a_body_captures_is_on_the_path() -> None:
    """A Loop reads x without naming it as an input: its share must not be dropped."""
    text = """g (float[2] x, float[2] s, int64 n) => (float[2] y) {
        z = Loop (n, , s) <body = b (int64 i, bool go, float[2] v) => (bool more, float[2] u)
            { more = Identity(go)\n u = Add(v, x) }>
        y = Add(x, z)
    }"""
    with pytest.raises(UnsupportedGradient, match="Loop, a value that its body captures"):
        Graph(text).pull_back(["x"])


LOWERED = {
    "RMSNormalization": "y = RMSNormalization(x, w)",
    "a value made of a constant": "c = Identity(w)\n e = Exp(c)\n y = RMSNormalization(x, e)",
    "NegativeLogLikelihoodLoss": "l = LogSoftmax(x)\n y = NegativeLogLikelihoodLoss(l, t, w)",
}


@pytest.mark.parametrize("name", LOWERED)
def test_a_constant_gets_the_gradient_of_an_input(name: str) -> None:
    """Operators that are written through others fold constants, but not those that are differentiated."""
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((2, 3)), "w": rng.uniform(0.5, 2, 3)}
    fed = {k: a.astype(np.float32) for k, a in arrays.items()} | {"t": np.array([2, 0])}
    shape = "" if "Loss" in name else "2, 3"
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 23]>
        g (float[2, 3] x, float[3] w, int64[2] t) => (float[{shape}] y) {{ {LOWERED[name]} }}"""
    )
    found = []
    for constants in ((), ("w", "t")):
        model = ir.from_proto(
            onnx.shape_inference.infer_shapes(with_initializers(proto, {k: fed[k] for k in constants}))
        )
        values, (y,) = ir.convenience.create_value_mapping(model.graph), model.graph.outputs
        seed, forward = ir.val("g", dtype=y.dtype, shape=y.shape), list(model.graph)
        model.graph.inputs.append(seed)
        (gradient,) = pull_back(Builder(model.graph), forward, {y: seed}, [values["w"]])
        model.graph.outputs.append(gradient)
        given = {k: a for k, a in fed.items() if k not in constants} | {"g": np.ones(y.shape.numpy(), np.float32)}
        found.append(run(model, given, [gradient.name])[gradient.name])
    assert np.abs(found[0]).max() > 1e-2
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def with_initializers(proto: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return a copy in which these inputs are initializers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for value in [v for v in proto.graph.input if v.name in arrays]:
        copy.graph.input.remove(value)
        copy.graph.initializer.append(numpy_helper.from_array(arrays[value.name], value.name))
    return copy
