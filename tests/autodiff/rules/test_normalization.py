from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.errors import UnsupportedGradient
from onnx_gradcam.graph.builder import Builder

RNG = np.random.default_rng(19)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 2, shape)


def batch(*shape: int, constants: bool = True, **attributes: Any) -> Case:
    c = shape[1]
    return Case(
        "BatchNormalization",
        [normal(*shape), normal(c), normal(c), normal(c), positive(c)],
        attributes,
        wrt=(0,) if constants else (0, 1, 2, 3, 4),
        constants=(1, 2, 3, 4) if constants else (),
        id=f"{shape}{'' if constants else '-run-time'}".replace(" ", ""),
    )


def layer(shape: tuple[int, ...], axis: int, bias: bool = True, opset: int = 18, **attributes: Any) -> Case:
    scale = shape[axis:]
    return Case(
        "LayerNormalization",
        [normal(*shape), normal(*scale), *([normal(*scale)] if bias else [])],
        {"axis": axis, **attributes},
        opset=opset,
        id=f"{shape}-{axis}{'' if bias else '-unbiased'}{'-'.join(['', *attributes])}".replace(" ", ""),
    )


def group(shape: tuple[int, ...], num_groups: int, opset: int, **attributes: Any) -> Case:
    size = num_groups if opset < 21 else shape[1]
    return Case(
        "GroupNormalization",
        [normal(*shape), normal(size), normal(size)],
        {"num_groups": num_groups, **attributes},
        opset=opset,
        id=f"{shape}-{num_groups}-opset{opset}".replace(" ", ""),
    )


def lrn(shape: tuple[int, ...], size: int, **attributes: float) -> Case:
    """With a large alpha, so that the neighbours count; ONNX Runtime has no even sizes, nor other ranks."""
    return Case(
        "LRN",
        [normal(*shape)],
        {"size": size, "alpha": 1.5, **attributes},
        id=f"{shape}-{size}{'-'.join(['', *attributes])}".replace(" ", ""),
        ort=size % 2 == 1 and len(shape) == 4,
    )


def instance(*shape: int, **attributes: float) -> Case:
    inputs = [normal(*shape), normal(shape[1]), normal(shape[1])]
    return Case("InstanceNormalization", inputs, attributes, wrt=(0, 1, 2), id=str(shape).replace(" ", ""))


CASES = [
    batch(3, 4),
    batch(2, 3, 5),
    batch(2, 3, 4, 5),
    batch(2, 3, 2, 2, 3, epsilon=0.25, momentum=0.5, training_mode=0),
    batch(2, 3, 4, 5, constants=False),
    batch(3, 4, constants=False, epsilon=0.25),
    layer((2, 3, 4), -1),
    layer((2, 3, 4), 2, bias=False),
    layer((2, 3, 4), 1),
    layer((2, 3, 4), -3, bias=False),
    layer((3, 5), -1, epsilon=0.5),
    layer((2, 3, 4), -1, opset=21, stash_type=1),
    layer((6,), 0),
    Case("LayerNormalization", [normal(2, 3, 4), normal(4), normal(4)], id="default"),
    instance(2, 3, 5),
    instance(2, 3, 4, 5),
    instance(1, 2, 2, 3, 2, epsilon=0.1),
    *[group((2, 6, 3, 2), n, opset) for n in (1, 2, 3, 6) for opset in (18, 21)],
    group((2, 4, 5), 2, 18, epsilon=0.1),
    group((2, 4, 5), 2, 21, epsilon=0.1, stash_type=1),
    *[
        Case(
            "LpNormalization",
            [RNG.uniform(0.2, 2, (2, 3, 4)) * RNG.choice([-1.0, 1.0], (2, 3, 4))],
            attributes,
            id=f"{attributes.get('p', 2)}-{attributes.get('axis', '')}",
        )
        for attributes in ({}, {"p": 1}, {"p": 2, "axis": 1}, {"p": 1, "axis": 0}, {"axis": -2})
    ],
    *[lrn((2, 7, 3, 2), size) for size in (1, 2, 3, 4, 5, 6, 7, 9, 13)],
    lrn((2, 5, 3), 3),
    lrn((1, 5, 2, 2, 2), 4),
    lrn((2, 4, 3, 3), 5, beta=0.5, bias=2.0),
    Case("LRN", [10 * normal(2, 6, 3, 3)], {"size": 5}, id="default"),
    Case("MeanVarianceNormalization", [normal(2, 3, 4, 5)], {"axes": [0, 2, 3]}),
    Case("MeanVarianceNormalization", [normal(3, 4, 5)], {"axes": [0, -1]}, id="axes"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", [c for c in CASES if c.ort and c.op_type != "MeanVarianceNormalization"], ids=str)
def test_float16(case: Case) -> None:
    """MeanVarianceNormalization has no valid float16 form: the constants of its function body are float32."""
    check_float16(case)


LARGE = [
    Case("LayerNormalization", [300 * normal(2, 8), positive(8), normal(8)]),
    Case("InstanceNormalization", [300 * normal(2, 3, 4, 4), positive(3), normal(3)]),
    Case("LRN", [300 * normal(1, 6, 2, 2)], {"size": 5, "alpha": 1e-4}),
    Case("LpNormalization", [300 * normal(2, 8)]),
]


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_squares_beyond_float16_do_not_overflow(case: Case) -> None:
    check_float16(case)


def twin(torch: Any, case: Case, x: Any, *more: Any) -> Any:
    """The same in torch; ONNX keeps attributes in float32."""
    f, a = torch.nn.functional, case.attributes
    epsilon = float(np.float32(a.get("epsilon", 1e-5)))
    match case.op_type:
        case "BatchNormalization":
            scale, bias, mean, variance = more
            return f.batch_norm(x, mean, variance, scale, bias, eps=epsilon)
        case "LayerNormalization":
            return f.layer_norm(x, more[0].shape, *more, eps=epsilon)
        case "InstanceNormalization":
            return f.instance_norm(x, weight=more[0], bias=more[1], eps=epsilon)
        case "GroupNormalization":
            scale, bias = (v.repeat_interleave(x.shape[1] // len(v)) for v in more)
            return f.group_norm(x, a["num_groups"], scale, bias, eps=epsilon)
        case "LpNormalization":
            return f.normalize(x, p=a.get("p", 2), dim=a.get("axis", -1))
        case _:
            alpha, beta = (float(np.float32(a.get(k, v))) for k, v in (("alpha", 1e-4), ("beta", 0.75)))
            return f.local_response_norm(x, a["size"], alpha, beta, a.get("bias", 1.0))


def has_twin(case: Case) -> bool:
    """For an even size torch's window leans the other way."""
    return case.op_type != "MeanVarianceNormalization" and case.attributes.get("size", 1) % 2 == 1


@pytest.mark.parametrize("case", [*filter(has_twin, CASES)], ids=str)
def test_torch(case: Case) -> None:
    known = replace(case, wrt=[i for i in case.wrt if i < 3])  # to torch the statistics are constants
    check_torch(known, lambda torch, *inputs: twin(torch, case, *inputs))


def test_batch_normalization_by_hand() -> None:
    """x̄ = g · s/√(v + ε) = g · 6/√(3 + 1)."""
    one = np.ones(1)
    case = Case("BatchNormalization", [np.zeros((1, 1, 2)), 6 * one, one, one, 3 * one], {"epsilon": 1.0})
    np.testing.assert_array_equal(pulled_back(case, np.array([[[1.0, -2.0]]]))[0], [[[3, -6]]])


def test_layer_normalization_of_a_constant_row() -> None:
    """The variance is 0 and x̂ too:  x̄ = (g − mean g) / √ε."""
    case = Case("LayerNormalization", [np.full((1, 4), 7.0), np.ones(4)], {"epsilon": 0.25})
    np.testing.assert_allclose(pulled_back(case, np.array([[4.0, 0, 0, 0]]))[0], [[6, -2, -2, -2]], rtol=1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_a_vector_of_zeros_gets_gradient_zero(p: int) -> None:
    case = Case("LpNormalization", [np.array([[0.0, 0.0], [3.0, 4.0]])], {"p": p})
    for dtype in ("float64", "float32", "float16"):
        (found,) = pulled_back(case, np.array([[1.0, 2.0], [1.0, 1.0]]), dtype=dtype)
        expected = [1 / 7 - 1 / 7, 0] if p == 1 else [(1 - 0.6 * 1.4) / 5, (1 - 0.8 * 1.4) / 5]
        np.testing.assert_allclose(found, [[0, 0], expected], atol=2e-3 if dtype == "float16" else 1e-7)


def test_lrn_of_an_even_size_leans_forward() -> None:
    """Size 2, k = 1, α = 2, β = 1: D_c = 1 + x_c² + x_c+1², so x₀ = 1 reaches y₀ only, x₁ = 2 both."""
    case = Case("LRN", [np.array([1.0, 2.0]).reshape(1, 2, 1, 1)], {"size": 2, "alpha": 2.0, "beta": 1.0})
    (found,) = pulled_back(case, np.ones((1, 2, 1, 1)), dtype="float64")
    expected = [1 / 6 - 2 * 1 / 36, 1 / 5 - 2 * 4 / 25 - 2 * 2 / 36]
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-12)


def differentiated(text: str) -> ir.Model:
    """The parsed model of inputs x and g (cotangent of its output), with the gradient of x as last output."""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    x, g = model.graph.inputs
    gradient = pull_back(Builder(model.graph), list(model.graph), {model.graph.outputs[0]: g}, [x])
    model.graph.outputs.extend(gradient)
    return model


def test_training_mode_is_refused() -> None:
    text = """<ir_version: 8, opset_import: ["": 18]>
    training (float[2, 3] x, float[2, 3] g) => (float[2, 3] y)
    <float[3] c = {1, 1, 1}> { y, m, v = BatchNormalization <training_mode = 1> (x, c, c, c, c) }"""
    with pytest.raises(UnsupportedGradient, match="training_mode=1 for BatchNormalization, input 0"):
        differentiated(text)


def test_batch_normalization_of_float16_with_statistics_in_float32() -> None:
    model = differentiated("""<ir_version: 8, opset_import: ["": 18]>
    half (float16[1, 2, 1, 1] x, float16[1, 2, 1, 1] g) => (float16[1, 2, 1, 1] y)
    <float[2] scale = {3, 6}, float[2] bias = {0, 0}, float[2] mean = {1, 1}, float[2] variance = {0, 3}>
    { y = BatchNormalization <epsilon = 1.0> (x, scale, bias, mean, variance) }""")
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    ones = np.ones((1, 2, 1, 1), np.float16)
    _, gradient = session.run(None, {"x": ones, "g": ones})
    assert gradient.dtype == np.float16
    np.testing.assert_array_equal(gradient.ravel(), [3, 3])
