"""The constants that a network adds to what it computes from its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.builder import rank
from onnx_gradcam.graph.constants import constant


@dataclass(frozen=True)
class Bias:
    """A constant that a network adds.

    Attributes:
        value: the ONNX value that holds the sum.
        added: the constant; it broadcasts to the value.
    """

    value: ir.Value
    added: np.ndarray

    @property
    def name(self) -> str:
        """Return the name of the ONNX value."""
        return self.value.name or ""


def biases(nodes: Sequence[ir.Node]) -> list[Bias]:
    """Return all constants that are added, in graph order.

    They are the biases of convolutions and linear layers, what BatchNormalization amounts to, and constants that are
    added or subtracted.
    """
    sums = [(node, _added(node)) for node in nodes if node.domain in ("", "ai.onnx")]
    return [Bias(node.outputs[0], added) for node, added in sums if added is not None and np.any(added)]


def _added(node: ir.Node) -> np.ndarray | None:
    return next((rule(node) for op_types, rule in BIAS_RULES.items() if node.op_type in op_types), None)


def _of_convolution(node: ir.Node) -> np.ndarray | None:
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return None if bias is None else _per_channel(bias, node)


def _of_gemm(node: ir.Node) -> np.ndarray | None:
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return None if bias is None else bias * np.asarray(node.attributes.get_float("beta", 1.0), bias.dtype)


def _of_batch_normalization(node: ir.Node) -> np.ndarray | None:
    """β − μ · γ / √(σ² + ε)."""
    arrays = [constant(value) for value in node.inputs[1:5]]
    if any(array is None for array in arrays):
        return None
    scale, shift, mean, variance = (np.asarray(array) for array in arrays)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return _per_channel(shift - mean * scale / np.sqrt(variance + epsilon), node)


def _of_sum(node: ir.Node) -> np.ndarray | None:
    """Return a constant operand beside one that is not; its negative where it is subtracted."""
    operands = [constant(value) for value in node.inputs]
    constants = [array for array in operands if array is not None]
    if len(constants) != 1 or len(operands) != 2:
        return None
    return -constants[0] if node.op_type == "Sub" and operands[1] is not None else constants[0]


def _per_channel(bias: np.ndarray, node: ir.Node) -> np.ndarray:
    return bias.reshape(-1, *[1] * (rank(node.outputs[0]) - 2))


BIAS_RULES: Mapping[tuple[str, ...], Callable[[ir.Node], np.ndarray | None]] = {
    ("Conv", "ConvTranspose"): _of_convolution,
    ("Gemm",): _of_gemm,
    ("BatchNormalization",): _of_batch_normalization,
    ("Add", "Sub"): _of_sum,
}
