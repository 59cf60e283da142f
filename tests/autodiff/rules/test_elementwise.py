from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back

from onnx_gradcam.errors import UnsupportedGradient

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.4, 2.5, shape)


def signed(*shape: int) -> np.ndarray:
    """Away from 0, where some of these functions have a kink or a pole."""
    return positive(*shape) * RNG.choice([-1.0, 1.0], shape)


def distinct(*shape: int) -> np.ndarray:
    """All different by at least 0.1, so that no maximum changes hands within a step."""
    return 0.1 * RNG.permutation(int(np.prod(shape))).reshape(shape)


PAIRS = [
    ((2, 3, 4), (2, 3, 4)),
    ((2, 3, 4), (4,)),
    ((2, 3, 4), (3, 1)),
    ((2, 3, 4), (1, 3, 1)),
    ((2, 3, 4), (2, 1, 1)),
    ((2, 3, 4), ()),
    ((3, 4), (2, 3, 4)),
    ((1,), (2, 3)),
    ((), (3,)),
    ((2, 1, 4), (1, 3, 1)),
    ((4, 1), (2, 1, 3)),
    ((1, 1), (1, 1)),
    ((), ()),
]


def binary(op_type: str, draw: Callable[..., np.ndarray] = normal, second: Any = None) -> list[Case]:
    return [
        Case(op_type, [draw(*a), (second or draw)(*b)], wrt=(0, 1), id=f"{a}-{b}".replace(" ", "")) for a, b in PAIRS
    ]


TRIPLES = [
    ((2, 3, 4), (3, 4), (4,)),
    ((3, 1), (2, 1, 1), (4,)),
    ((), (2, 3), (1, 3)),
    ((3,), (3,), (3,)),
]


def variadic(op_type: str) -> list[Case]:
    cases = [Case(op_type, [distinct(2, 3)], id="one")]
    for shapes in TRIPLES:
        values = np.split(
            distinct(sum(int(np.prod(s)) for s in shapes)),
            np.cumsum([np.prod(s) for s in shapes]).astype(int)[:-1],
        )
        arrays = [v.reshape(s) for v, s in zip(values, shapes, strict=True)]
        cases.append(Case(op_type, arrays, wrt=(0, 1, 2), id=str(shapes).replace(" ", "")))
    return cases


def masks() -> list[Case]:
    shapes = [
        ((2, 3), (2, 3), (2, 3)),
        ((2, 1), (3,), (2, 3)),
        ((2, 3, 4), (4,), (3, 1)),
        ((4,), (2, 1, 4), ()),
        ((), (2, 3), (3,)),
    ]
    return [
        Case(
            "Where",
            [RNG.random(c) > 0.5, normal(*x), normal(*y)],
            wrt=(1, 2),
            id=f"{c}-{x}-{y}".replace(" ", ""),
        )
        for c, x, y in shapes
    ]


SHAPE = (2, 3, 4)
CASES = [
    Case("Identity", [normal(*SHAPE)]),
    Case("Dropout", [normal(*SHAPE)]),
    Case("Dropout", [normal(*SHAPE), np.array(0.5), np.array(False)], constants=(1, 2), id="inference"),
    Case("Dropout", [normal(*SHAPE), np.array(0.5)], {"seed": 3}, constants=(1,), id="seed"),
    Case("Dropout", [normal(*SHAPE)], outputs=2, id="mask"),
    Case("Cast", [normal(*SHAPE)], {"to": TensorProto.DOUBLE}, id="double"),
    Case("Cast", [normal(*SHAPE)], {"to": TensorProto.DOUBLE, "saturate": 1}, opset=21, id="21"),
    Case("CastLike", [normal(*SHAPE), normal(1)]),
    Case("Neg", [normal(*SHAPE)]),
    *[
        Case("Mod", [10 * signed(*a), signed(*b)], {"fmod": 1}, (0, 1), id=f"{a}-{b}".replace(" ", ""))
        for a, b in PAIRS[:4]
    ],
    Case("Abs", [signed(*SHAPE)]),
    Case("Exp", [normal(*SHAPE)]),
    Case("Log", [positive(*SHAPE)]),
    Case("Sqrt", [positive(*SHAPE)]),
    Case("Reciprocal", [signed(*SHAPE)]),
    Case("Erf", [normal(*SHAPE)]),
    *binary("Add"),
    *binary("Sub"),
    *binary("Mul"),
    *binary("Div", normal, signed),
    *binary("Pow", positive, normal),
    Case("Pow", [signed(*SHAPE), np.array(2.0)], constants=(1,), id="square"),
    Case("Pow", [signed(*SHAPE), np.array([3])], constants=(1,), id="cube-int64"),
    Case("Pow", [signed(*SHAPE), np.array([[2], [3], [-1]], np.int32)], id="int32-at-run-time"),
    Case("Pow", [positive(*SHAPE), np.array([0.5, 0.0, 1.0, 2.0])], constants=(1,), id="exponents"),
    *variadic("Sum"),
    *variadic("Mean"),
    *variadic("Max"),
    *variadic("Min"),
    *masks(),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", [c for c in CASES if c.op_type not in ("Cast", "Mean")], ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


def whole(*shape: int) -> np.ndarray:
    """Small whole numbers, so that zeros and ties are many."""
    return RNG.integers(-2, 3, shape).astype(np.float64)


TORCH = {
    "Abs": "abs", "Neg": "neg", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Reciprocal": "reciprocal",
    "Erf": "erf", "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "Max": "maximum",
    "Min": "minimum", "Where": "where",
}  # fmt: skip
VARIADIC = ("Max", "Min")  # of two in torch
KINKS = [
    Case("Abs", [whole(3, 5)]),
    Case("Max", [whole(2, 3, 4), whole(3, 1)], wrt=(0, 1)),
    Case("Min", [whole(3, 1), whole(2, 3, 4)], wrt=(0, 1)),
    Case("Pow", [np.abs(whole(4, 5)), np.abs(whole(4, 1))], wrt=(0, 1)),
    Case("Pow", [whole(4, 5), np.array(0.0)], constants=(1,)),
    Case("Pow", [whole(4, 5), np.array(3.0)], constants=(1,)),
]


TWINS = [c for c in CASES if c.op_type in TORCH and c.op_type not in VARIADIC]


@pytest.mark.parametrize("case", [*TWINS, *KINKS], ids=str)
def test_torch(case: Case) -> None:
    check_torch(case, lambda torch, *inputs: getattr(torch, TORCH[case.op_type])(*inputs))


INF = np.inf


def of(op_type: str, *inputs: object, wrt: tuple[int, ...] = (0,), constants: tuple[int, ...] = ()) -> Case:
    arrays = [np.asarray(x) if np.asarray(x).dtype == bool else np.asarray(x, float) for x in inputs]
    return Case(op_type, arrays, wrt=wrt, constants=constants)


EXACT = [
    (of("Abs", [-2, -0.0, 0, 2, 1e-7, -1e-7]), [[-1, 0, 0, 1, 1, -1]]),
    (of("Max", [2, 0, 1], [2, 1, 0], wrt=(0, 1)), [[0.5, 0, 1], [0.5, 1, 0]]),
    (of("Min", [2, 0, 1], [2, 1, 0], wrt=(0, 1)), [[0.5, 1, 0], [0.5, 0, 1]]),
    (of("Max", [2, 0], 2, wrt=(0, 1)), [[0.5, 0], 1.5]),
    (of("Max", [3, 3], [3, 3], [3, 0], [3, 1], wrt=(0, 2)), [[0.25, 0.5], [0.25, 0]]),
    (of("Sqrt", [0, 4]), [[INF, 0.25]]),
    (of("Pow", [0, -3, 2], 2, constants=(1,)), [[0, -6, 4]]),
    (of("Pow", [0, 0, 0, 0], [0, 1, 2, 0.5], constants=(1,)), [[0, 1, 0, INF]]),
    (of("Pow", [0, 0, 0, 0], [0, 1, 2, 0.5], wrt=(0, 1)), [[0, 1, 0, INF], [0, 0, 0, 0]]),
    (of("Where", [True, False], [-INF, -INF], [1, INF], wrt=(1, 2)), [[1, 0], [0, 1]]),
]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize(("case", "expected"), EXACT, ids=[f"{c}-{i}" for i, (c, _) in enumerate(EXACT)])
def test_exact(case: Case, expected: list[object], dtype: str) -> None:
    g = np.ones(np.broadcast_shapes(*[np.shape(x) for x in case.inputs]))
    with np.errstate(divide="ignore"):
        gradients = pulled_back(case, g, dtype=dtype)
    for found, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_array_equal(found, np.asarray(wanted))


def test_three_that_tie_share_evenly() -> None:
    case = Case("Max", [np.zeros(2)] * 3, wrt=(0, 1, 2))
    for found in pulled_back(case, np.array([3.0, 1.0]), dtype="float64"):
        np.testing.assert_allclose(found, [1, 1 / 3], rtol=1e-15)


def test_cast_returns_the_dtype_of_its_input() -> None:
    case = Case("Cast", [np.array([0.1, 2.0])], {"to": TensorProto.FLOAT})
    (found,) = pulled_back(case, np.array([1.0, 1e-3]), dtype="float16")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.array([1.0, 1e-3], np.float16))


@pytest.mark.parametrize("constants", [(1, 2), (1,)])
def test_dropout_in_training_is_refused(constants: tuple[int, ...]) -> None:
    case = Case("Dropout", [normal(3), np.array(0.5), np.array(True)], constants=constants)
    with pytest.raises(UnsupportedGradient, match="training_mode") as caught:
        pulled_back(case, np.ones(3))
    assert caught.value.node == "the_node"
