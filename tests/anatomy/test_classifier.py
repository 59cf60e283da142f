"""The rows of a classifier's last linear layer."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net

from onnx_gradcam.anatomy.classifier import head_rows
from onnx_gradcam.anatomy.score import find_score
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def rows(net: Net, y: str) -> np.ndarray | None:
    model = net.model({net.op("Softmax", y, out="p", axis=1): ["N", 4]})
    return head_rows(find_score(prepare(load(model).model).graph))


def pooled(net: Net) -> str:
    net.input("x", ["N", 3, 4, 4])
    return net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", net.conv("x", (3, 3)))))


def test_gemm() -> None:
    net = Net()
    flat = pooled(net)
    np.testing.assert_array_equal(rows(net, net.op("Gemm", flat, net.array(ROWS), transB=1)), ROWS)
    net = Net()
    flat = pooled(net)
    np.testing.assert_array_equal(rows(net, net.op("Gemm", flat, net.array(ROWS.T.copy()))), ROWS)


def test_matmul_and_bias() -> None:
    net = Net()
    y = net.op("MatMul", pooled(net), net.array(ROWS.T.copy()))
    np.testing.assert_array_equal(rows(net, net.op("Add", y, net.array(np.ones(4, np.float32)))), ROWS)


@pytest.mark.parametrize("behind", ["GlobalAveragePool", "Relu"])
def test_a_convolution_with_one_map_per_class(behind: str) -> None:
    net = Net()
    net.input("x", ["N", 3, 4, 4])
    maps = net.op("Relu", net.op("Conv", net.conv("x", (3, 3)), net.array(ROWS.reshape(4, 3, 1, 1))))
    y = net.op("GlobalAveragePool", maps)
    y = net.op("Relu", y) if behind == "Relu" else y
    np.testing.assert_array_equal(rows(net, net.op("Flatten", y)), ROWS)


def test_where_nothing_linear_makes_the_scores() -> None:
    net = Net()
    y = net.op("Gemm", pooled(net), net.array(ROWS), transB=1)
    assert rows(net, net.op("Mul", y, net.op("Sigmoid", y))) is None
    net = Net()
    flat = pooled(net)
    weights = net.op("Reshape", net.op("ReduceMean", "x", net.ints(0)), net.ints(3, 16))
    computed = net.op("Slice", weights, net.ints(0), net.ints(4), net.ints(1))
    assert rows(net, net.op("MatMul", flat, computed)) is None
