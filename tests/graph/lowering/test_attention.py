"""Attention and rotary embedding of com.microsoft against ONNX Runtime's own kernels and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from lowering_check import SINGLE, Case, check_half, check_lowering, graph_of

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.errors import UnsupportedGradient
from onnx_gradcam.graph.builder import Builder

RNG = np.random.default_rng(11)
HEADS, SIZE = 2, 4
HIDDEN = HEADS * SIZE


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def ints(values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def packed(id: str, *rest: np.ndarray | None, **attributes: Any) -> Case:
    """Attention of (2, 5, 6) → 2 heads of size 4."""
    inputs = [normal(2, 5, 6), normal(6, 3 * HIDDEN) / 2, normal(3 * HIDDEN), *rest]
    wrt = (0, 1, 2, 5) if len(rest) == 3 and rest[2] is not None else (0, 1, 2)
    return Case(
        "Attention", inputs, {"num_heads": HEADS, **attributes}, wrt, id=id, fixed=id in ("lengths", "ends-and-starts")
    )


def separate(id: str, *rest: np.ndarray | None, keys: int = 7, wrt: tuple[int, ...] = (0, 1, 2), **more: Any) -> Case:
    """MultiHeadAttention of 5 queries."""
    inputs = [normal(2, 5, HIDDEN), normal(2, keys, HIDDEN), normal(2, keys, HIDDEN), *rest]
    outputs = more.pop("outputs", ("y",))
    fixed = more.pop("fixed", False)
    return Case("MultiHeadAttention", inputs, {"num_heads": HEADS, **more}, wrt, outputs=outputs, id=id, fixed=fixed)


RAW = ints([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]])
CUBE = ints(RNG.integers(0, 2, (2, 5, 5))) | np.eye(5, dtype=np.int32)

ATTENTION = [
    packed("plain"),
    Case("Attention", [normal(2, 5, 6), normal(6, 3 * HIDDEN)], {"num_heads": HEADS}, (0, 1), id="without-bias"),
    packed("scale", scale=0.7),
    packed("causal", unidirectional=1),
    packed("raw-mask", RAW),
    packed("mask-of-queries", CUBE),
    packed("lengths", ints([3, 5])),
    packed("ends-and-starts", ints([4, 5, 1, 2])),
    Case(
        "Attention",
        [normal(2, 5, 6), normal(6, 3 * HIDDEN) / 2, normal(3 * HIDDEN), ints(np.tril(np.ones((2, 1, 8, 8))))],
        {"num_heads": HEADS},
        (0, 1, 2),
        expected=lambda x, w, b, mask: naive(
            *((x @ w + b)[..., k : k + HIDDEN].reshape(2, 5, HEADS, SIZE) for k in (0, HIDDEN, 2 * HIDDEN)), causal=True
        ),
        id="megatron-mask",
    ),
    packed("causal-and-mask", CUBE, unidirectional=1),
    packed("filter", RAW, mask_filter_value=-2.0),
    packed("bias-of-scores", None, None, normal(2, HEADS, 5, 5)),
    packed("bias-of-scores-broadcast", None, None, normal(1, 1, 5, 5)),
    Case(
        "Attention",
        [normal(2, 5, 6), normal(6, 2 * HIDDEN + 6), normal(2 * HIDDEN + 6)],
        {"num_heads": HEADS, "qkv_hidden_sizes": [HIDDEN, HIDDEN, 6]},
        (0, 1, 2),
        id="other-values",
    ),
    separate("self", keys=5),
    separate("cross"),
    separate("bias", normal(3 * HIDDEN), wrt=(0, 1, 2, 3)),
    separate("lengths", None, ints([3, 7]), fixed=True),
    separate("padding", None, ints(RNG.integers(0, 2, (2, 7)) | np.eye(2, 7, dtype=np.int64))),
    separate("bias-of-scores", None, None, normal(2, HEADS, 5, 7), wrt=(0, 1, 2, 5)),
    separate("causal", keys=5, unidirectional=1),
    separate("scale", scale=0.3),
    separate("all-outputs", outputs=("y", "present_key", "present_value")),
    Case(
        "MultiHeadAttention",
        [normal(2, 5, HEADS, 3, SIZE)],
        {"num_heads": HEADS},
        id="packed",
        expected=lambda x: naive(*np.moveaxis(x, 3, 0)),
    ),
    Case(
        "MultiHeadAttention",
        [normal(2, 5, HIDDEN), normal(2, 7, HEADS, 2, SIZE)],
        {"num_heads": HEADS},
        (0, 1),
        id="packed-keys-and-values",
        expected=lambda q, kv: naive(q.reshape(2, 5, HEADS, SIZE), *np.moveaxis(kv, 3, 0)),
    ),
    Case(
        "MultiHeadAttention",
        [normal(2, 5, HIDDEN), normal(2, HEADS, 7, SIZE), normal(2, HEADS, 7, SIZE), normal(3 * HIDDEN)],
        {"num_heads": HEADS},
        (0, 1, 2),
        id="keys-of-an-encoder",
    ),
]


def naive(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool = False) -> np.ndarray:
    """Of (batch, tokens, heads, size), token by token."""
    y = np.zeros((*q.shape[:3], v.shape[-1]))
    for n, i, h in np.ndindex(q.shape[:3]):
        seen = slice(i + 1 if causal else None)
        e = np.exp(k[n, seen, h] @ q[n, i, h] / np.sqrt(q.shape[-1]))
        y[n, i, h] = e @ v[n, seen, h] / e.sum()
    return y.reshape(*y.shape[:2], -1)


def rotary(id: str, x: np.ndarray, positions: np.ndarray, half: int, **attributes: Any) -> Case:
    inputs = [x, positions, normal(9, half), normal(9, half)]
    return Case("RotaryEmbedding", inputs, attributes, constants=(2, 3), id=id)


ROTARY = [
    rotary("halves", normal(2, 5, HIDDEN), np.array([0]), SIZE // 2),
    rotary("offset", normal(2, 5, HIDDEN), np.array([3]), SIZE // 2),
    rotary("positions", normal(2, 5, HIDDEN), RNG.integers(0, 9, (2, 5)), SIZE // 2),
    rotary("interleaved", normal(2, 5, HIDDEN), RNG.integers(0, 9, (2, 5)), SIZE // 2, interleaved=1),
    rotary("heads-apart", normal(2, HEADS, 5, SIZE), RNG.integers(0, 9, (2, 5)), SIZE // 2),
    rotary("partial", normal(2, 5, 16), np.array([1]), 2, num_heads=2, rotary_embedding_dim=4),
    rotary(
        "partial-interleaved", normal(2, 5, 16), np.array([1]), 2, num_heads=2, rotary_embedding_dim=4, interleaved=1
    ),
]


@pytest.mark.parametrize("case", [*ATTENTION, *ROTARY], ids=str)
def test_lowering(case: Case) -> None:
    check_lowering(case)


@pytest.mark.parametrize("case", [*ATTENTION, *ROTARY], ids=str)
def test_half_precision(case: Case) -> None:
    check_half(case)


def test_a_past_state_is_refused_by_name() -> None:
    case = separate("past", None, None, None, normal(2, HEADS, 3, SIZE), normal(2, HEADS, 3, SIZE))
    model, node = graph_of(case, SINGLE)
    y = node.outputs[0]
    y.dtype, y.shape = ir.DataType.FLOAT, ir.Shape([2, 5, HIDDEN])
    with pytest.raises(UnsupportedGradient, match=r"past state for com\.microsoft::MultiHeadAttention, input 0"):
        pull_back(Builder(model.graph), [node], {y: y}, [model.graph.inputs[0]])
