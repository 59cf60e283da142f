"""Which operators are rectifiers, and which only look like one."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.constants import TWINS, constant
from onnx_gradcam.graph.quantization import MOVING, real_range

Kind = Literal["piecewise", "smooth", "other"]

PIECEWISE = frozenset("Relu LeakyRelu PRelu ThresholdedRelu".split())
SMOOTH = frozenset("Celu Elu Gelu HardSwish Mish Selu Softplus Swish".split())
# These cut off what is below a bound; they are rectifiers where that bound is zero.
CUTTING = frozenset("Clip Max QuantizeLinear".split())
# Activations that are not: they squash, choose or count.
OTHER = frozenset("Erf GRU HardSigmoid LSTM LogSoftmax RNN Sigmoid Softmax Softsign Tanh".split())

# What these return is never negative.
POSITIVE = frozenset(
    "Abs Exp HardSigmoid ReduceL1 ReduceL2 ReduceLogSumExp ReduceSumSquare Relu Sigmoid Softmax Softplus Sqrt".split()
)
# What these return is not negative where what they are given is not.
KEEPING = MOVING | set(
    "Add AveragePool Cast DequantizeLinear Div Dropout GlobalAveragePool GlobalMaxPool LpPool Mean Mul QuantizeLinear "
    "ReduceMax ReduceMean ReduceSum Sum".split()
)
PASSING = frozenset("Cast DequantizeLinear Identity QuantizeLinear".split())


class Activation(NamedTuple):
    """What a node does as an activation: a "piecewise" linear or a "smooth" rectifier, or an "other" one."""

    kind: Kind
    name: str


def activation(node: ir.Node) -> Activation | None:
    """What ``node`` is as an activation by itself, or None where it is none.

    A Clip, a Max with a constant and a QuantizeLinear are rectifiers where they cut off at zero what may be negative.
    Not one is a Clip to the range of the image's pixels, and a Relu or Clip that is a part of a hard sigmoid. A Clip
    with another lower bound is an activation of another kind (it may guard a divisor); a QuantizeLinear with another
    lower bound is a number format.
    """
    if node.domain not in ("", "ai.onnx") and (node.domain, node.op_type) not in TWINS:
        return None
    op_type = node.op_type
    if op_type in SMOOTH:
        return Activation("smooth", op_type)
    if op_type in OTHER:
        return Activation("other", op_type)
    if op_type in PIECEWISE or (op_type in CUTTING and _cuts_at_zero(node)):
        return Activation("other" if _is_hard_sigmoid(node) else "piecewise", op_type)
    return Activation("other", op_type) if op_type == "Clip" else None


def _cuts_at_zero(node: ir.Node) -> bool:
    data, low, high = _cut(node)
    return data is not None and low == 0 < high and _may_be_negative(data)


def _cut(node: ir.Node) -> tuple[Value | None, float, float]:
    """(x, low, high) of a node that computes min(max(x, low), high) with constants; x None for any other."""
    if node.op_type == "Relu":
        return node.inputs[0], 0.0, np.inf
    if node.op_type == "QuantizeLinear":
        bounds = real_range(node.outputs[0])
        return (None, 0.0, 0.0) if bounds is None else (node.inputs[0], *bounds)
    if node.op_type == "Clip":
        low, high = (_number(v, e) for v, e in zip([*node.inputs[1:], None, None], (-np.inf, np.inf), strict=False))
        return (None, 0.0, 0.0) if low is None or high is None else (node.inputs[0], low, high)
    if node.op_type in ("Max", "Min") and len(node.inputs) == 2:
        for x, bound in (node.inputs, reversed(node.inputs)):
            if constant(x) is None and constant(bound) is not None and (number := _number(bound, 0.0)) is not None:
                return (x, number, np.inf) if node.op_type == "Max" else (x, -np.inf, number)
    return None, 0.0, 0.0


def _number(value: Value | None, absent: float) -> float | None:
    """The single number that ``value`` holds, None where it is not constant or not single."""
    if value is None:
        return absent
    array = constant(value)
    return float(array.item()) if array is not None and array.size == 1 else None


def _may_be_negative(value: Value) -> bool:
    """Whether real numbers below zero can come out: not known to be excluded, and made by the network.

    An input of the model is what it is: its range is that of the pixels.
    """
    array = constant(value)
    if array is not None:
        return bool((array < 0).any())
    if (bounds := real_range(value)) is not None and bounds[0] >= 0:
        return False
    node = value.producer()
    if node is None:
        return False
    if node.op_type in POSITIVE:
        return False
    if node.op_type in ("Clip", "Max") and _cut(node)[1] >= 0 and _cut(node)[0] is not None:
        return False
    if node.op_type not in KEEPING:
        return True
    read = node.inputs[:1] if node.op_type not in ("Add", "Concat", "Div", "Max", "Mean", "Mul", "Sum") else node.inputs
    return any(v is not None and _may_be_negative(v) for v in read)


def _is_hard_sigmoid(node: ir.Node) -> bool:
    """Whether ``node`` bounds a sum x + c to (0, 2c): c at x = 0, as the Relu6(x + 3) of MobileNetV3."""
    data, low, high = _cut(node)
    if data is None or low != 0:
        return False
    if not np.isfinite(high):
        y = node.outputs[0]
        high = min((_cut(reader)[2] for reader in y.consumers() if _cut(reader)[0] is y), default=np.inf)
    while (maker := data.producer()) is not None and maker.op_type in PASSING and maker.inputs[0] is not None:
        data = maker.inputs[0]
    if maker is None or maker.op_type != "Add":
        return False
    shifts = [c for v in maker.inputs if (c := _number(v, 0.0)) is not None]
    return any(c > 0 and np.isclose(high, 2 * c, rtol=0.02) for c in shifts)
