from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back, with_gradients

RNG = np.random.default_rng(23)


def tensor(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def draw(high: int, *shape: int, low: int | None = None) -> np.ndarray:
    """Indices, counted from the start and from the end."""
    return RNG.integers(-high if low is None else low, high, shape)


def indexed(op_type: str, id: str, x: tuple[int, ...], index: np.ndarray, **form: Any) -> list[Case]:
    """With an index that is a constant, and with one that the run gives."""
    engine = {k: form.pop(k) for k in ("opset", "free", "outputs") if k in form}
    known = Case(op_type, [tensor(*x), index], form, constants=(1,), id=id, **engine)
    return [known, replace(known, constants=(), id=f"{id}-computed")]


INDICES = {
    "scalar": np.array(1),
    "scalar-from-the-end": np.array(-1),
    "one": ints(2),
    "one-in-two-axes": np.array([[1]]),
    "two": ints(0, 2),
    "repeated": ints(-1, 0, 0, 1),
    "often": ints(0, 2, 2, 2, 2, 2, 2, -1),
    "table": np.array([[0, 2], [1, -3]]),
    "int32": np.array([2, 0], np.int32),
    "permutation": ints(2, 0, 1),
}
GATHERS = [
    *[
        case
        for id, index in INDICES.items()
        for axis in (0, -1)
        for case in indexed("Gather", f"{id}-axis{axis}", (3, 4, 3), index, axis=axis)
    ],
    *[case for id, index in INDICES.items() for case in indexed("Gather", id, (2, 4, 5), index, axis=1)],
    indexed("Gather", "class-token", (2, 5, 4), np.array(0), axis=1, free=(0,))[0],
    *indexed("Gather", "opset21", (4, 3), ints(3, 1), axis=0, opset=21),
    *indexed("Gather", "line", (5,), np.array(2)),
]
ELEMENTS = [
    *[
        case
        for axis in (0, 1, -1)
        for case in indexed("GatherElements", f"axis{axis}", (3, 4, 5), draw((3, 4, 5)[axis], 2, 3, 4), axis=axis)
    ],
    *indexed("GatherElements", "line", (4,), ints(1, -1, 0, 1, 1, 2)),
    *indexed("GatherElements", "often", (2, 3), np.zeros((2, 9), np.int64), axis=1),
    *indexed("GatherElements", "permutation", (2, 3), np.array([[2, 0, 1], [0, 1, 2]]), axis=1),
    *indexed("GatherElements", "int32", (2, 3), np.array([[1, 0, 1]], np.int32), opset=21),
    indexed("GatherElements", "batch", (2, 3), np.array([[2, 0, 1]]), axis=1, free=(0,))[0],
]
PLACES = [
    *indexed("GatherND", "elements", (3, 4), np.array([[0, 1], [2, -1], [0, 1]])),
    *indexed("GatherND", "rows", (3, 4), np.array([[1], [-1], [1], [0]])),
    *indexed("GatherND", "one-place", (3, 4), ints(1)),
    *indexed("GatherND", "table", (3, 4, 2), draw(3, 2, 5, 2)),
    *indexed("GatherND", "often", (2, 4), np.zeros((7, 1), np.int64)),
    *indexed("GatherND", "batch", (2, 3, 4), draw(3, 2, 5, 1), batch_dims=1),
    *indexed("GatherND", "batch-one", (2, 3, 4), draw(3, 2, 1), batch_dims=1),
    *indexed("GatherND", "two-batches", (2, 3, 4, 5), draw(4, 2, 3, 2, 1), batch_dims=2),
    *indexed("GatherND", "two-batches-elements", (2, 3, 4, 5), draw(4, 2, 3, 2), batch_dims=2, opset=21),
    indexed("GatherND", "columns-of-a-batch", (3, 4, 2), draw(3, 5, 2), free=(2,))[0],
]
X = 0.1 * RNG.permutation(24).reshape(2, 3, 4)
CHOICES = [
    *[
        Case(
            "TopK", [X, ints(2)], {"axis": axis, "largest": largest}, constants=(1,), outputs=2, id=f"{axis}-{largest}"
        )
        for axis in (0, 1, -1)
        for largest in (0, 1)
    ],
    Case("TopK", [X, ints(3)], outputs=2, id="k-computed"),
    *[
        replace(
            Case("Compress", [tensor(3, 4), np.array(condition)], {} if axis is None else {"axis": axis}, id=id),
            constants=constants,
        )
        for axis, condition, id in [
            (0, [False, True, True], "axis0"),
            (-1, [True, False, False, True], "last-axis"),
            (1, [False, True], "shorter"),
            (None, [False, True, True, False, True], "flat"),
        ]
        for constants in ((), (1,))
    ],
    Case("ReverseSequence", [tensor(4, 3, 2), ints(1, 4, 2)], constants=(1,), id="default"),
    Case("ReverseSequence", [tensor(3, 4), ints(1, 4, 2)], {"batch_axis": 0, "time_axis": 1}, id="batch-first"),
]
DIFFERENT = [
    Case("Unique", [tensor(2, 3)], id="flat"),
    Case("Unique", [tensor(3, 4)], {"axis": 0}, id="rows"),
    Case("Unique", [tensor(2, 3, 2)], {"axis": -2}, outputs=4, id="slices"),
    Case("OneHot", [draw(4, 2, 3), np.array(4), tensor(2)], {}, (2,), id="last-axis"),
    Case("OneHot", [ints(1, 0, 3), np.array(3), tensor(2)], {"axis": 0}, (2,), (0, 1), id="first-axis"),
]
CASES = [*GATHERS, *ELEMENTS, *PLACES, *CHOICES, *DIFFERENT]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", CASES[::2] + CHOICES, ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


TWINS = {
    "Gather-repeated-axis0": lambda torch, x, i: x[i],
    "Gather-table-computed": lambda torch, x, i: x[:, i],
    "GatherElements-axis1": lambda torch, x, i: torch.gather(x, 1, i % 4),
    "GatherElements-axis0-computed": lambda torch, x, i: torch.gather(x, 0, i % 3),
    "GatherND-table": lambda torch, x, i: x[i[..., 0], i[..., 1]],
    "GatherND-table-computed": lambda torch, x, i: x[i[..., 0], i[..., 1]],
    "GatherND-batch": lambda torch, x, i: x[torch.arange(2)[:, None], i[..., 0]],
    "Compress-axis0": lambda torch, x, c: x[c],
    "ReverseSequence-default": lambda torch, x, n: torch.stack(
        [torch.cat([x[:k, j].flip(0), x[k:, j]]) for j, k in enumerate(n.tolist())], 1
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_torch(name: str) -> None:
    case = next(c for c in CASES if str(c) == name)
    check_torch(case, TWINS[name])


def line(op_type: str, index: Any, id: str = "", **form: Any) -> Case:
    """On [1, 2, 3, 4], with an index that is a constant."""
    x = np.arange(1.0, 5)
    return Case(op_type, [x, np.array(index)], form, constants=(1,), id=id, outputs=2 if op_type == "TopK" else 1)


def test_equal_elements_share_evenly() -> None:
    flat = Case("Unique", [np.array([3.0, 1, 3, 2, 3])])
    rows = Case("Unique", [np.array([[1.0, 2], [1, 3], [1, 2]])], {"axis": 0})
    for dtype in ("float64", "float32"):
        np.testing.assert_array_equal(pulled_back(flat, [5, 7, 6], dtype=dtype)[0], [2, 5, 2, 7, 2])
        found = pulled_back(rows, [[2, 4], [6, 8]], dtype=dtype)[0]
        np.testing.assert_array_equal(found, [[1, 2], [6, 8], [1, 2]])


KNOWN = [
    (line("Gather", -1), 7, [0, 0, 0, 7]),
    (line("Gather", [2, 0, 2]), [1, 2, 3], [2, 0, 4, 0]),
    (line("Gather", [2, 0, -2]), [1, 2, 3], [2, 0, 4, 0]),
    (line("Gather", [1] * 6), [1, 2, 3, 4, 5, 6], [0, 21, 0, 0]),
    (line("GatherElements", [2, 0, -2]), [1, 2, 3], [2, 0, 4, 0]),
    (line("GatherND", [[2], [0], [-2]]), [1, 2, 3], [2, 0, 4, 0]),
    (line("TopK", [2]), [1, 2], [0, 0, 2, 1]),
    (line("TopK", [2], largest=0), [1, 2], [1, 2, 0, 0]),
    (line("Compress", [False, True, True, False], axis=0), [1, 2], [0, 1, 2, 0]),
    (line("Compress", [False, True]), [1], [0, 1, 0, 0]),
    (line("Compress", [False]), [], [0, 0, 0, 0]),
]


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize(("case", "g", "expected"), KNOWN)
def test_known_elements(case: Case, g: Any, expected: list[float], computed: bool) -> None:
    case = replace(case, constants=()) if computed else case
    for form in ({"dtype": "float64"}, {}, {"dtype": "float16"}, {"dynamic": True}):
        np.testing.assert_array_equal(pulled_back(case, g, **form)[0], np.array(expected))


def test_values_that_are_not_sorted_keep_their_places() -> None:
    """In whatever order onnxruntime returns them."""
    case = Case("TopK", [X, ints(2)], {"sorted": 0, "axis": 1}, constants=(1,), outputs=2)
    (found,) = pulled_back(case, np.ones((2, 2, 4)))
    np.testing.assert_array_equal(found, X.min(1, keepdims=True) < X)


def emitted(case: Case, dynamic: bool = False) -> set[str]:
    model = with_gradients(case, np.dtype("float32"), dynamic)
    return {n.op_type for n in model.graph if (n.name or "").startswith("grad/") and n.op_type != "Identity"}


def test_constant_places_are_gathered_not_scattered() -> None:
    for case in [*GATHERS, *ELEMENTS, *PLACES]:
        known = 1 in case.constants and not case.id.startswith("often")
        assert ("ScatterElements" in emitted(case)) == (case.op_type != "Gather" and not known), case.id
        assert "ScatterND" not in emitted(case)


def test_many_places_that_the_run_gives_are_scattered() -> None:
    """One large matrix of ones and zeros would cost more."""
    few, many = (Case("Gather", [tensor(n, 2), draw(n, n)], id=str(n)) for n in (100, 200))
    assert "ScatterElements" not in emitted(few)
    assert {"ScatterElements"} <= emitted(many)
    assert {"ScatterElements"} <= emitted(few, dynamic=True)
    often = Case("Gather", [tensor(200, 2), np.repeat(np.arange(40), 5)], constants=(1,))
    for case in (many, often):
        check_vjp(case)
    check_float16(many)


def test_a_symbolic_batch_needs_no_shape_at_run_time() -> None:
    for id in ("Gather-class-token", "GatherND-columns-of-a-batch"):
        case = next(c for c in CASES if str(c) == id)
        assert "Shape" not in emitted(case, dynamic=True)
