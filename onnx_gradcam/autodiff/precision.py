"""16-bit floats on the way back: computed with in float32, and handed on as they are."""

from __future__ import annotations

import onnx_ir as ir

from onnx_gradcam.graph.builder import HALF_PRECISION, Builder, Value


def widened(op: Builder, x: Value) -> Value:
    """Write x in float32 where it is a 16-bit float: squares, sums and quotients overflow those."""
    return op.Cast(x, to=ir.DataType.FLOAT) if x.dtype in HALF_PRECISION else x


def narrowed(op: Builder, g: Value, like: Value) -> Value:
    """Write ``g`` in the dtype of ``like``."""
    return g if g.dtype == like.dtype else op.Cast(g, to=like.dtype)
