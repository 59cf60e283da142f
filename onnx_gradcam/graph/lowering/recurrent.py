"""Recurrent operators of com.microsoft."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_gradcam.graph.attributes import Recurrent
from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.lowering.registry import MICROSOFT, lowering


@lowering("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm(
    op: Builder,
    X: Value,
    W: Value,
    R: Value,
    B: Value | None,
    sequence_lens: Value | None,
    initial_h: Value | None,
    initial_c: Value | None,
    P: Value | None,
    W_scale: Value,
    W_zero_point: Value,
    R_scale: Value,
    R_zero_point: Value,
    *,
    at: Recurrent,
    activations: Sequence[str] | None = None,
    input_forget: int = 0,
) -> tuple[Value, ...]:
    """LSTM with real weights; the operator rounds X and h on the way, and stores the weights transposed."""
    return op.node(
        "LSTM",
        X,
        _weights(op, W, W_scale, W_zero_point, X),
        _weights(op, R, R_scale, R_zero_point, X),
        B,
        sequence_lens,
        initial_h,
        initial_c,
        P,
        outputs=3,
        activations=activations,
        input_forget=input_forget,
        **vars(at),
    )


def _weights(op: Builder, q: Value, scale: Value, zero_point: Value, like: Value) -> Value:
    """Write the real weights (D, 4H, K) of q (D, K, 4H), whose scale and zero point are (D,) or (D, 4H)."""
    axes = op.ints(1, 2) if rank(scale) == 1 else op.ints(1)

    def widen(value: Value) -> Value:
        return op.Cast(value, to=like.dtype or ir.DataType.FLOAT)

    shifted = op.Sub(widen(q), widen(op.Unsqueeze(zero_point, axes)))
    return op.Transpose(op.Mul(shifted, op.Unsqueeze(scale, axes)), perm=[0, 2, 1])
