"""Operators that ONNX defines by a function body, through it or through a shorter form of the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from vjp_check import Case, check_affine, check_float16, check_torch, check_vjp

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.errors import UnsupportedGradient
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.lowering.table import Unlowered, lower

RNG = np.random.default_rng(23)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def attention(id: str, *rest: np.ndarray | None, heads: tuple[int, int] = (2, 2), opset: int = 23, **more: Any) -> Case:
    """Of 5 queries and 4 keys of size 16: the factor 1/√√16 is exact in float32, in which ONNX defines it."""
    inputs = [normal(2, heads[0], 5, 16), normal(2, heads[1], 4, 16), normal(2, heads[1], 4, 3), *rest]
    floats = [i for i, x in enumerate(inputs) if x is not None and x.dtype.kind == "f"]
    outputs = more.pop("outputs", 1)
    return Case("Attention", inputs, more, wrt=floats, opset=opset, outputs=outputs, id=id)


EMPTY = RNG.random((5, 4)) < np.where(np.eye(5, 4) + np.eye(5, 4, -1), 1, 0.5)
EMPTY[[1, 3]] = False  # queries that may attend to nothing: the operator returns 0
MINUS_INFINITY = np.where(EMPTY, normal(5, 4), -np.inf)

ATTENTION = [
    attention("plain"),
    attention("opset-24", opset=24),
    attention("as-torch-exports-it", is_causal=0, softcap=0.0, qk_matmul_output_mode=0),
    attention("causal", is_causal=1),
    attention("scale-and-cap", scale=0.7, softcap=2.0),
    attention("shared-keys", heads=(4, 2)),
    attention("added-mask", normal(2, 1, 5, 4)),
    attention("boolean-mask", RNG.random((5, 4)) < np.where(np.eye(5, 4) + np.eye(5, 4, -1), 1, 0.5)),
    attention("empty-rows", EMPTY),
    attention("empty-rows-of-minus-infinity", MINUS_INFINITY),
    attention("empty-rows-for-each-head", np.stack([EMPTY, EMPTY[::-1]])[None]),
    attention("empty-rows-and-cap", EMPTY, softcap=2.0),
    attention("empty-rows-and-causal", EMPTY, is_causal=1),
    attention("empty-rows-and-shared-keys", MINUS_INFINITY, heads=(4, 2)),
    attention("filled-cache", None, None, None, np.array([3, 4]), opset=24),
    attention("causal-filled-cache", None, None, None, np.array([3, 4]), opset=24, is_causal=1),
    attention("earlier-keys", None, normal(2, 2, 3, 16), normal(2, 2, 3, 3), outputs=3),
    attention("earlier-keys-and-mask", normal(5, 7), normal(2, 2, 3, 16), normal(2, 2, 3, 3), outputs=3, opset=24),
    Case(
        "Attention",
        [normal(2, 5, 32), normal(2, 4, 32), normal(2, 4, 8)],
        {"q_num_heads": 2, "kv_num_heads": 2},
        wrt=(0, 1, 2),
        opset=23,
        id="heads-side-by-side",
        free=(0, 1),
    ),
]

CASES = [
    *ATTENTION,
    Case("RMSNormalization", [normal(2, 3, 5), normal(5)], wrt=(0, 1), opset=23),
    Case("RMSNormalization", [normal(2, 3, 5), normal(3, 5)], {"axis": 1, "epsilon": 0.1}, (0, 1), opset=23, id="axis"),
    Case("RotaryEmbedding", [normal(2, 3, 5, 8), normal(2, 5, 4), normal(2, 5, 4)], opset=23),
    Case(
        "RotaryEmbedding",
        [normal(2, 5, 24), normal(9, 2), normal(9, 2), RNG.integers(0, 9, (2, 5))],
        {"num_heads": 3, "rotary_embedding_dim": 4, "interleaved": 1},
        opset=23,
        id="partial",
    ),
    *[Case("Swish", [3 * normal(3, 4)], {"alpha": a}, opset=24, id=f"{a}", ort=False) for a in (1.0, 1.702)],
    Case("Shrink", [2 * normal(3, 4)], {"bias": 0.3, "lambd": 0.7}),
    Case("Shrink", [2 * normal(3, 4)], id="default"),
    Case("AffineGrid", [normal(2, 2, 3), np.array([2, 3, 4, 5])], constants=(1,), opset=20),
    Case(
        "AffineGrid",
        [normal(2, 2, 3), np.array([2, 3, 4, 5])],
        {"align_corners": 1},
        constants=(1,),
        opset=20,
        id="corners",
    ),
    Case("AffineGrid", [normal(2, 3, 4), np.array([2, 3, 2, 4, 5])], constants=(1,), opset=20, id="3-D"),
    *[
        Case(
            "AffineGrid",
            [normal(2, len(size), len(size) + 1), np.array([2, 3, *size])],
            {"align_corners": corners},
            opset=20,
            free=(0,),
            id=f"{'x'.join(map(str, size))}-of-the-run-{corners}",
        )
        for size in ((4, 5), (1, 3), (2, 4, 1))
        for corners in (0, 1)
        if not corners or 1 not in size  # there the reference evaluator divides by 0
    ],
    Case("CenterCropPad", [normal(2, 3, 6, 5), np.array([4, 7])], {"axes": [2, 3]}, constants=(1,)),
    Case("CenterCropPad", [normal(5, 6), np.array([8, 3])], constants=(1,), id="all-axes"),
    Case("Clip", [normal(3, 4), None, np.array(0.3)], wrt=(0, 2), id="bounded-above"),
    Case("Clip", [normal(3, 4), np.array(-0.3)], wrt=(0, 1), id="bounded-below"),
    Case("Clip", [normal(3, 4), np.array(-0.3), np.array(0.3)], wrt=(0, 1, 2), id="bounds"),
    *[
        Case(op_type, [normal(4, 3, 2), RNG.integers(0, 3, (4, 2))], {"reduction": reduction}, id=reduction)
        for op_type in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
        for reduction in ("none", "sum", "mean")
    ],
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_finite_differences(case: Case) -> None:
    with np.errstate(invalid="ignore"):  # the body subtracts infinities in rows that are masked altogether
        check_vjp(case)


@pytest.mark.parametrize("constants", [(1,), ()], ids=["constant", "of-the-run"])
@pytest.mark.parametrize("space", [(1, 3), (3, 1), (2, 1, 3)], ids=str)
def test_a_grid_with_one_point_along_an_axis_is_that_of_the_runtime(
    space: tuple[int, ...], constants: tuple[int, ...]
) -> None:
    """With corners aligned onnxruntime puts the point at 1, torch at 0."""
    inputs = [normal(2, len(space), len(space) + 1), np.array([2, 3, *space])]
    case = Case("AffineGrid", inputs, {"align_corners": 1}, constants=constants, typed=(1,), opset=20, free=(0,))
    check_affine(case)


def test_half_precision() -> None:
    check_float16(Case("RMSNormalization", [normal(2, 3, 5), normal(5)], wrt=(0, 1), opset=23))


def attend(torch: Any, q: Any, k: Any, v: Any, mask: Any = None, **options: Any) -> Any:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, **options)


TORCH = [
    (ATTENTION[0], attend),
    (ATTENTION[3], lambda torch, *x: attend(torch, *x, is_causal=True)),
    (ATTENTION[5], lambda torch, *x: attend(torch, *x, enable_gqa=True)),
    (ATTENTION[6], attend),
    (
        Case("RMSNormalization", [normal(2, 3, 5), normal(5)], {"epsilon": 0.125, "stash_type": 11}, (0, 1), opset=23),
        lambda torch, x, w: torch.nn.functional.rms_norm(x, w.shape, w, 0.125),
    ),
    (Case("Swish", [3 * normal(3, 4)], opset=24), lambda torch, x: torch.nn.functional.silu(x)),
    (
        Case("Shrink", [2 * normal(3, 4)], {"bias": 0.5, "lambd": 0.5}, id="soft"),
        lambda torch, x: torch.nn.functional.softshrink(x, 0.5),
    ),
    (
        Case("Shrink", [2 * normal(3, 4)], {"lambd": 0.5}, id="hard"),
        lambda torch, x: torch.nn.functional.hardshrink(x, 0.5),
    ),
    *[
        (
            Case("AffineGrid", [normal(2, n, n + 1), np.array(size)], {"align_corners": c}, constants=(1,), opset=20),
            lambda torch, theta, size, c=c: torch.nn.functional.affine_grid(
                theta, size.tolist(), align_corners=bool(c)
            ),
        )
        for n, size in ((2, [2, 3, 4, 5]), (3, [2, 3, 2, 4, 5]))
        for c in (0, 1)
    ],
    *[
        (
            Case("SoftmaxCrossEntropyLoss", [normal(4, 3, 2), RNG.integers(0, 3, (4, 2))], {"reduction": r}, id=r),
            lambda torch, x, y, r=r: torch.nn.functional.cross_entropy(x, y, reduction=r),
        )
        for r in ("none", "sum", "mean")
    ],
]


@pytest.mark.parametrize(("case", "function"), TORCH, ids=lambda x: str(x) if isinstance(x, Case) else "torch")
def test_torch(case: Case, function: Any) -> None:
    check_torch(case, function)


def test_what_onnx_fails_to_write_is_a_refusal() -> None:
    """A SequenceMap without its body: onnx raises an error of its own."""
    x = ir.val("x", type=ir.SequenceType(ir.TensorType(ir.DataType.FLOAT)))
    node = ir.node("SequenceMap", [x], name="the_node")
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 18})
    with pytest.raises(Unlowered, match=r"onnx fails to write its function body .*Expected a graph"):
        lower(Builder(graph), node)


def test_a_form_without_a_body_is_a_refusal_that_names_the_node() -> None:
    """The type of x is not known, and the body depends on it."""
    x = ir.val("x", shape=ir.Shape([2, 3]))
    node = ir.node("RMSNormalization", [x, ir.val("scale", shape=ir.Shape([3]))], name="the_node")
    graph = ir.Graph(list(node.inputs), node.outputs, nodes=[node], opset_imports={"": 23})
    with pytest.raises(UnsupportedGradient, match="no function body in onnx for these inputs") as error:
        pull_back(Builder(graph), [node], {node.outputs[0]: x}, [x])
    assert "'the_node'" in str(error.value)
