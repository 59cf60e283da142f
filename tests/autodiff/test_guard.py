"""A cotangent that is exactly 0 stays 0 where the local derivative is infinite or not a number."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import run
from onnx import numpy_helper

from onnx_gradcam.autodiff import guard
from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.graph.builder import Builder

HEADER = '<ir_version: 8, opset_import: ["": 18]>\n'
CONSTANTS = (
    "<float[1] zero = {0}, float[1] one = {1}, float[1] half = {0.5}, float[1] third = {-0.25}, float[1] big = {100}, "
    "float[1] tiny = {1e-12}, int64[1] last = {-1}, float[1] low = {-50}>"
)


def gradient_model(text: str, opset: int = 18) -> ir.Model:
    """Return a parsed model of an input x and an output y, with the output ``grad``: that of ⟨g, y⟩."""
    proto = onnx.parser.parse_model(HEADER.replace("18", str(opset)) + text)
    for tensor in proto.graph.initializer:
        if tensor.name == "minus_infinity":  # which the text format cannot write
            tensor.CopyFrom(numpy_helper.from_array(np.float32(-np.inf), tensor.name))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    x, y = model.graph.inputs[0], model.graph.outputs[0]
    seed = ir.val("g", dtype=y.dtype, shape=y.shape)
    forward = list(model.graph)
    model.graph.inputs.append(seed)
    op = Builder(model.graph)
    (found,) = pull_back(op, forward, {y: seed}, [x])
    out = op.Identity(found)
    out.name = "grad"
    model.graph.outputs.append(out)
    return model


def gradient(text: str, x: np.ndarray, opset: int = 18) -> np.ndarray:
    """Return the gradient of Σ y, on ONNX Runtime."""
    model = gradient_model(text, opset)
    shape = [int(d) for d in model.graph.outputs[0].shape or ()]
    fed = {"x": x.astype(np.float32), "g": np.ones(shape, np.float32)}
    return run(model, fed, ["grad"])["grad"]


def operators(text: str) -> list[str]:
    """Return the operators of a model with its gradient."""
    return [n.op_type for n in gradient_model(text).graph]


def chosen(function: str, where: str = "Greater(x, zero)") -> str:
    """Return y = f(x) where a condition holds, else 0."""
    return f"g (float[4] x) => (float[4] y) {CONSTANTS} {{ {function}\n c = {where}\n y = Where(c, f, zero) }}"


X = np.array([-1.0, 0.0, 1.0, 4.0])
UNARY = {
    "sqrt": ("f = Sqrt(x)", [0, 0, 0.5, 0.25]),
    "log": ("f = Log(x)", [0, 0, 1, 0.25]),
    "reciprocal": ("f = Reciprocal(x)", [0, 0, -1, -1 / 16]),
    "divide-by": ("f = Div(one, x)", [0, 0, -1, -1 / 16]),
    "divide-both": ("s = Mul(x, x)\n f = Div(s, x)", [0, 0, 1, 1]),
    "power-below-one": ("f = Pow(x, half)", [0, 0, 0.5, 0.25]),
    "power-below-zero": ("f = Pow(x, third)", [0, 0, -0.25, -0.25 * 4**-1.25]),
    "exponent-of-what-may-be-zero": ("f = Pow(zero, x)", [0, 0, 0, 0]),
    "norm-written-out": (
        "s = Mul(x, x)\n u = Unsqueeze(s, last)\n r = ReduceSum(u, last)\n q = Sqrt(r)\n f = Reshape(q, four)",
        [0, 0, 1, 1],
    ),
    "log-sum": ("u = Unsqueeze(x, last)\n f = ReduceLogSum<keepdims = 0>(u, last)", [0, 0, 1, 0.25]),
    "infinity-times-zero": ("l = Log(x)\n f = Mul(x, l)", [0, 0, 1, 1 + math.log(4)]),
    "infinity-through-tanh": ("l = Reciprocal(x)\n f = Tanh(l)", [0, 0, -(1 - math.tanh(1) ** 2), None]),
}


@pytest.mark.parametrize("name", UNARY)
def test_below_a_where(name: str) -> None:
    """y = f(x) where x > 0, else 0: the derivative is f′(x), and 0 where x ≤ 0."""
    function, expected = UNARY[name]
    text = chosen(function).replace("int64[1] last", "int64[1] four = {4}, int64[1] last")
    known = [-(1 - math.tanh(0.25) ** 2) / 16 if e is None else e for e in expected]
    np.testing.assert_allclose(gradient(text, X), known, rtol=1e-5)


def test_an_exponential_that_overflows() -> None:
    """ELU written out: y = x where x > 0, else eˣ − 1, at x = 200."""
    text = chosen("e = Exp(x)\n f = Sub(e, one)").replace("Where(c, f, zero)", "Where(c, x, f)")
    np.testing.assert_allclose(gradient(text, np.array([-1.0, 0.0, 1.0, 200.0])), [math.exp(-1), 1, 1, 1], rtol=1e-6)


def test_a_sigmoid_written_out() -> None:
    """y = 1 / (1 + e⁻ˣ) at x = −200, where e⁻ˣ is infinite in float32: no Where, a factor of 0."""
    text = (
        f"g (float[4] x) => (float[4] y) {CONSTANTS} {{ m = Neg(x)\n e = Exp(m)\n d = Add(one, e)\n y = Div(one, d) }}"
    )
    s = 1 / (1 + np.exp(-np.array([-200.0, -1, 0, 3])))
    np.testing.assert_allclose(gradient(text, np.array([-200.0, -1, 0, 3])), s * (1 - s), atol=1e-7)


def test_a_mask_by_multiplication() -> None:
    """y = [x > 0] · √x."""
    text = chosen("f = Sqrt(x)", "Greater(x, zero)").replace(
        "y = Where(c, f, zero)", "m = Cast<to = 1>(c)\n y = Mul(m, f)"
    )
    np.testing.assert_allclose(gradient(text, np.abs(X) * (X >= 0)), [0, 0, 0.5, 0.25])


def test_a_bound_hides_the_logarithm_of_zero() -> None:
    """y = max(ln x, −50) at x = 0, as losses and entropies have it."""
    text = f"g (float[4] x) => (float[4] y) {CONSTANTS} {{ l = Log(x)\n y = Max(l, low) }}"
    np.testing.assert_allclose(gradient(text, np.abs(X) * (X > 0)), [0, 0, 1, 0.25])


def test_a_divisor_that_broadcasts() -> None:
    """y = x / s where s > 0, else 0, s the sum of a row: rows of zeros have the gradient 0."""
    text = f"""g (float[2, 3] x) => (float[2, 3] y) {CONSTANTS}
    {{ s = ReduceSum(x, last)\n q = Div(x, s)\n c = Greater(s, zero)\n p = Mul(q, q)\n y = Where(c, p, zero) }}"""
    x = np.array([[0.0, 0, 0], [1, 2, 5]])
    found = gradient(text, x)
    p, s = x[1] / 8, 8.0
    np.testing.assert_allclose(found[0], 0)
    np.testing.assert_allclose(found[1], (2 * p - 2 * (p * p).sum()) / s, rtol=1e-5)


def test_one_operand_needs_no_rank() -> None:
    """y = √Σ x² over axes that are known in the run only: shape inference finds no rank."""
    text = """g (float[2, 2] x, int64[A] axes) => (float[B] y)
    { q = Mul(x, x)\n s = ReduceSum <keepdims = 0> (q, axes)\n y = Sqrt(s) }"""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(HEADER + text)))
    x, y = model.graph.inputs[0], model.graph.outputs[0]
    y.shape = None
    seed = ir.val("g", dtype=y.dtype, shape=["B"])
    forward = list(model.graph)
    model.graph.inputs.append(seed)
    (found,) = pull_back(Builder(model.graph), forward, {y: seed}, [x])
    model.graph.outputs.append(found)
    fed = {"x": np.array([[3, 4], [0, 0]], np.float32), "axes": np.array([1]), "g": np.array([1, 0], np.float32)}
    np.testing.assert_allclose(run(model, fed, [found.name or ""])[found.name], [[0.6, 0.8], [0, 0]], rtol=1e-6)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_a_row_of_minus_infinities_in_a_softmax() -> None:
    """Attention as exporters write it: masked by Where, and 0 put where a whole row is masked; then times values."""
    text = """g (float[3, 3] x) => (float[3, 3] y)
    <float minus_infinity = {0}, float zero = {0}, bool[3, 3] keep = {1,1,0, 0,0,0, 1,1,1}>
    { m = Where(keep, x, minus_infinity)\n p = Softmax(m)\n n = IsNaN(p)\n s = Where(n, zero, p)\n y = MatMul(s, x) }"""
    x = np.array([[1.0, 2, 3], [0, 1, -1], [2, -1, 1]])
    keep = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 1]], bool)

    def f(x: np.ndarray) -> float:
        with np.errstate(invalid="ignore"):
            p = np.nan_to_num(softmax(np.where(keep, x, -np.inf)))
        return float((p @ x).sum())

    np.testing.assert_allclose(gradient(text, x), differences(f, x), atol=1e-5)


def test_a_row_that_is_dropped_after_the_values() -> None:
    """The same with the Where behind the product: rows that are not numbers may not spoil the others."""
    text = """g (float[3, 3] x) => (float[3, 3] y)
    <float minus_infinity = {0}, float zero = {0}, bool[3, 3] keep = {1,1,0, 0,0,0, 1,1,1},
     bool[3, 1] live = {1, 0, 1}>
    { m = Where(keep, x, minus_infinity)\n p = Softmax(m)\n t = MatMul(p, x)\n y = Where(live, t, zero) }"""
    x = np.array([[1.0, 2, 3], [0, 1, -1], [2, -1, 1]])
    keep = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 1]], bool)

    def f(x: np.ndarray) -> float:
        return float((softmax(np.where(keep, x, -np.inf)[[0, 2]]) @ x).sum())

    np.testing.assert_allclose(gradient(text, x), differences(f, x), atol=1e-5)


@pytest.mark.parametrize("op_type", ["LogSoftmax", "ReduceLogSumExp"])
def test_logarithms_of_rows_of_minus_infinities(op_type: str) -> None:
    inner = "l = LogSoftmax(m)" if op_type == "LogSoftmax" else "l = ReduceLogSumExp(m, last)"
    text = f"""g (float[3, 3] x) => (float[3, 3] y)
    <float minus_infinity = {{0}}, float zero = {{0}}, bool[3, 3] keep = {{1,1,1, 0,0,0, 1,0,1}},
     int64[1] last = {{-1}}>
    {{ m = Where(keep, x, minus_infinity)\n {inner}\n f = Mul(l, x)\n y = Where(keep, f, zero) }}"""
    x = np.array([[1.0, 2, 3], [0, 1, -1], [2, -1, 1]])
    keep = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 1]], bool)

    def f(x: np.ndarray) -> float:
        total = 0.0
        for row, kept in zip(x[[0, 2]], keep[[0, 2]], strict=True):
            z = row[kept]
            norm = np.log(np.exp(z).sum())
            total += float((((z - norm) if op_type == "LogSoftmax" else norm) * z).sum())
        return total

    np.testing.assert_allclose(gradient(text, x), differences(f, x), atol=1e-5)


def test_a_constant_row_in_a_layer_normalization_without_epsilon() -> None:
    text = """g (float[2, 3] x) => (float[2, 3] y) <float[3] s = {1, 2, 3}, bool[2, 1] live = {0, 1}, float zero = {0}>
    { n = LayerNormalization<epsilon = 0.0>(x, s)\n y = Where(live, n, zero) }"""
    x = np.array([[1.0, 1, 1], [0, 1, 5]])

    def f(x: np.ndarray) -> float:
        row = x[1]
        return float(((row - row.mean()) / row.std() * [1, 2, 3]).sum())

    np.testing.assert_allclose(gradient(text, x), differences(f, x), atol=1e-5)


@pytest.mark.parametrize("op_type", ["LpNormalization", "ReduceL2"])
def test_a_norm_at_zero(op_type: str) -> None:
    inner = "n = LpNormalization(x)" if op_type == "LpNormalization" else "r = ReduceL2(x, last)\n n = Div(x, r)"
    text = f"""g (float[2, 3] x) => (float[2, 3] y)
    <int64[1] last = {{-1}}, bool[2, 1] live = {{0, 1}}, float zero = {{0}}, float[3] w = {{1, 2, 3}}>
    {{ {inner}\n v = Mul(n, w)\n y = Where(live, v, zero) }}"""
    x = np.array([[0.0, 0, 0], [0, 1, 5]])

    def f(x: np.ndarray) -> float:
        return float((x[1] / np.linalg.norm(x[1]) * [1, 2, 3]).sum())

    np.testing.assert_allclose(gradient(text, x), differences(f, x), atol=1e-5)


def test_an_rms_normalization_without_epsilon() -> None:
    """Its function body is a square root and a quotient."""
    text = """g (float[2, 3] x) => (float[2, 3] y) <float[3] s = {1, 2, 3}, bool[2, 1] live = {0, 1}, float zero = {0}>
    { n = RMSNormalization<epsilon = 0.0>(x, s)\n y = Where(live, n, zero) }"""
    x = np.array([[0.0, 0, 0], [0, 1, 5]])

    def f(x: np.ndarray) -> float:
        return float((x[1] / np.sqrt((x[1] ** 2).mean()) * [1, 2, 3]).sum())

    np.testing.assert_allclose(gradient(text, x, opset=23), differences(f, x), atol=1e-5)


def differences(f: Callable[[np.ndarray], float], x: np.ndarray, h: float = 1e-6) -> np.ndarray:
    """Return the gradient of f at x by central differences in float64."""
    found = np.zeros_like(x)
    for k in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[k] = h
        found[k] = (f(x + step) - f(x - step)) / (2 * h)
    return found


HARMLESS = {
    "a variance": "s = Mul(x, x)\n m = ReduceMean(s, last)\n a = Add(m, tiny)\n r = Sqrt(a)\n f = Div(x, r)",
    "a clipped norm": "n = ReduceL2(x, last)\n a = Clip(n, tiny)\n f = Div(x, a)",
    "a norm with a floor": "n = ReduceL2(x, last)\n a = Max(n, tiny)\n f = Div(x, a)",
    "a generalised mean": "a = Clip(x, tiny)\n p = Pow(a, two)\n m = ReduceMean(p, last)\n f = Pow(m, half)",
    "a shifted exponential": "m = ReduceMax(x, last)\n s = Sub(x, m)\n f = Exp(s)",
    "a sigmoid": "s = Sigmoid(x)\n f = Mul(s, x)",
    "a constant divisor": "f = Div(x, big)",
    "a square": "f = Pow(x, two)",
    "a softmax": "f = Softmax(x)",
    "a logarithm of a positive number": "a = Abs(x)\n b = Add(a, one)\n f = Log(b)",
    "an exponential with a bound": "a = Clip(x, zero, one)\n f = Exp(a)",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_nothing_is_written_where_the_derivative_is_finite(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Conv makes finite numbers of an image; what follows is as networks write it."""
    constants = CONSTANTS.replace("float[1] zero", "float[1] two = {2}, float[1, 1, 1] w = {1}, float[1] zero")
    text = f"""g (float[1, 1, 4] image) => (float[1, 1, 4] y) {constants}
    {{ x = Conv(image, w)\n {HARMLESS[name]}\n v = Mul(x, f)\n c = Greater(x, zero)\n y = Where(c, v, zero) }}"""
    found = operators(text)
    monkeypatch.setattr(guard, "is_singular", lambda node, i: False)
    monkeypatch.setattr(guard, "repair", lambda op, node, value: value)
    assert found == operators(text)


@pytest.mark.parametrize("low", ["minus_infinity", "lowest"])
def test_masks_of_several_layers_cost_nothing(low: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Causal attention twice: the second mask does not put anything in the place of what the first softmax gives."""
    layers = [
        f"q{k} = MatMul(x{k}, w)\n m{k} = Where(keep, q{k}, {low})\n p{k} = Softmax(m{k})\n"
        f"v{k} = MatMul(p{k}, x{k})\n x{k + 1} = Mul(v{k}, x{k})\n"
        for k in range(2)
    ]
    text = f"""g (float[3, 3] x) => (float[3, 3] y)
    <float minus_infinity = {{0}}, float lowest = {{-3.4e38}}, bool[3, 3] keep = {{1,0,0, 1,1,0, 1,1,1}},
     float[3, 3] w = {{1,2,3, 4,5,6, 7,8,9}}>
    {{ x0 = Relu(x)\n {"".join(layers)} y = Identity(x2) }}"""
    found = operators(text)
    monkeypatch.setattr(guard, "is_singular", lambda node, i: False)
    monkeypatch.setattr(guard, "repair", lambda op, node, value: value)
    assert found == operators(text)


def test_a_branch_that_is_not_taken() -> None:
    """y = c ? softmax(m) · x : x², where every element of m is minus infinity."""
    text = """g (float[2, 2] x) => (float[2, 2] y) <float minus_infinity = {0}, float zero = {0}, bool[1] none = {0}>
    { s = ReduceSum<keepdims = 0>(x)\n b = Greater(s, zero)\n k = And(b, none)\n m = Where(k, x, minus_infinity)
      p = Softmax(m)\n v = MatMul(p, x)
      y = If(k) <then_branch = a () => (float[2, 2] t) { t = Identity(v) },
                 else_branch = e () => (float[2, 2] q) { q = Mul(x, x) }> }"""
    x = np.array([[1.0, 2], [-1, 0.5]])
    np.testing.assert_allclose(
        gradient(text.replace("If(k)", "If(c)").replace("m = Where", "c = Squeeze(k)\n m = Where"), x), 2 * x
    )


def test_what_is_written_costs_two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = operators(chosen("f = Sqrt(x)"))
    monkeypatch.setattr(guard, "is_singular", lambda node, i: False)
    assert sorted(found) == sorted([*operators(chosen("f = Sqrt(x)")), "Equal", "Where"])
