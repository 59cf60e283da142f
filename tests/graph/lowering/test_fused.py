"""Operators of com.microsoft against ONNX Runtime's own kernels, and their gradients against finite differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from lowering_check import Case, check_half, check_lowering

from onnx_gradcam.graph.lowering.registry import LOWERINGS

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf)(x)


def gelu(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + erf(x / math.sqrt(2)))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def conv(op_type: str, shape: tuple[int, ...], weight: tuple[int, ...], id: str, **attributes: Any) -> Case:
    inputs = [normal(*shape), normal(*weight), normal(weight[0])]
    return Case(op_type, inputs, attributes, constants=(1, 2), id=id)


def fused_conv(activation: str, *params: float, **attributes: Any) -> Case:
    given = {"activation": activation} | ({"activation_params": list(params)} if params else {})
    return conv("FusedConv", (2, 3, 6, 5), (4, 3, 3, 3), f"{activation}{params}", **given, **attributes)


def gemm(activation: str, alpha: float | None = None, beta: float | None = None, gamma: float | None = None) -> Case:
    numbers = {"activation_alpha": alpha, "activation_beta": beta, "activation_gamma": gamma}
    given = {"activation": activation} | {k: v for k, v in numbers.items() if v is not None}
    return Case("FusedGemm", [normal(3, 4), normal(4, 5), normal(5)], given, (0, 1, 2), id=activation)


def matmul(a: np.ndarray, b: np.ndarray, id: str, op_type: str = "FusedMatMul", **attributes: Any) -> Case:
    return Case(op_type, [a, b], attributes, (0, 1), id=id)


def group_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, groups: int, silu: bool) -> np.ndarray:
    """Of (N, *space, C)."""
    rows = np.moveaxis(x, -1, 1).reshape(len(x), groups, -1)
    rows = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-5)
    y = np.moveaxis(rows.reshape(np.moveaxis(x, -1, 1).shape), 1, -1) * gamma + beta
    return y / (1 + np.exp(-y)) if silu else y


def fused_matmul_softmax(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return softmax(0.5 * a @ b.swapaxes(-1, -2))


ACTIVATIONS = [
    *[Case("Gelu", [2 * normal(3, 4, 5)], opset=opset, id=f"{opset}") for opset in (18, 20)],
    Case("QuickGelu", [normal(2, 3, 5)], id="default"),
    Case("QuickGelu", [normal(2, 3, 5)], {"alpha": 1.0}, id="silu"),
    *[Case("BiasGelu", [normal(2, 3, 5), normal(5)], wrt=(0, 1), opset=opset, id=f"{opset}") for opset in (18, 20)],
    *[Case("FastGelu", [normal(2, 3, 5), normal(5)], wrt=(0, 1), opset=opset, id=f"{opset}") for opset in (18, 20)],
    Case("FastGelu", [normal(2, 3, 5)], id="without-bias"),
    Case(
        "BiasSplitGelu",
        [normal(2, 3, 8), normal(8)],
        wrt=(0, 1),
        expected=lambda x, b: (x + b)[..., :4] * gelu((x + b)[..., 4:]),
    ),
    Case("BiasAdd", [normal(2, 3, 4), normal(4), normal(2, 3, 4)], wrt=(0, 1, 2), expected=lambda x, b, s: x + b + s),
    Case(
        "BiasSoftmax",
        [normal(2, 3, 4, 5), normal(2, 1, 1, 5)],
        {"axis": 3, "is_inner_broadcast": 1},
        (0, 1),
        expected=lambda x, b: softmax(x + b),
        id="last-axis",
    ),
    Case(
        "BiasSoftmax",
        [normal(2, 3, 4, 5), normal(1, 1, 4, 5)],
        {"axis": 2, "is_inner_broadcast": 0},
        (0, 1),
        expected=lambda x, b: softmax((x + b).reshape(2, 3, -1)).reshape(x.shape),
        id="two-axes",
    ),
]

CONVOLUTIONS = [
    fused_conv("Relu"),
    fused_conv("Sigmoid", strides=[2, 1], pads=[1, 0, 1, 2]),
    fused_conv("Tanh", dilations=[2, 1]),
    fused_conv("LeakyRelu", 0.2),
    fused_conv("Clip", -0.5, 2.5),
    fused_conv("HardSigmoid", 0.1, 0.4),
    fused_conv("HardSwish", 1 / 6, 0.5),
    conv("FusedConv", (2, 4, 5, 5), (4, 2, 3, 3), "group", activation="Relu", group=2, auto_pad="SAME_UPPER"),
    conv("FusedConv", (2, 4, 7), (3, 4, 3), "1-D", activation="Relu"),
    Case(
        "FusedConv",
        [normal(2, 3, 5, 5), normal(4, 3, 3, 3), normal(4), normal(2, 4, 3, 3)],
        {"activation": "Relu"},
        (0, 3),
        constants=(1, 2),
        id="Z",
    ),
    Case(
        "FusedConv",
        [normal(2, 3, 5, 5), normal(4, 3, 3, 3), None, normal(2, 4, 3, 3)],
        {"activation": "Sigmoid"},
        (0, 3),
        constants=(1,),
        id="Z-without-bias",
    ),
    Case(
        "ConvTransposeWithDynamicPads",
        [normal(2, 3, 4, 4), normal(3, 2, 3, 3), np.array([1, 1, 1, 1]), normal(2)],
        {"strides": [2, 2]},
        constants=(1, 2, 3),
    ),
]

LINEAR = [
    gemm("Relu"),
    gemm("LeakyRelu", 0.2),
    gemm("Elu", 0.5),
    gemm("Celu", 0.5),
    gemm("Selu", 1.5, None, 1.2),
    gemm("HardSigmoid", 0.2, 0.4),
    gemm("Sigmoid"),
    gemm("Tanh"),
    gemm("Softplus"),
    gemm("Softsign"),
    gemm("ThresholdedRelu", 0.3),
    gemm("ScaledTanh", 2.0, 0.5),
    gemm("ParametricSoftplus", 2.0, 0.5),
    Case(
        "FusedGemm",
        [normal(4, 3), normal(5, 4)],
        {"activation": "Relu", "transA": 1, "transB": 1, "alpha": 0.5},
        (0, 1),
        id="transposed",
    ),
    matmul(normal(2, 3, 4, 5), normal(2, 3, 5, 6), "plain"),
    matmul(normal(2, 3, 5, 4), normal(2, 3, 5, 6), "A", transA=1, alpha=0.25),
    matmul(normal(2, 3, 4, 5), normal(2, 3, 6, 5), "B", transB=1, alpha=-2.0),
    matmul(normal(2, 3, 5, 4), normal(6, 5), "A-B-broadcast", transA=1, transB=1),
    matmul(normal(4, 2, 3, 5), normal(2, 3, 5, 6), "batch-A", transBatchA=1),
    matmul(normal(5, 2, 3, 4), normal(2, 3, 5, 6), "batch-A-A", transBatchA=1, transA=1),
    matmul(normal(2, 3, 4, 5), normal(5, 2, 3, 6), "batch-B", transBatchB=1),
    matmul(normal(2, 3, 4, 5), normal(6, 2, 3, 5), "batch-B-B", transBatchB=1, transB=1),
    matmul(normal(4, 5), normal(5), "vector", transB=1),
    matmul(normal(2, 4, 3), normal(2, 4, 5), "old", "TransposeMatMul", transA=1),
    Case(
        "FusedMatMulActivation",
        [normal(2, 3, 4), normal(2, 5, 4)],
        {"activation": "Softmax", "transB": 1, "alpha": 0.5},
        (0, 1),
        expected=fused_matmul_softmax,
        id="Softmax",
    ),
    Case(
        "FusedMatMulActivation",
        [normal(2, 3, 4), normal(2, 4, 5)],
        {"activation": "LeakyRelu", "activation_alpha": 0.25},
        (0, 1),
        expected=lambda a, b: np.where(a @ b > 0, a @ b, 0.25 * (a @ b)),
        id="LeakyRelu",
    ),
    Case(
        "GemmFastGelu",
        [normal(2, 3, 4), normal(4, 5), normal(5)],
        wrt=(0, 1, 2),
        expected=lambda x, w, b: (
            (x @ w + b) / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x @ w + b + 0.044715 * (x @ w + b) ** 3)))
        ),
    ),
]

NORMALIZATIONS = [
    Case("SimplifiedLayerNormalization", [normal(2, 3, 5), normal(5)], domain="", wrt=(0, 1), id="default"),
    Case(
        "SimplifiedLayerNormalization",
        [normal(2, 3, 5), normal(3, 5)],
        {"axis": 1, "epsilon": 0.1},
        domain="",
        outputs=("y", "inv_std_var"),
        id="axis",
    ),
    Case("SkipLayerNormalization", [normal(2, 3, 5), normal(2, 3, 5), normal(5)], wrt=(0, 1, 2), id="shortest"),
    Case(
        "SkipLayerNormalization",
        [normal(2, 3, 5), normal(2, 3, 5), normal(5), normal(5), normal(5)],
        {"epsilon": 0.1},
        (0, 1, 2, 3, 4),
        outputs=("y", "", "", "sum"),
        id="full",
    ),
    Case(
        "SkipLayerNormalization",
        [normal(2, 3, 5), normal(1, 3, 5), normal(5), normal(5)],
        {"epsilon": 0.1},
        (0, 1),
        id="broadcast",
    ),
    Case(
        "SkipSimplifiedLayerNormalization",
        [normal(2, 3, 5), normal(2, 3, 5), normal(5), normal(5)],
        {"epsilon": 0.1},
        (0, 1, 2, 3),
        outputs=("y", "", "", "sum"),
    ),
    Case(
        "GroupNorm",
        [normal(2, 4, 3, 6), normal(6), normal(6)],
        {"groups": 3, "activation": 1},
        (0, 1, 2),
        expected=lambda x, gamma, beta: group_norm(x, gamma, beta, 3, silu=True),
        id="channels-last",
    ),
    Case(
        "GroupNorm",
        [normal(2, 6, 4, 3), normal(6), normal(6)],
        {"groups": 2, "activation": 0, "channels_last": 0},
        expected=lambda x, gamma, beta: np.moveaxis(
            group_norm(np.moveaxis(x, 1, -1), gamma, beta, 2, silu=False), -1, 1
        ),
        id="channels-first",
    ),
    Case(
        "SkipGroupNorm",
        [normal(2, 4, 3, 6), normal(6), normal(6), normal(2, 4, 3, 6), normal(6)],
        {"groups": 3, "activation": 1},
        (0, 3, 4),
        outputs=("y", "sum"),
        expected=lambda x, gamma, beta, s, b: (group_norm(x + s + b, gamma, beta, 3, silu=True), x + s + b),
    ),
    Case(
        "SkipGroupNorm",
        [normal(2, 4, 3, 6), normal(6), normal(6), normal(2, 6)],
        {"groups": 3, "activation": 0},
        (0, 3),
        expected=lambda x, gamma, beta, s: group_norm(x + s[:, None, None], gamma, beta, 3, silu=False),
        id="skip-of-channels",
    ),
]


def n_bits(k: int, n: int, bits: int, block: int, zeros: str, bias: bool = False) -> Case:
    blocks = -(-k // block)
    b = RNG.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
    zero_points = {
        "": None,
        "packed": RNG.integers(0, 256, n * -(-blocks * bits // 8)).astype(np.uint8),
        "float": RNG.integers(0, 1 << bits, (n, blocks)).astype(np.float64),
    }[zeros]
    inputs = [normal(2, 3, k), b, RNG.uniform(0.01, 0.02, (n, blocks)), zero_points, None, normal(n) if bias else None]
    attributes = {"K": k, "N": n, "bits": bits, "block_size": block}
    return Case(
        "MatMulNBits", inputs, attributes, constants=(1, 2, 3, 5), id=f"{bits}-{zeros}{'-bias' if bias else ''}"
    )


N_BITS = [
    n_bits(32, 4, 4, 16, ""),
    n_bits(40, 4, 4, 16, "packed", bias=True),
    n_bits(40, 3, 4, 32, "float"),
    n_bits(32, 4, 8, 16, "packed"),
    n_bits(64, 4, 2, 32, "packed"),
]


def last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def first(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, -1, 1)


def windows(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """A valid convolution of (N, C, H, W) with (M, C, h, w), tap by tap."""
    height, width = x.shape[2] - w.shape[2] + 1, x.shape[3] - w.shape[3] + 1
    taps = np.ndindex(w.shape[2:])
    parts = (np.einsum("nchw,mc->nmhw", x[:, :, i : i + height, j : j + width], w[:, :, i, j]) for i, j in taps)
    return sum(parts, np.zeros((len(x), len(w), height, width)))


def pooled(x: np.ndarray) -> np.ndarray:
    """The maximum of windows of 2 × 2, in steps of 2, of (N, H, W, C)."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


CHANNELS_LAST = [
    Case(
        "NhwcConv",
        [normal(2, 5, 6, 3), normal(4, 3, 2, 3), normal(4)],
        constants=(1, 2),
        expected=lambda x, w, b: last(windows(first(x), first(w))) + b,
    ),
    Case(
        "NhwcFusedConv",
        [normal(2, 5, 6, 3), normal(4, 3, 3, 2), normal(4), normal(2, 3, 5, 4)],
        {"activation": "Relu"},
        (0, 3),
        constants=(1, 2),
        expected=lambda x, w, b, z: np.maximum(last(windows(first(x), w)) + b + z, 0),
    ),
    Case(
        "NhwcMaxPool",
        [normal(2, 4, 6, 3)],
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        expected=pooled,
    ),
]

MOVEMENTS = [
    Case("ExpandDims", [normal(3, 4), np.array(1, np.int32)], constants=(1,)),
    *[
        Case("Inverse", [normal(*shape) + 3 * np.eye(shape[-1])], id=str(shape).replace(" ", ""))
        for shape in ((2, 2), (4, 2, 2), (3, 3), (2, 4, 3, 3))
    ],
    Case("Trilu", [normal(3, 4)], {"upper": 0}),
    Case("Trilu", [normal(2, 3, 4), np.array(1)], constants=(1,), id="k"),
    Case("GatherND", [normal(3, 4, 2), np.array([[0, 1], [2, 3]])], constants=(1,), id="int64"),
    Case("GatherND", [normal(3, 4, 2), np.array([[0, 1], [2, 3]], np.int32)], constants=(1,), id="int32"),
    *[
        Case(
            "GridSample",
            [normal(2, 3, 5, 6), RNG.uniform(-0.9, 0.9, (2, 3, 4, 2))],
            {"mode": mode, "align_corners": 1},
            (0, 1) if mode != "nearest" else (0,),
            opset=opset,
            id=f"{mode}-{opset}",
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for opset in (18, 20)
    ],
    Case("Pad", [normal(3, 4), np.array([1, 0, 0, 2]), np.array(0.5)], {"mode": "constant"}, constants=(1, 2)),
    Case("Pad", [normal(3, 4), np.array([[1, 0, 0, 2]])], {"mode": "reflect"}, constants=(1,), id="row", fixed=True),
]


CASES = [*ACTIVATIONS, *CONVOLUTIONS, *LINEAR, *N_BITS, *NORMALIZATIONS, *CHANNELS_LAST, *MOVEMENTS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_lowering(case: Case) -> None:
    check_lowering(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision(case: Case) -> None:
    check_half(case)


def test_every_lowering_has_a_case() -> None:
    elsewhere = {"attention", "loops", "quantized", "recurrent"}  # tested in files of their own
    written = {key for key, f in LOWERINGS.items() if f.__module__.rpartition(".")[2] not in elsewhere}
    assert written - {(case.domain, case.op_type) for case in CASES} == {
        ("com.microsoft", "DynamicQuantizeMatMul"),
        ("com.microsoft", "MatMulIntegerToFloat"),
        ("", "AffineGrid"),
    }
