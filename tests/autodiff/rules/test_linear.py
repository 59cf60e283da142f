from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back, with_gradients

RNG = np.random.default_rng(17)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


PRODUCTS = [
    ((3, 4), (4, 5)),
    ((1, 4), (4, 1)),
    ((2, 3, 4), (4, 5)),
    ((2, 6, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((1, 3, 4), (2, 4, 5)),
    ((2, 3, 4), (1, 4, 5)),
    ((2, 1, 3, 4), (6, 4, 5)),
    ((6, 3, 4), (2, 1, 4, 5)),
    ((2, 1, 3, 4), (1, 6, 4, 5)),
    ((4,), (4, 5)),
    ((4,), (2, 4, 5)),
    ((4,), (2, 3, 4, 5)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4,)),
    ((2, 6, 3, 4), (4,)),
    ((4,), (4,)),
]
BIASES: list[tuple[int, ...] | None] = [None, (), (1,), (5,), (1, 5), (3, 1), (3, 5)]


def gemm(bias: tuple[int, ...] | None, trans_a: int, trans_b: int, **attributes: Any) -> Case:
    a, b = normal(*((4, 3) if trans_a else (3, 4))), normal(*((5, 4) if trans_b else (4, 5)))
    attributes |= {"transA": trans_a, "transB": trans_b}
    name = f"{bias}-{trans_a}{trans_b}{'-scaled' if 'alpha' in attributes else ''}".replace(" ", "")
    if bias is None:
        return Case("Gemm", [a, b], attributes, wrt=(0, 1), id=name)
    return Case("Gemm", [a, b, normal(*bias)], attributes, wrt=(0, 1, 2), id=name)


FLAGS = list(itertools.product((0, 1), (0, 1)))
CASES = [
    *[Case("MatMul", [normal(*a), normal(*b)], wrt=(0, 1), id=f"{a}-{b}".replace(" ", "")) for a, b in PRODUCTS],
    Case("MatMul", [normal(2, 3, 4), normal(4, 5)], constants=(1,), id="weights"),
    *[gemm(None, *flags) for flags in FLAGS],
    *[gemm((5,), *flags, alpha=0.5, beta=-2.0) for flags in FLAGS],
    *[gemm(bias, 0, 1) for bias in BIASES],
    Case("Gemm", [normal(3, 4), normal(4, 5), normal(5)], wrt=(0, 1, 2), id="defaults"),
    Case("Gemm", [normal(3, 4), normal(5, 4), normal(5)], {"transB": 1}, constants=(1, 2), id="weights"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


def twin(torch: Any, case: Case, a: Any, b: Any, c: Any = None) -> Any:
    """The same in torch."""
    if case.op_type == "MatMul":
        return torch.matmul(a, b)
    flags = case.attributes
    product = (a.T if flags.get("transA") else a) @ (b.T if flags.get("transB") else b)
    return flags.get("alpha", 1.0) * product + (0 if c is None else flags.get("beta", 1.0) * c)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch(case: Case) -> None:
    check_torch(case, lambda torch, *inputs: twin(torch, case, *inputs))


def test_a_vector_against_a_batch_by_hand() -> None:
    """y_n = Σ_k a_k B_nk0:  ā = Σ_n g_n B_n, B̄_n = g_n a."""
    a, b, g = np.array([1.0, 2.0]), np.array([[[3.0], [4.0]], [[5.0], [6.0]]]), np.array([[10.0], [100.0]])
    found_a, found_b = pulled_back(Case("MatMul", [a, b], wrt=(0, 1)), g)
    np.testing.assert_array_equal(found_a, [530, 640])
    np.testing.assert_array_equal(found_b, [[[10], [20]], [[100], [200]]])


def test_no_sum_is_written_where_nothing_was_broadcast() -> None:
    """With a symbolic batch too: the sum would be a run-time search for axes."""
    case = Case("MatMul", [normal(2, 3, 4), normal(4, 5)], constants=(1,))
    kinds = [n.op_type for n in with_gradients(case, np.dtype("float32"), True).graph if n.name != "the_node"]
    assert kinds == ["Transpose", "MatMul", "Identity"]
