from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from vjp_check import Case, check_float16, check_torch, check_vjp, pulled_back

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.graph.builder import Builder

RNG = np.random.default_rng(41)


def tensor(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def einsum(equation: str, *shapes: tuple[int, ...], **engine: Any) -> Case:
    name = engine.pop("id", equation.replace(" ", "_"))
    xs = [tensor(*shape) for shape in shapes]
    return Case("Einsum", xs, {"equation": equation}, tuple(range(len(xs))), id=name, **engine)


PLAIN = [
    einsum("ij,jk->ik", (2, 3), (3, 4)),
    einsum("ij,jk", (2, 3), (3, 4)),
    einsum("ba,cb", (2, 3), (4, 2)),
    einsum(" i j , k j -> i k ", (2, 3), (4, 3)),
    einsum("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4)),
    einsum("bhqk,bhkd->bqhd", (2, 2, 3, 5), (2, 2, 5, 4), opset=21),
    einsum("bchw,cd->bdhw", (2, 3, 2, 4), (3, 5)),
    einsum("i,j->ij", (2,), (3,)),
    einsum("i,i->", (4,), (4,)),
    einsum("i,i", (4,), (4,)),
    einsum("ij,ij->ij", (2, 3), (2, 3)),
    einsum("ij->ji", (2, 3)),
    einsum("ij", (2, 3)),
    einsum("ba", (2, 3)),
    einsum("Ab,bA->A", (2, 3), (3, 2)),
]
MANY = [
    einsum("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    einsum("bn,anm,bm->ba", (2, 3), (4, 3, 5), (2, 5)),
    einsum("i,i,i,i->i", (3,), (3,), (3,), (3,)),
]
ALONE = [  # letters that are summed in one operand only
    einsum("ij->i", (2, 3)),
    einsum("ij->", (2, 3)),
    einsum("ij,k->i", (2, 3), (4,)),
    einsum("ijk,kl->il", (2, 3, 4), (4, 2)),
]
TWICE = [  # letters that one operand has twice
    einsum("ii->i", (3, 3)),
    einsum("ii", (3, 3)),
    einsum("bii->b", (2, 3, 3)),
    einsum("iji,j->i", (3, 2, 3), (2,)),
    einsum("iii->i", (3, 3, 3)),
    einsum("ii,ij->j", (3, 3), (3, 2)),
]
ELLIPSIS = [
    einsum("...ij,...jk->...ik", (2, 3, 4), (2, 4, 5)),
    einsum("...ij,jk->...ik", (2, 2, 3, 4), (4, 5)),
    einsum("...,...->...", (2, 3), (2, 3)),
    einsum("...i,...i", (2, 3), (2, 3)),
    einsum("b...c->...cb", (2, 3, 4, 5)),
    einsum("i...->...", (2, 3, 4)),
    einsum("...ii->...i", (2, 3, 3)),
    einsum("...ij,...jk->...ik", (2, 1, 3, 4), (1, 5, 4, 2), id="broadcast"),
    einsum("ij,ij->ij", (2, 3), (1, 3), id="letter-broadcast"),
]
EINSUMS = [*PLAIN, *MANY, *ALONE, *TWICE, *ELLIPSIS]
SINGULAR = np.array([[1.0, 2, 3], [2, 4, 6], [0, 1, 5]])
DETS = [
    Case("Det", [tensor(3, 3)], id="matrix"),
    Case("Det", [tensor(2, 3, 4, 4)], id="batch"),
    Case("Det", [tensor(2, 1, 1)], id="one"),
    Case("Det", [tensor(2, 2, 2)], id="two", opset=22),
    Case("Det", [np.stack([SINGULAR, np.zeros((3, 3)), np.eye(3)])], id="singular"),
]
CASES = [*EINSUMS, *DETS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp(case: Case) -> None:
    check_vjp(case)


@pytest.mark.parametrize("case", EINSUMS, ids=str)
def test_float16(case: Case) -> None:
    check_float16(case)


@pytest.mark.parametrize("case", [c for c in EINSUMS if c.attributes["equation"] != "ij"], ids=str)
def test_torch(case: Case) -> None:
    check_torch(case, lambda torch, *xs: torch.einsum(case.attributes["equation"], *xs))


@pytest.mark.parametrize("case", DETS[:-1], ids=str)
def test_det_as_torch(case: Case) -> None:
    """But for singular matrices, where torch 2.13 gives zeros and differences do not."""
    check_torch(case, lambda torch, x: torch.linalg.det(x))


def test_a_shared_batch_of_unknown_size_is_not_summed_at_run_time() -> None:
    body = '(float[N,3,4] a, float[N,4,5] b) => (float[N,3,5] y) { y = Einsum<equation="...ij,...jk->...ik">(a, b) }'
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> case {body}'))
    values, nodes = ir.convenience.create_value_mapping(model.graph), list(model.graph)
    y = values["y"]
    pull_back(Builder(model.graph), nodes, {y: y}, [values["a"], values["b"]])
    assert [n.op_type for n in model.graph] == ["Einsum"] * 3


def test_the_gradient_of_a_trace_is_the_identity() -> None:
    for dtype in ("float64", "float32", "float16"):
        (found,) = pulled_back(einsum("ii->", (3, 3)), 7, dtype=dtype)
        np.testing.assert_array_equal(found, 7 * np.eye(3))
