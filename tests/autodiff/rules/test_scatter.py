from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back

RNG = np.random.default_rng(31)
REDUCTIONS = ("add", "mul", "max", "min")


def tensor(*shape: int) -> np.ndarray:
    """Values that are far from each other and from zero."""
    return (RNG.permutation(int(np.prod(shape))) + 1.0).reshape(shape) / 7 * RNG.choice([-1, 1], shape)


def scattered(op_type: str, id: str, x: tuple[int, ...], index: np.ndarray, u: tuple[int, ...], **form: Any) -> Case:
    engine = {k: form.pop(k) for k in ("opset",) if k in form}
    return Case(op_type, [tensor(*x), index, tensor(*u)], form, (0, 2), (1,), id=id, **engine)


ROWS = np.array([[0, 2, -1, 0], [1, 1, 1, 0]])  # with places that are named twice
ONCE = np.array([[0, -2, 1, 3], [2, 1, 0, -1]])
PLACES = np.array([[[0, 1], [2, -1]], [[0, 1], [1, 0]]])
CASES = [
    scattered("ScatterElements", "none-axis0", (5, 4), ONCE, (2, 4)),
    scattered("ScatterElements", "none-last-axis", (3, 4), ONCE, (2, 4), axis=-1),
    scattered("ScatterElements", "none-opset21", (4,), np.array([2, 0], np.int32), (2,), opset=21),
    *[scattered("ScatterElements", f"{r}-axis0", (3, 5), ROWS, (2, 4), reduction=r) for r in REDUCTIONS],
    *[scattered("ScatterElements", f"{r}-last", (2, 3), ROWS, (2, 4), axis=-1, reduction=r) for r in REDUCTIONS],
    scattered("ScatterND", "none-elements", (3, 4), np.array([[0, 1], [2, -1], [0, 2]]), (3,)),
    scattered("ScatterND", "none-rows", (3, 4), np.array([[2], [0]]), (2, 4)),
    scattered("ScatterND", "none-one-row", (3, 4), np.array([-1]), (4,), opset=21),
    *[scattered("ScatterND", f"{r}-elements", (3, 4), PLACES, (2, 2), reduction=r) for r in REDUCTIONS],
    *[scattered("ScatterND", f"{r}-rows", (3, 4), PLACES[..., :1], (2, 2, 4), reduction=r) for r in REDUCTIONS],
]


def cached(id: str, x: tuple[int, ...], u: tuple[int, ...], start: list[int] | None, **form: Any) -> Case:
    index = None if start is None else np.array(start)
    return Case("TensorScatter", [tensor(*x), tensor(*u), index], form, (0, 1), opset=24, id=id)


CACHES = [
    cached("default", (2, 3, 5, 4), (2, 3, 2, 4), [3, 0]),
    cached("first", (2, 3, 4), (2, 1, 4), [1, 2], axis=1),
    cached("last-axis", (2, 3, 5), (2, 3, 2), [3, 0], axis=-1),
    cached("circular", (2, 5, 4), (2, 3, 4), [3, 0], mode="circular"),
    replace(cached("circular-constant", (2, 5, 4), (2, 3, 4), [3, 0], mode="circular"), constants=(2,)),
    cached("from-the-start", (2, 5, 4), (2, 3, 4), None),
]
COMPUTED = [replace(case, constants=(), id=f"{case.id}-computed") for case in CASES[::2]]


CASES += [*COMPUTED, *CACHES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


def forward_in_float16(case: Case) -> bool:
    """Whether onnxruntime has a kernel for the operator itself."""
    reduction = case.attributes.get("reduction", "none")
    return reduction == "none" or (case.op_type == "ScatterElements" and reduction in ("max", "min"))


@pytest.mark.parametrize("case", [c for c in CASES if forward_in_float16(c)], ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


TWINS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def torch_elements(case: Case, torch: Any, x: Any, index: Any, u: Any) -> Any:
    axis, reduction = case.attributes.get("axis", 0), case.attributes.get("reduction", "none")
    index = index.long() % x.shape[axis]
    if reduction == "none":
        return x.scatter(axis, index, u)
    return x.scatter_reduce(axis, index, u, TWINS[reduction])


def whole(case: Case) -> Case:
    """Small whole numbers, so that zeros and ties are many."""
    draw = [RNG.integers(-1, 2, np.shape(x)).astype(np.float64) if i != 1 else x for i, x in enumerate(case.inputs)]
    return replace(case, inputs=draw, id=f"{case.id}-ties")


ELEMENTS = [c for c in CASES if c.op_type == "ScatterElements"]


@pytest.mark.parametrize("case", [*ELEMENTS, *map(whole, ELEMENTS)], ids=str)
def test_torch(case: Case) -> None:
    check_torch(case, lambda torch, *inputs: torch_elements(case, torch, *inputs))


def test_scatter_nd_is_scatter_elements_on_a_line() -> None:
    """With zeros and ties, where torch has no twin."""
    for reduction in ("none", *REDUCTIONS):
        x, u, index = np.array([0.0, 0, 1, 2]), np.array([0.0, 3, 0, 2, 2]), np.array([0, 0, 1, 2, 3])
        index = index if reduction != "none" else np.array([3, 0, 1, 2, 2])
        form = {"reduction": reduction}
        one = Case("ScatterElements", [x, index, u], form, (0, 2), (1,))
        other = Case("ScatterND", [x, index[:, None], u], form, (0, 2), (1,))
        for dtype in ("float64", "float32"):
            g = np.arange(1.0, 5)
            pairs = zip(pulled_back(one, g, dtype=dtype), pulled_back(other, g, dtype=dtype), strict=True)
            for a, b in pairs:
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("reduction", "data", "updates"),
    [
        ("none", [0, 0, 30], [10, 10, 20]),
        ("add", [10, 20, 30], [10, 10, 20]),
        ("mul", [0, 100, 30], [60, 0, 40]),
        ("max", [0, 0, 30], [0, 10, 20]),
        ("min", [0, 20, 30], [10, 0, 0]),
    ],
)
def test_known_elements(reduction: str, data: list[float], updates: list[float]) -> None:
    """Two updates, 0 and 3, of the first element, 2; one, 5, of the second, 2."""
    inputs = [np.array([2.0, 2, 2]), np.array([0, 0, 1]), np.array([0.0, 3, 5])]
    case = Case("ScatterElements", inputs, {"reduction": reduction}, (0, 2), (1,))
    for form in ({"dtype": "float64"}, {}, {"dynamic": True}, {"dtype": "float16", "reference": True}):
        found = pulled_back(case, [10, 20, 30], **form)
        np.testing.assert_array_equal(found[0], data)
        np.testing.assert_array_equal(found[1], updates)
