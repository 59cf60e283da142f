"""The last linear layer of a classifier: one row of weights for each class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_gradcam.anatomy.score import Score
from onnx_gradcam.anatomy.vectors import PASSED_OVER
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.quantization import quantized_form

POOLS_CLASSES = {"GlobalAveragePool", "AveragePool", "ReduceMean", "Relu"}  # one map per class, as SqueezeNet ends


def head_rows(score: Score) -> npt.NDArray[np.float32] | None:
    """Return the weights (K, D) that the score of each class is made with.

    None where no linear layer with constant weights makes the scores.
    """
    if score.kind != "classes":
        return None
    value = quantized_form(score.value)
    while (node := value.producer()) is not None:
        source = node.inputs[0] if node.inputs else None
        if node.op_type in PASSED_OVER | POOLS_CLASSES and source is not None:
            value = source
        elif node.op_type == "Add":
            behind = [v for v in node.inputs if v is not None and constant(v) is None]
            if len(behind) != 1:
                return None
            value = behind[0]
        else:
            return _rows(node, score.count)
    return None


def _rows(node: ir.Node, count: int) -> npt.NDArray[np.float32] | None:
    weights = constant(node.inputs[1]) if node.op_type in ("Gemm", "MatMul", "Conv") else None
    if weights is None or (weights.ndim > 2 and node.op_type != "Conv"):
        return None
    by_class = node.op_type == "Conv" or node.attributes.get_int("transB", 0) == 1
    rows = np.asarray(weights if by_class else weights.T, np.float32)
    return rows.reshape(count, -1) if len(rows) == count else None
