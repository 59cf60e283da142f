"""What is said of a value before the run holds in every run."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from nets import run

from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.ranges import FORMULAS, Trust, range_of

INTERVALS = [(-2.0, -1.0), (-1.5, 2.0), (0.0, 3.0), (0.5, 2.0), (-100.0, 100.0)]
UNARY = (
    "Abs Cos Erf Exp GlobalAveragePool GlobalMaxPool HardSigmoid Identity Log LogSoftmax Neg Reciprocal "
    "ReduceL1 ReduceL2 ReduceLogSum ReduceMax ReduceMean ReduceMin ReduceSum ReduceSumSquare Relu Sigmoid Sin Softmax "
    "Softplus Softsign Sqrt Tanh Trilu".split()
)
BINARY = "Add Div Max Min Mul Pow Sub Sum".split()
WITH_CONSTANTS: dict[str, Any] = {
    "AveragePool": lambda op, x: op.AveragePool(x, kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1),
    "AveragePool of what is there": lambda op, x: op.AveragePool(x, kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
    "Clip, upper bound only": lambda op, x: op.Clip(x, None, op.const(1, like=x)),
    "Clip, lower bound only": lambda op, x: op.Clip(x, op.const(0.25, like=x)),
    "Pad": lambda op, x: op.Pad(x, op.ints(0, 0, 1, 1, 0, 0, 0, 0)),
    "Pad with 9": lambda op, x: op.Pad(x, op.ints(0, 0, 1, 1, 0, 0, 0, 0), op.const(9, like=x)),
    "Concat": lambda op, x: op.Concat(x, op.const([[[[7.0] * 4]]], like=x), axis=2),
    "x²": lambda op, x: op.Pow(x, op.const(2, like=x)),
    "x³": lambda op, x: op.Pow(x, op.const(3, like=x)),
    "x⁴": lambda op, x: op.Pow(x, op.const(4, like=x)),
    "√x": lambda op, x: op.Pow(x, op.const(0.5, like=x)),
    "1/√x": lambda op, x: op.Pow(x, op.const(-0.5, like=x)),
    "x · x": lambda op, x: op.Mul(x, x),
    "x − max x": lambda op, x: op.Sub(x, op.ReduceMax(x, op.ints(-1))),
    "Where": lambda op, x: op.Where(op.Greater(x, op.const(0, like=x)), x, op.const(-5, like=x)),
    "x + 10⁻⁶": lambda op, x: op.Add(op.Mul(x, x), op.const(1e-6, like=x)),
}


def graph(count: int) -> tuple[Builder, list[Value]]:
    inputs = [ir.val(f"x{i}", dtype=ir.DataType.FLOAT, shape=[1, 1, 4, 4]) for i in range(count)]
    return Builder(ir.Graph(inputs, [], nodes=[], opset_imports={"": 18})), inputs


def check(op: Builder, y: Value, intervals: list[tuple[float, float]]) -> None:
    """Assert that y is where its range says, for inputs between the ends of the intervals and at these."""
    said = range_of(y)
    op.graph.outputs.append(y)
    rng = np.random.default_rng(0)
    fed = {}
    for i, (low, high) in enumerate(intervals):
        x = rng.uniform(low, high, (1, 1, 4, 4)).astype(np.float32)
        x[0, 0, 0, :2], x[0, 0, 1:3, i] = (low, high), (low, high)
        if low <= 0 <= high:
            x[0, 0, 3, 2 - i] = 0
        fed[f"x{i}"] = x
    found = run(ir.Model(op.graph, ir_version=8), fed, [y.name or ""])[y.name or ""]
    known = found[~np.isnan(found)]
    margin = 1e-5 * np.abs(known).max(initial=0, where=np.isfinite(known))
    assert (known >= said.low - margin).all()
    assert (known <= said.high + margin).all()
    assert said.trust == Trust.NONE or np.isfinite(found).all()


def clipped(op: Builder, x: Value, interval: tuple[float, float]) -> Value:
    """Write x, of which no more is known than that its elements lie in the interval."""
    return op.Clip(x, op.const(interval[0], like=x), op.const(interval[1], like=x))


@pytest.mark.parametrize("op_type", UNARY)
def test_one_operand(op_type: str) -> None:
    for interval in INTERVALS:
        op, (x,) = graph(1)
        check(op, getattr(op, op_type)(clipped(op, x, interval)), [interval])


@pytest.mark.parametrize("op_type", BINARY)
def test_two_operands(op_type: str) -> None:
    for intervals in itertools.product(INTERVALS, repeat=2):
        op, inputs = graph(2)
        operands = [clipped(op, x, i) for x, i in zip(inputs, intervals, strict=True)]
        check(op, getattr(op, op_type)(*operands), list(intervals))


@pytest.mark.parametrize("name", WITH_CONSTANTS)
def test_constants(name: str) -> None:
    for interval in INTERVALS:
        op, (x,) = graph(1)
        check(op, WITH_CONSTANTS[name](op, clipped(op, x, interval)), [interval])


def test_every_operator_that_computes_is_tried() -> None:
    moving = set(
        "Cast CastLike Compress DepthToSpace Dropout Expand Flatten Gather GatherElements GatherND MaxPool Reshape "
        "Shape Size Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze".split()
    )
    tried = {*UNARY, *BINARY, *(name.split(",")[0].split(" ")[0] for name in WITH_CONSTANTS)}
    assert set(FORMULAS) - moving <= tried


def test_whom_a_mask_of_minus_infinity_breaks() -> None:
    """A softmax of it may have rows that are no numbers; a Where repairs that; what a user gives, may be one."""
    op, (x,) = graph(1)
    masked = op.Where(op.Greater(x, op.const(0, like=x)), x, op.const(-np.inf, like=x))
    soft = op.Softmax(masked)
    safe = op.Where(op.Equal(soft, soft), soft, op.const(0, like=soft))
    assert [range_of(v).trust for v in (x, masked, soft, safe)] == [Trust.INPUT, Trust.NONE, Trust.NONE, Trust.FINITE]
    assert range_of(op.Softmax(x)).trust == Trust.NONE
    conv = op.Conv(x, op.const(np.ones((1, 1, 1, 1)), like=x))
    assert range_of(conv).trust == range_of(op.Softmax(conv)).trust == Trust.FINITE


def test_two_lowest_numbers_have_an_infinite_sum() -> None:
    op, (x,) = graph(1)
    lowest = op.const(np.finfo(np.float32).min, like=x)
    assert range_of(op.Add(lowest, lowest)).trust == Trust.NONE
    assert range_of(op.Add(op.Relu(op.Neg(lowest)), lowest)).trust == Trust.FINITE
    assert range_of(op.Add(x, lowest)).trust == Trust.INPUT
    assert range_of(op.const(-10000, like=x)).trust == Trust.FINITE


def test_the_depth_of_a_network_is_no_limit() -> None:
    op, (x,) = graph(1)
    for _ in range(3000):
        x = op.Relu(x)
    assert range_of(x).low == 0
