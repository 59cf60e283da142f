from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back

from onnx_gradcam.errors import UnsupportedGradient

RNG = np.random.default_rng(11)
SHAPE = (2, 3, 4)
KINKS = np.array([-3.0, 0.0, 1.0, 3.0])  # of all functions here


def x(*shape: int) -> np.ndarray:
    """On both sides of every kink, and nowhere near one."""
    values = RNG.uniform(-5, 5, shape or SHAPE)
    near = KINKS[np.abs(values[..., None] - KINKS).argmin(-1)]
    return np.where(np.abs(values - near) < 0.05, near + 0.1, values)


def scalar(value: float) -> np.ndarray:
    return np.array(value, float)


SLOPES = [(2, 3, 4), (3, 1), (1,), (4,), (1, 3, 1), ()]
CASES = [
    Case("Relu", [x()]),
    Case("LeakyRelu", [x()]),
    Case("LeakyRelu", [x()], {"alpha": 0.0}, id="flat"),
    Case("LeakyRelu", [x()], {"alpha": 1.0}, id="straight"),
    Case("LeakyRelu", [x()], {"alpha": 2.5}, id="steep"),
    Case("LeakyRelu", [x()], {"alpha": -0.5}, id="negative"),
    *[Case("PRelu", [x(), RNG.standard_normal(s)], wrt=(0, 1), id=str(s).replace(" ", "")) for s in SLOPES],
    Case("ThresholdedRelu", [x()]),
    Case("ThresholdedRelu", [x()], {"alpha": 3.0}, id="3"),
    Case("ThresholdedRelu", [x()], {"alpha": -3.0}, id="-3"),
    Case("Clip", [x()], id="open"),
    Case("Clip", [x(), scalar(-3)], id="min"),
    Case("Clip", [x(), None, scalar(1)], id="max"),
    Case("Clip", [x(), scalar(0), scalar(3)], id="both"),
    Case("Clip", [x(), scalar(0), scalar(3)], constants=(1, 2), id="constants"),
    Case("Clip", [x(), scalar(3), scalar(0)], id="crossed"),
    Case("Sigmoid", [x()]),
    Case("HardSigmoid", [x() / 1.2]),
    Case("HardSigmoid", [x()], {"alpha": 1 / 6, "beta": 0.5}, id="torch"),
    Case("Tanh", [x()]),
    Case("HardSwish", [x()]),
    Case("Softplus", [x()]),
    Case("Softsign", [x()]),
    Case("Elu", [x()]),
    Case("Elu", [x()], {"alpha": 0.3}, id="0.3"),
    Case("Elu", [x()], {"alpha": -0.7}, id="-0.7"),
    Case("Selu", [x()]),
    Case("Selu", [x()], {"alpha": 1.1, "gamma": 2.0}, id="attributes"),
    Case("Celu", [x()]),
    Case("Celu", [x()], {"alpha": 2.0}, id="2"),
    Case("Mish", [x()]),
    Case("Gelu", [x()], opset=20),
    Case("Gelu", [x()], {"approximate": "none"}, opset=21, id="none"),
    Case("Gelu", [x()], {"approximate": "tanh"}, opset=20, id="tanh"),
    *[Case("Softmax", [x()], {"axis": a}, id=str(a)) for a in (0, 1, 2, -1, -3)],
    Case("Softmax", [x()], id="default"),
    Case("Softmax", [x(5)], id="vector"),
    *[Case("LogSoftmax", [x()], {"axis": a}, id=str(a)) for a in (0, 1, -1)],
    Case("LogSoftmax", [x()], id="default"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", [c for c in CASES if c.op_type != "Celu"], ids=str)
def test_float16(case: Case) -> None:
    """Celu has no float16 in these opsets."""
    check_float16(case)


def test_the_tanh_form_of_gelu_does_not_overflow_float16() -> None:
    at = np.array([-3000.0, -300, -41, -3, 3, 41, 300, 3000])
    check_float16(Case("Gelu", [at], {"approximate": "tanh"}, opset=20))


def twin(torch: Any, case: Case, *inputs: Any) -> Any:
    """The same in torch; ONNX keeps attributes in float32."""
    f = torch.nn.functional
    a = {k: v if isinstance(v, str | int) else float(np.float32(v)) for k, v in case.attributes.items()}
    match case.op_type:
        case "LeakyRelu":
            return f.leaky_relu(inputs[0], a.get("alpha", float(np.float32(0.01))))
        case "PRelu":
            return torch.where(inputs[0] > 0, inputs[0], inputs[0] * inputs[1])
        case "ThresholdedRelu":
            return f.threshold(inputs[0], a.get("alpha", 1.0), 0.0)
        case "Clip":
            low, high = (None if v is None else v.item() for v in (*inputs[1:], None, None)[:2])
            return inputs[0] if low is high is None else torch.clamp(inputs[0], low, high)
        case "Elu" | "Celu":
            return getattr(f, case.op_type.lower())(inputs[0], a.get("alpha", 1.0))
        case "Selu":
            alpha, gamma = (float(np.float32(v)) for v in (1.6732631921768188, 1.0507010221481323))
            return a.get("gamma", gamma) * f.elu(inputs[0], a.get("alpha", alpha))
        case "Gelu":
            return f.gelu(inputs[0], approximate=a.get("approximate", "none"))
        case "Softmax" | "LogSoftmax":
            return (f.softmax if case.op_type == "Softmax" else f.log_softmax)(inputs[0], a.get("axis", -1))
        case "HardSigmoid":
            return f.hardsigmoid(inputs[0])
        case _:
            return getattr(f, case.op_type.lower())(inputs[0])


def has_twin(case: Case) -> bool:
    if case.op_type == "HardSigmoid":
        return "alpha" in case.attributes
    return case.attributes.get("alpha", 1.0) > 0


def grid() -> np.ndarray:
    """Every kink, exactly, and both its sides."""
    return np.sort(np.concatenate([KINKS, -KINKS, KINKS + 0.25, KINKS - 0.25, [-40.0, 40.0]]))


AT_KINKS = [
    Case("Relu", [grid()]),
    Case("LeakyRelu", [grid()], {"alpha": 0.3}),
    Case("PRelu", [grid(), RNG.standard_normal(1)], wrt=(0, 1)),
    Case("ThresholdedRelu", [grid()]),
    Case("Clip", [grid(), scalar(0), scalar(3)]),
    Case("HardSigmoid", [grid()], {"alpha": 1 / 6, "beta": 0.5}),
    Case("HardSwish", [grid()]),
    Case("Softsign", [grid()]),
    Case("Softplus", [grid()]),
    Case("Elu", [grid()], {"alpha": 0.3}),
    Case("Selu", [grid()]),
    Case("Celu", [grid()], {"alpha": 2.0}),
    Case("Mish", [grid()]),
    Case("Gelu", [grid()], opset=20),
    Case("Gelu", [grid()], {"approximate": "tanh"}, opset=20),
]


@pytest.mark.parametrize("case", [*filter(has_twin, CASES), *AT_KINKS], ids=str)
def test_torch(case: Case) -> None:
    check_torch(case, lambda torch, *inputs: twin(torch, case, *inputs))


SIXTH = {"alpha": 1 / 6, "beta": 0.5}
EXACT = [
    ("Relu", {}, [-1, -0.0, 0, 1e-7, 2], [0, 0, 0, 1, 1]),
    ("LeakyRelu", {"alpha": 0.25}, [-2, 0, 2], [0.25, 0.25, 1]),
    ("LeakyRelu", {"alpha": -0.5}, [-2, 0, 2], [-0.5, -0.5, 1]),
    ("LeakyRelu", {"alpha": 2.0}, [-2, 0, 2], [2, 2, 1]),
    ("ThresholdedRelu", {"alpha": 1.0}, [0.5, 1, 1.001, 2], [0, 0, 1, 1]),
    ("ThresholdedRelu", {"alpha": -1.0}, [-2, -1, -0.5, 0, 2], [0, 0, 1, 1, 1]),
    ("HardSigmoid", SIXTH, [-4, -3, 3, 4], [0, 0, 0, 0]),
    ("HardSigmoid", {"alpha": 0.25}, [-2, 0, 1, 2], [0, 0.25, 0.25, 0]),
    ("HardSwish", {}, [-300, -4, -3, 0, 3, 4, 300], [0, 0, 0, 0.5, 1, 1, 1]),
    ("Elu", {}, [-500, 0, 1, 500], [0, 1, 1, 1]),
    ("Elu", {"alpha": 0.25}, [-500, 0, 1], [0, 0.25, 1]),
    ("Celu", {"alpha": 2.0}, [-500, 0, 1], [0, 1, 1]),
    ("Mish", {}, [-500, 0, 500], [0, 0.6, 1]),
    ("Gelu", {}, [-500, 0, 500], [0, 0.5, 1]),
    ("Gelu", {"approximate": "tanh"}, [-500, 0, 500], [0, 0.5, 1]),
    ("Softplus", {}, [-500, 0, 500], [0, 0.5, 1]),
    ("Softsign", {}, [-1, 0, 1], [0.25, 1, 0.25]),
]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize(("op_type", "attributes", "inputs", "expected"), EXACT)
def test_exact(
    op_type: str, attributes: dict[str, Any], inputs: list[float], expected: list[float], dtype: str
) -> None:
    if op_type == "Celu" and dtype == "float16":
        dtype = "float32"
    case = Case(op_type, [np.array(inputs, float)], attributes, opset=20)
    (found,) = pulled_back(case, np.ones(len(inputs)), dtype=dtype)
    np.testing.assert_allclose(found, np.array(expected, found.dtype), rtol=0, atol=1e-30)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_clip_passes_the_gradient_at_its_bounds(dtype: str) -> None:
    at = np.array([-1.0, 0, 3, 6, 7])
    cases = [
        (scalar(0), scalar(6), [0, 1, 1, 1, 0]),
        (scalar(0), None, [0, 1, 1, 1, 1]),
        (None, scalar(6), [1, 1, 1, 1, 0]),
    ]
    for low, high, expected in cases:
        (found,) = pulled_back(Case("Clip", [at, low, high]), np.ones(5), dtype=dtype)
        np.testing.assert_array_equal(found, expected)


def test_hard_swish_next_to_its_kinks_in_float32() -> None:
    below, above = np.nextafter(np.float32(3), np.float32(0)), np.nextafter(np.float32(3), np.float32(9))
    at = np.array([-above, -below, below, above], np.float64)
    (found,) = pulled_back(Case("HardSwish", [at]), np.ones(4))
    np.testing.assert_allclose(found, [0, -0.5, 1.5, 1], atol=1e-6)


def test_relu_gates_by_the_smallest_normal_number() -> None:
    at = np.array([np.finfo(np.float32).tiny, -np.finfo(np.float32).tiny, 3e38, -3e38])
    (found,) = pulled_back(Case("Relu", [at]), np.full(4, 2.0))
    np.testing.assert_array_equal(found, [2, 0, 2, 0])


def test_an_unknown_approximation_is_refused() -> None:
    case = Case("Gelu", [x()], {"approximate": "sigmoid"}, opset=20)
    with pytest.raises(UnsupportedGradient, match="approximate='sigmoid' for Gelu, input 0"):
        pulled_back(case, x())
