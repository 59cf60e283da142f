"""Which operators are rectifiers, and which only look like one."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.constants import TWINS, constant
from onnx_gradcam.graph.operators import STORES
from onnx_gradcam.graph.quantization import MOVING, real_range

STANDS_FOR = "onnx_gradcam.stands_for"  # key in the meta of a lowered value, for the deployed value

Kind = Literal["piecewise", "smooth", "other"]

PIECEWISE = frozenset("Relu LeakyRelu PRelu ThresholdedRelu".split())
SMOOTH = frozenset("Celu Elu Gelu HardSwish Mish Selu Softplus Swish".split())
# Operators that cut off what is below a bound; they are rectifiers where that bound is zero.
CUTTING = frozenset("Clip Max QuantizeLinear".split())
# Activations that are no rectifiers: they squash, choose or count.
OTHER = frozenset("Erf GRU HardSigmoid LSTM LogSoftmax RNN Sigmoid Softmax Softsign Tanh".split())

SQUASHING = frozenset("HardSigmoid Sigmoid Tanh".split())
# No network rectifies a mean: where its format begins at zero, that was chosen to fit the numbers.
AVERAGING = frozenset("AveragePool GlobalAveragePool LpPool Mean ReduceMean".split())
# Operators whose output is never negative.
NON_NEGATIVE = frozenset(
    "Abs Exp HardSigmoid ReduceL1 ReduceL2 ReduceLogSumExp ReduceSumSquare Relu Sigmoid Softmax Softplus Sqrt".split()
)
# Operators whose output is not negative where their inputs are not.
KEEPING = MOVING | STORES | set("Add Div GlobalMaxPool Mul ReduceMax ReduceSum Sum".split())


class Activation(NamedTuple):
    """A node as an activation: it is a "piecewise" linear or a "smooth" rectifier, or an "other" activation."""

    kind: Kind
    name: str


def activation(node: ir.Node) -> Activation | None:
    """Return what ``node`` is as an activation by itself, or None where it is none.

    A Clip, a Max with a constant and a QuantizeLinear are rectifiers where they cut off at zero what may be negative.

    Two things only look like rectifiers: a Clip to the range of the image's pixels, and a Relu or Clip that is a part
    of a hard sigmoid. A Clip with another lower bound is an activation of another kind (it may guard a divisor). A
    QuantizeLinear with another lower bound is a number format, and so is the QuantizeLinear in front of a Sigmoid or
    its like.
    """
    if node.domain not in ("", "ai.onnx") and (node.domain, node.op_type) not in TWINS:
        return None
    op_type = node.op_type
    if op_type in SMOOTH:
        return Activation("smooth", op_type)
    if op_type in OTHER:
        return Activation("other", op_type)
    if op_type in PIECEWISE or (op_type in CUTTING and _cuts_at_zero(node)):
        return Activation("other" if is_hard_sigmoid(node) else "piecewise", op_type)
    return Activation("other", op_type) if op_type == "Clip" else None


def is_relu(node: ir.Node) -> bool:
    """Tell whether ``node`` is a rectifier y = max(x, 0), or a number format that one was folded into."""
    if (role := activation(node)) is None or role.kind != "piecewise" or (clamp := _clamp(node)) is None:
        return False
    return clamp.low == 0 and (clamp.high == np.inf or node.op_type == "QuantizeLinear")


class Clamp(NamedTuple):
    """y = min(max(x, low), high)."""

    x: Value
    low: float
    high: float


def _cuts_at_zero(node: ir.Node) -> bool:
    """Tell whether ``node`` cuts off at zero what may be negative."""
    clamp = _clamp(node)
    if clamp is None or (node.op_type == "QuantizeLinear" and _feeds_an_activation(node.outputs[0])):
        return False
    return clamp.low == 0 < clamp.high and _may_be_negative(clamp.x)


def _readers(value: Value) -> list[ir.Node]:
    """Return the nodes that read ``value``, or the deployed value that it stands for."""
    deployed = value.meta.get(STANDS_FOR)
    return [*value.consumers(), *(deployed.consumers() if deployed is not None else ())]


def _feeds_an_activation(value: Value) -> bool:
    """Tell whether a squashing or smooth activation reads ``value``, dequantized or as it is."""
    for node in _readers(value):
        if node.op_type.removeprefix("QLinear") in SMOOTH | SQUASHING:
            return True
        if node.op_type == "DequantizeLinear" and _feeds_an_activation(node.outputs[0]):
            return True
    return False


def _clamp(node: ir.Node) -> Clamp | None:
    """Return the constant bounds to which ``node`` cuts its input, or None."""
    if node.op_type not in CUTTING | {"Relu", "Min"} or (x := node.inputs[0]) is None:
        return None
    if node.op_type == "Relu":
        return Clamp(x, 0.0, np.inf)
    if node.op_type == "QuantizeLinear":
        bounds_of_format = real_range(node.outputs[0])
        return None if bounds_of_format is None else Clamp(x, *bounds_of_format)
    if node.op_type == "Clip":
        low, high = (_number(v, e) for v, e in zip([*node.inputs[1:], None, None], (-np.inf, np.inf), strict=False))
        return None if low is None or high is None else Clamp(x, low, high)
    varying = [v for v in node.inputs if v is not None and constant(v) is None]
    bounds = [_number(v, 0.0) for v in node.inputs if v not in varying]
    if len(varying) != 1 or len(bounds) != 1 or (bound := bounds[0]) is None:
        return None
    return Clamp(varying[0], bound, np.inf) if node.op_type == "Max" else Clamp(varying[0], -np.inf, bound)


def _number(value: Value | None, absent: float) -> float | None:
    """Return the single number that ``value`` holds; None where it is not constant or not single."""
    if value is None:
        return absent
    array = constant(value)
    return float(array.item()) if array is not None and array.size == 1 else None


def _may_be_negative(value: Value) -> bool:
    """Tell whether ``value`` may hold numbers below zero that the network has made.

    An input of the model does not count: its range is the range of the pixels.
    """
    array = constant(value)
    if array is not None:
        return bool((array < 0).any())
    if (bounds := real_range(value)) is not None and bounds[0] >= 0:
        return False
    node = value.producer()
    if node is None or node.op_type in NON_NEGATIVE | AVERAGING:
        return False
    if (clamp := _clamp(node)) is not None and clamp.low >= 0:
        return False
    if node.op_type not in KEEPING:
        return True
    takes_all = node.op_type in ("Add", "Concat", "Div", "Max", "Min", "Mul", "Sum")
    return any(v is not None and _may_be_negative(v) for v in (node.inputs if takes_all else node.inputs[:1]))


def is_hard_sigmoid(node: ir.Node) -> bool:
    """Tell whether ``node`` bounds a sum x + c to (0, 2c): c at x = 0, as the Relu6(x + 3) of MobileNetV3."""
    clamp = _clamp(node)
    if clamp is None or clamp.low != 0:
        return False
    y, high, data = node.outputs[0], clamp.high, clamp.x
    if not np.isfinite(high):
        later = [c for c in map(_clamp, _readers(y)) if c is not None and c.x in (y, y.meta.get(STANDS_FOR))]
        high = min((c.high for c in later), default=np.inf)
    while (maker := data.producer()) is not None and maker.op_type in STORES and maker.inputs[0] is not None:
        data = maker.inputs[0]
    if maker is None or maker.op_type != "Add":
        return False
    shifts = [number for v in maker.inputs if (number := _number(v, 0.0)) is not None]
    return any(shift > 0 and np.isclose(high, 2 * shift, rtol=0.02) for shift in shifts)
