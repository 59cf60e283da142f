"""Operators for the reference evaluator of onnx, written once more: naive, straight from the specification.

The evaluator's own are wrong in places (windows with ``ceil_mode`` or SAME_LOWER, grouped ConvTranspose, GridSample at
the border, LRN), are incomplete (LSTM, GRU, RNN, MaxUnpool, Pad by a negative amount, GatherElements by a smaller
index), or round to float32 on the way (Erf, Gelu, GroupNormalization). Those here compute in the dtype of their input.
They are held against torch, ONNX Runtime and hand-computed numbers in test_reference.py and in the tests of the rules.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from reference import activation, normalization, places, recurrent, sampling, windows

OPERATORS = (
    *activation.OPERATORS,
    *normalization.OPERATORS,
    *places.OPERATORS,
    *recurrent.OPERATORS,
    *sampling.OPERATORS,
    *windows.OPERATORS,
)


def evaluator(model: onnx.ModelProto | ir.Model) -> ReferenceEvaluator:
    """Return onnx's evaluator of ``model``, with these operators instead of its own."""
    return ReferenceEvaluator(ir.to_proto(model) if isinstance(model, ir.Model) else model, new_ops=list(OPERATORS))
