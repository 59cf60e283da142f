"""Recurrent operators of com.microsoft."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.lowering.table import MICROSOFT, lowering


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
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
) -> tuple[Value, ...]:
    """LSTM; X and h are rounded on the way, the weights are stored transposed."""
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
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        activations=activations,
        clip=clip,
        direction=direction,
        hidden_size=hidden_size,
        input_forget=input_forget,
    )


def _weights(op: Builder, q: Value, scale: Value, zero_point: Value, like: Value) -> Value:
    """(D, 4H, K) of q (D, K, 4H), whose scale and zero point are (D,) or (D, 4H)."""
    places = op.ints(1, 2) if rank(scale) == 1 else op.ints(1)

    def wide(value: Value) -> Value:
        return op.Cast(value, to=like.dtype or ir.DataType.FLOAT)

    shifted = op.Sub(wide(q), wide(op.Unsqueeze(zero_point, places)))
    return op.Transpose(op.Mul(shifted, op.Unsqueeze(scale, places)), perm=[0, 2, 1])
