from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back

from onnx_gradcam.errors import UnsupportedGradient

RNG = np.random.default_rng(13)
SHAPE = (2, 3, 4)
AXES: list[tuple[int, ...] | None] = [None, (0,), (2,), (-2,), (0, 2), (-1, 0), (0, 1, 2)]
DRAW = {
    "ReduceMax": lambda: 0.1 * RNG.permutation(24).reshape(SHAPE),
    "ReduceMin": lambda: 0.1 * RNG.permutation(24).reshape(SHAPE),
    "ReduceLogSum": lambda: RNG.uniform(0.5, 2, SHAPE),
    "ReduceL1": lambda: RNG.uniform(0.2, 2, SHAPE) * RNG.choice([-1.0, 1.0], SHAPE),
    "ReduceProd": lambda: RNG.uniform(0.5, 1.5, SHAPE) * RNG.choice([-1.0, 1.0], SHAPE),
}


def drawn(op_type: str) -> np.ndarray:
    return DRAW.get(op_type, lambda: RNG.standard_normal(SHAPE))()


def reduction(op_type: str, axes: tuple[int, ...] | None, keepdims: int, opset: int = 18) -> Case:
    x = drawn(op_type)
    inputs = [x] if axes is None else [x, np.array(axes, np.int64)]
    constants = () if axes is None else (1,)
    name = f"{axes}-keepdims{keepdims}".replace(" ", "")
    return Case(op_type, inputs, {"keepdims": keepdims}, constants=constants, opset=opset, id=name)


EVERY = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"]
EVERY += ["ReduceLogSum", "ReduceLogSumExp", "ReduceProd"]
UNREDUCED = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceLogSumExp", "ReduceProd"]
NOOP = {"noop_with_empty_axes": 1}
EMPTY = np.array([], np.int64)
CASES = [
    *[reduction(op_type, axes, keepdims) for op_type in EVERY for axes in AXES for keepdims in (0, 1)],
    *[reduction(op_type, (1,), 0, opset=21) for op_type in EVERY],
    *[Case(op_type, [RNG.standard_normal(SHAPE)], id="default") for op_type in EVERY[:2]],
    *[Case(op_type, [RNG.standard_normal(SHAPE), EMPTY], constants=(1,), id="empty") for op_type in EVERY[:2]],
    *[Case(op_type, [drawn(op_type), EMPTY], NOOP, constants=(1,), id="noop") for op_type in UNREDUCED],
    *[
        replace(reduction(op_type, axes, keepdims), constants=(), id=f"{axes}-keepdims{keepdims}-computed")
        for op_type in EVERY
        for axes, keepdims in (((0, -1), 1), ((1,), 0))
    ],
    *[Case(op_type, [drawn(op_type), EMPTY], NOOP, id="noop-computed") for op_type in EVERY],
    *[Case(op_type, [drawn(op_type), EMPTY], {"keepdims": 0}, id="empty-computed") for op_type in EVERY],
    Case("ReduceSum", [RNG.standard_normal(SHAPE)], NOOP, id="noop-absent"),
    Case("ReduceSum", [RNG.standard_normal(SHAPE), np.array([1])], NOOP, constants=(1,), id="noop-axes"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


def twin(torch: Any, case: Case, x: Any) -> Any:
    """The same in torch."""
    axes = tuple(case.inputs[1]) if len(case.inputs) > 1 else tuple(range(x.ndim))
    keepdim = bool(case.attributes["keepdims"])
    match case.op_type:
        case "ReduceSum" | "ReduceMean":
            return getattr(torch, case.op_type[6:].lower())(x, axes, keepdim=keepdim)
        case "ReduceMax" | "ReduceMin":
            return (torch.amax if case.op_type == "ReduceMax" else torch.amin)(x, axes, keepdim=keepdim)
        case "ReduceL1" | "ReduceL2":
            return torch.linalg.vector_norm(x, int(case.op_type[-1]), axes, keepdim=keepdim)
        case "ReduceSumSquare":
            return (x * x).sum(axes, keepdim=keepdim)
        case "ReduceLogSum":
            return x.sum(axes, keepdim=keepdim).log()
        case "ReduceProd":
            for axis in sorted((a % x.ndim for a in axes), reverse=True):
                x = x.prod(axis, keepdim=keepdim)
            return x
        case _:
            return torch.logsumexp(x, axes, keepdim=keepdim)


def whole(*shape: int) -> np.ndarray:
    """Small whole numbers, so that zeros and ties are many."""
    return RNG.integers(-1, 2, shape).astype(np.float64)


KEEP = {"keepdims": 1}
KINKS = [
    *[Case(op_type, [whole(3, 5), np.array([1])], KEEP, constants=(1,)) for op_type in ("ReduceMax", "ReduceMin")],
    *[Case(op_type, [whole(3, 5), np.array([0, 1])], KEEP, constants=(1,)) for op_type in ("ReduceMax", "ReduceL1")],
    *[Case("ReduceProd", [whole(*SHAPE), np.array(axes)], KEEP, constants=(1,)) for axes in ([1], [0, 2], [0, 1, 2])],
    Case("ReduceProd", [whole(*SHAPE), np.array([0, 2])], KEEP),
    *[Case(op_type, [np.zeros((3, 2)), np.array([1])], KEEP, constants=(1,)) for op_type in ("ReduceL1", "ReduceL2")],
]


@pytest.mark.parametrize(
    "case", [c for c in CASES + KINKS if "keepdims" in c.attributes and "empty" not in c.id], ids=str
)
def test_torch(case: Case) -> None:
    check_torch(case, lambda torch, x, *_: twin(torch, case, x))


ROWS = np.array([[3.0, 3, 1, 3], [0, 0, 0, 0], [-2, 1, 0, 1]])
EXACT = {
    "ReduceSum": [[1, 1, 1, 1]] * 3,
    "ReduceMean": [[0.25, 0.25, 0.25, 0.25]] * 3,
    "ReduceMax": [[1 / 3, 1 / 3, 0, 1 / 3], [0.25, 0.25, 0.25, 0.25], [0, 0.5, 0, 0.5]],
    "ReduceMin": [[0, 0, 1, 0], [0.25, 0.25, 0.25, 0.25], [1, 0, 0, 0]],
    "ReduceL1": [[1, 1, 1, 1], [0, 0, 0, 0], [-1, 1, 0, 1]],
    "ReduceProd": [[9, 9, 27, 9], [0, 0, 0, 0], [0, 0, -2, 0]],
    "ReduceSumSquare": [[6, 6, 2, 6], [0, 0, 0, 0], [-4, 2, 0, 2]],
}


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("op_type", EXACT)
def test_exact(op_type: str, keepdims: int, dtype: str) -> None:
    case = Case(op_type, [ROWS, np.array([1])], {"keepdims": keepdims}, constants=(1,))
    (found,) = pulled_back(case, np.ones((3, 1) if keepdims else 3), dtype=dtype)
    np.testing.assert_array_equal(found, np.array(EXACT[op_type], found.dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_the_norm_of_zero_has_gradient_zero(dtype: str) -> None:
    case = Case("ReduceL2", [np.array([[0.0, 0], [3, -4]]), np.array([1])], constants=(1,))
    (found,) = pulled_back(case, np.array([[7.0], [5.0]]), dtype=dtype)
    np.testing.assert_allclose(found, [[0, 0], [3, -4]], rtol=1e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("op_type", sorted(set(EVERY) - set(UNREDUCED)))
def test_noop_where_runtimes_differ_is_refused(op_type: str) -> None:
    with pytest.raises(UnsupportedGradient, match="noop_with_empty_axes") as caught:
        pulled_back(Case(op_type, [np.abs(ROWS)], NOOP), ROWS)
    assert caught.value.by_design
