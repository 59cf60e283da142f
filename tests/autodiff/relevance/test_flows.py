"""Relevance through activations, products, normalisations and number formats, against shares worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnx_gradcam.autodiff.relevance.settings import RelevanceSettings
from onnx_gradcam.autodiff.relevance.table import relevance_rules
from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.errors import NoGradientPath
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.prepare.prepare import prepare

HEADER = '<ir_version: 10, opset_import: ["": 20]>\n'
X = np.array([[-2.0, -0.5, 1.0, 3.0]])
R = np.array([[1.0, 2.0, -1.0, 4.0]])


def shares(text: str, feeds: Mapping[str, np.ndarray], *wrt: str, r: np.ndarray = R) -> list[np.ndarray]:
    """The relevance of values of a model, where that of its output y is ``r``."""
    model = prepare(ir.from_proto(onnx.parser.parse_model(HEADER + text)))
    graph, nodes = model.graph, list(model.graph)
    values = ir.convenience.create_value_mapping(graph)
    g = ir.val("g", dtype=values["y"].dtype, shape=values["y"].shape)
    graph.outputs.extend(values[name] for name in wrt if name not in feeds)
    forward = ReferenceEvaluator(ir.to_proto(model))
    found = {**feeds, **dict(zip(forward.output_names, forward.run(None, dict(feeds)), strict=True))}
    graph.inputs.append(g)
    rules = relevance_rules(RelevanceSettings("", "epsilon", "epsilon", epsilon=0))(nodes)
    cotangents = pull_back(Builder(graph), nodes, {values["y"]: g}, [values[name] for name in wrt], rules)
    graph.outputs[:] = cotangents
    y = found["y"]
    fed = {**feeds, "g": (r / np.where(y == 0, 1, y)).astype(y.dtype)}
    arrays = ReferenceEvaluator(ir.to_proto(model)).run([v.name for v in cotangents], fed)
    return [found[name] * array for name, array in zip(wrt, arrays, strict=True)]


@pytest.mark.parametrize(
    "body",
    [
        "y = Sigmoid(x)",
        "y = Tanh(x)",
        "y = Gelu(x)",
        "y = HardSwish(x)",
        "y = Softplus(x)",
        "y = Clip(x)",
        "s = Sigmoid(x)\n y = Mul(x, s)",
        "y = Mul(x, x)",
        "y = Neg(x)",
        "y = Abs(x)",
        "c = Constant <value_float = 2.0>()\n d = CastLike(c, x)\n y = Div(x, d)",
        "c = Constant <value_float = 2.0>()\n d = CastLike(c, x)\n y = Div(d, x)",
    ],
)
def test_an_activation_passes_on_what_it_is_given(body: str) -> None:
    (found,) = shares(f"m (double[1, 4] x) => (double[1, 4] y) {{ {body} }}", {"x": X}, "x")
    np.testing.assert_allclose(found, R, rtol=5e-6)


def test_local_response_normalisation_is_an_activation() -> None:
    (found,) = shares(
        "m (double[1, 4, 1, 1] x) => (double[1, 4, 1, 1] y) { y = LRN <size = 3>(x) }",
        {"x": X.reshape(1, 4, 1, 1)},
        "x",
        r=R.reshape(1, 4, 1, 1),
    )
    np.testing.assert_allclose(found.ravel(), R.ravel(), rtol=5e-6)


@pytest.mark.parametrize(
    ("body", "of_a", "of_b"),
    [
        ("y = Mul(a, b)", 0.5, 0.5),
        ("s = Sigmoid(b)\n y = Mul(a, s)", 1, 0),
        ("s = HardSigmoid(b)\n t = Reshape(s, shape)\n y = Mul(t, a)", 1, 0),
        (
            "three = Constant <value_float = 3.0>()\n six = Constant <value_float = 6.0>()\n u = CastLike(three, b)\n"
            "v = CastLike(six, b)\n zero = Sub(u, u)\n p = Add(b, u)\n c = Clip(p, zero, v)\n s = Div(c, v)\n"
            "y = Mul(s, a)",
            1,
            0,
        ),
        ("s = Reciprocal(b)\n y = Mul(a, s)", 1, 0),
        ("y = Div(a, b)", 1, 0),
        ("s = Sigmoid(a)\n t = Sigmoid(b)\n y = Mul(s, t)", 0.5, 0.5),
    ],
)
def test_products(body: str, of_a: float, of_b: float) -> None:
    """A gate, and a divisor, get nothing; else each of two values gets half."""
    text = f"m (double[1, 4] a, double[1, 4] b) => (double[1, 4] y) <int64[2] shape = {{1, 4}}> {{ {body} }}"
    feeds = {"a": X, "b": np.array([[0.5, -1, 2, 1]])}
    names = ["a", "b"] if of_b else ["a"]
    for found, share in zip(shares(text, feeds, *names), (of_a, of_b), strict=False):
        np.testing.assert_allclose(found, share * R, rtol=5e-6)
    if not of_b:
        with pytest.raises(NoGradientPath, match="'b'"):
            shares(text, feeds, "b")


def test_a_sum_shares_by_what_each_adds() -> None:
    a, b = X, np.array([[0.5, -1, 2, 1]])
    found = shares(
        "m (double[1, 4] a, double[1, 4] b) => (double[1, 4] y) { y = Add(a, b) }", {"a": a, "b": b}, "a", "b"
    )
    np.testing.assert_allclose(found, [a / (a + b) * R, b / (a + b) * R])


def test_attention_shares_between_weights_and_values() -> None:
    """Half for the values, by what each adds; half for the weights, by the softmax's gradient times its input."""
    text = "m (double[1, 3] a, double[3, 4] v) => (double[1, 4] y) { s = Softmax(a)\n y = MatMul(s, v) }"
    a, v = np.array([[0.3, -1.0, 2.0]]), np.random.default_rng(0).standard_normal((3, 4))
    of_a, of_v, of_s = shares(text, {"a": a, "v": v}, "a", "v", "s")
    weights = np.exp(a) / np.exp(a).sum()
    parts = weights.T * v
    np.testing.assert_allclose(of_v, parts / parts.sum(0) * R / 2)
    np.testing.assert_allclose(of_s, (parts / parts.sum(0) * R).sum(1)[None] / 2)
    np.testing.assert_allclose(of_a, a * (of_s - weights * of_s.sum()))


NORMALISED = (X - X.mean()) / np.sqrt(X.var() + 1e-5)


@pytest.mark.parametrize(
    "body",
    [
        "y = LayerNormalization(x, scale, bias)",
        "axes = Constant <value_ints = [-1]>()\n m = ReduceMean(x, axes)\n d = Sub(x, m)\n q = Mul(d, d)\n"
        "v = ReduceMean(q, axes)\n w = Add(v, tiny)\n r = Sqrt(w)\n n = Div(d, r)\n k = Mul(n, scale)\n"
        "y = Add(k, bias)",
    ],
)
def test_what_a_normalisation_divides_by_is_a_constant(body: str) -> None:
    text = f"""m (double[1, 4] x) => (double[1, 4] y)
        <double[4] scale = {{1.0, 2.0, -1.0, 0.5}}, double[4] bias = {{0.5, 0.0, 0.0, 1.0}}, double tiny = {{0.00001}}>
        {{ {body} }}"""
    (found,) = shares(text, {"x": X}, "x")
    scale, bias = np.array([1.0, 2, -1, 0.5]), np.array([0.5, 0, 0, 1])
    s = R / (NORMALISED * scale + bias) * scale / np.sqrt(X.var() + 1e-5)
    np.testing.assert_allclose(found, X * (s - s.mean()), rtol=1e-5)


def test_instance_normalisation() -> None:
    text = """m (double[1, 1, 4] x) => (double[1, 1, 4] y) <double[1] scale = {2.0}, double[1] bias = {0.25}>
        { y = InstanceNormalization(x, scale, bias) }"""
    (found,) = shares(text, {"x": X[None]}, "x", r=R[None])
    s = R / (NORMALISED * 2 + 0.25) * 2 / np.sqrt(X.var() + 1e-5)
    np.testing.assert_allclose(found[0], X * (s - s.mean()), rtol=1e-5)


def test_a_number_format_passes_on_all_but_what_it_cut_off_at_zero() -> None:
    """Quantized to 0 … 255 of ½ with zero point 0: −2 and −0.5 become 0, 200 becomes 127.5."""
    text = """m (float[1, 4] x) => (float[1, 4] y) <float s = {0.5}, uint8 z = {0}>
        { q = QuantizeLinear(x, s, z)\n y = DequantizeLinear(q, s, z) }"""
    x = np.array([[-2.0, -0.5, 1.0, 200.0]], np.float32)
    (found,) = shares(text, {"x": x}, "x")
    np.testing.assert_allclose(found, [[0, 0, -1.0, 4.0 * 200 / 127.5]], rtol=1e-6)
