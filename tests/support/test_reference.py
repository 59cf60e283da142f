"""The reference operators against torch, ONNX Runtime and numbers computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import one_node, session
from reference import evaluator

RNG = np.random.default_rng(3)


def run(op_type: str, *inputs: np.ndarray, outputs: int = 1, opset: int = 19, **attributes: Any) -> list[np.ndarray]:
    model = one_node(op_type, inputs, attributes, outputs=outputs, opset=opset)
    return evaluator(model).run(None, {f"x{i}": x for i, x in enumerate(inputs)})


def tensor(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


CONVOLUTIONS = [  # stride, pad, dilation, group, by spatial rank
    pytest.param(n, s, p, d, g, id=f"{n}d-s{s}-p{p}-d{d}-g{g}")
    for n in (1, 2, 3)
    for s, p, d, g in [(1, 0, 1, 1), (1, 1, 1, 2), (2, 1, 1, 1), (2, 2, 2, 2), (3, 0, 1, 4)]
]
POOLS = [  # kernel, stride, pad, dilation, size
    pytest.param(n, *shape, ceil, id=f"{n}d-{shape}-ceil{ceil}".replace(" ", ""))
    for n in (1, 2, 3)
    for shape in [(3, 2, 1, 1, 6), (2, 2, 0, 1, 5), (3, 3, 1, 1, 5), (2, 2, 1, 1, 5), (3, 1, 1, 1, 4), (2, 3, 0, 1, 7)]
    for ceil in (0, 1)
]


@pytest.mark.parametrize(("n", "stride", "pad", "dilation", "group"), CONVOLUTIONS)
def test_conv_is_that_of_torch(n: int, stride: int, pad: int, dilation: int, group: int) -> None:
    torch = pytest.importorskip("torch", reason="torch: not installed")
    x, w, b = tensor(2, 4, *[7, 6, 5][:n]), tensor(8, 4 // group, *[3, 2, 1][:n]), tensor(8)
    apply = [torch.conv1d, torch.conv2d, torch.conv3d][n - 1]
    expected = apply(*map(torch.tensor, (x, w, b)), stride, pad, dilation, group)
    attributes = {"strides": [stride] * n, "pads": [pad] * 2 * n, "dilations": [dilation] * n, "group": group}
    np.testing.assert_allclose(run("Conv", x, w, b, **attributes)[0], expected, atol=1e-12)


@pytest.mark.parametrize(("n", "stride", "pad", "dilation", "group"), CONVOLUTIONS)
def test_conv_transpose_is_that_of_torch(n: int, stride: int, pad: int, dilation: int, group: int) -> None:
    torch = pytest.importorskip("torch", reason="torch: not installed")
    x, w, b = tensor(2, 4, *[5, 4, 3][:n]), tensor(4, 3, *[3, 2, 3][:n]), tensor(3 * group)
    apply = [torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d][n - 1]
    expected = apply(*map(torch.tensor, (x, w, b)), stride, pad, stride - 1, group, dilation)
    attributes = {"strides": [stride] * n, "pads": [pad] * 2 * n, "dilations": [dilation] * n, "group": group}
    found = run("ConvTranspose", x, w, b, output_padding=[stride - 1] * n, **attributes)[0]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(("n", "kernel", "stride", "pad", "dilation", "size", "ceil"), POOLS)
def test_max_pool_is_that_of_torch(
    n: int, kernel: int, stride: int, pad: int, dilation: int, size: int, ceil: int
) -> None:
    torch = pytest.importorskip("torch", reason="torch: not installed")
    x = RNG.integers(0, 3, (2, 2, *[size] * n)).astype(np.float64)
    functions = torch.nn.functional
    apply = [functions.max_pool1d, functions.max_pool2d, functions.max_pool3d][n - 1]
    y, index = apply(torch.tensor(x), kernel, stride, pad, dilation, bool(ceil), return_indices=True)
    attributes = {"strides": [stride] * n, "pads": [pad] * 2 * n, "dilations": [dilation] * n, "ceil_mode": ceil}
    found = run("MaxPool", x, outputs=2, kernel_shape=[kernel] * n, **attributes)
    np.testing.assert_array_equal(found[0], y)
    np.testing.assert_array_equal(found[1] % size**n, index)  # torch counts within the channel


@pytest.mark.parametrize("include_pad", [0, 1])
@pytest.mark.parametrize(("n", "kernel", "stride", "pad", "dilation", "size", "ceil"), POOLS)
def test_average_pool_is_that_of_torch(
    n: int, kernel: int, stride: int, pad: int, dilation: int, size: int, ceil: int, include_pad: int
) -> None:
    torch = pytest.importorskip("torch", reason="torch: not installed")
    x = tensor(2, 2, *[size] * n)
    functions = torch.nn.functional
    apply = [functions.avg_pool1d, functions.avg_pool2d, functions.avg_pool3d][n - 1]
    expected = apply(torch.tensor(x), kernel, stride, pad, bool(ceil), bool(include_pad))
    attributes = {"strides": [stride] * n, "pads": [pad] * 2 * n, "ceil_mode": ceil, "count_include_pad": include_pad}
    np.testing.assert_allclose(run("AveragePool", x, kernel_shape=[kernel] * n, **attributes)[0], expected, atol=1e-12)


ROW = np.arange(1.0, 6).reshape(1, 1, 5)  # 1 2 3 4 5


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"auto_pad": "SAME_UPPER"}, [3, 5, 7, 9, 5]),
        ({"auto_pad": "SAME_LOWER"}, [1, 3, 5, 7, 9]),
        ({"auto_pad": "SAME_UPPER", "strides": [2]}, [3, 7, 5]),
        ({"auto_pad": "SAME_LOWER", "strides": [2]}, [1, 5, 9]),
        ({"auto_pad": "VALID"}, [3, 5, 7, 9]),
        ({"pads": [1, 0]}, [1, 3, 5, 7, 9]),
    ],
)
def test_windows_of_a_sum_of_two(attributes: dict[str, Any], expected: list[float]) -> None:
    np.testing.assert_array_equal(run("Conv", ROW, np.ones((1, 1, 2)), **attributes)[0].ravel(), expected)
    counted = run("AveragePool", ROW, kernel_shape=[2], count_include_pad=1, **attributes)[0]
    np.testing.assert_array_equal(2 * counted.ravel(), expected)


def test_max_pool_numbers_places_over_the_whole_tensor_by_rows_or_by_columns() -> None:
    x = np.array([[0, 9, 0], [0, 0, 0]], np.float64)
    two = np.stack([x, x[::-1]])[None]
    attributes = {"outputs": 2, "kernel_shape": [2, 3]}
    np.testing.assert_array_equal(run("MaxPool", two, **attributes)[1].ravel(), [1, 6 + 4])
    np.testing.assert_array_equal(run("MaxPool", two, storage_order=1, **attributes)[1].ravel(), [2, 6 + 3])


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"strides": [2]}, [1, 1, 3, 2, 2]),
        ({"strides": [2], "pads": [1, 1]}, [1, 3, 2]),
        ({"strides": [2], "output_padding": [1]}, [1, 1, 3, 2, 2, 0]),
        ({"strides": [2], "auto_pad": "SAME_UPPER"}, [1, 1, 3, 2]),
        ({"strides": [2], "auto_pad": "SAME_LOWER"}, [1, 3, 2, 2]),
        ({"strides": [2], "output_shape": [3]}, [1, 3, 2]),
    ],
)
def test_windows_of_a_transposed_convolution(attributes: dict[str, Any], expected: list[float]) -> None:
    x = np.array([[[1.0, 2]]])
    np.testing.assert_array_equal(run("ConvTranspose", x, np.ones((1, 1, 3)), **attributes)[0].ravel(), expected)


def test_pad_takes_away_where_it_is_negative() -> None:
    pads = np.array([1, -2, -1, 2])
    two = np.arange(6.0).reshape(2, 3)
    expected = [[7, 7, 7], [2, 7, 7]]
    np.testing.assert_array_equal(run("Pad", two, pads, np.array(7.0))[0], expected)
    edge = run("Pad", two, np.array([-2, 1]), np.array(0.0), np.array([-1]), mode="edge")[0]
    np.testing.assert_array_equal(edge, [[2, 2], [5, 5]])
    wrapped = run("Pad", np.arange(5.0), np.array([3, -2]), mode="wrap")[0]
    np.testing.assert_array_equal(wrapped, [0, 1, 2, 0, 1, 2])


def test_gather_elements_with_a_smaller_index() -> None:
    two = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(run("GatherElements", two, np.array([[2, -3, 0]]), axis=1)[0], [[2, 0, 0]])
    np.testing.assert_array_equal(run("GatherElements", two, np.array([[1], [-2]]))[0], [[3], [0]])


def test_global_max_pool_takes_all_spatial_axes() -> None:
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    for shape in [(1, 2, 12), (1, 2, 3, 4), (1, 2, 3, 2, 2)]:
        found = run("GlobalMaxPool", x.reshape(shape))[0]
        np.testing.assert_array_equal(found, np.reshape([11.0, 23.0], (1, 2, *[1] * (len(shape) - 2))))


def test_same_padding_of_a_dilated_convolution() -> None:
    """As the specification has it; onnxruntime refuses it."""
    found = run("Conv", ROW, np.ones((1, 1, 2)), auto_pad="SAME_UPPER", dilations=[2])[0]
    np.testing.assert_array_equal(found.ravel(), [2, 4, 6, 8, 4])


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "LpPool"])
def test_windows_are_those_of_the_runtime(op_type: str, auto_pad: str, dilation: int, ceil: int) -> None:
    """Padding for the bare kernel, ceil_mode with every auto_pad: where the specification and torch say nothing."""
    for size, kernel, stride in [(7, 3, 2), (8, 3, 2), (6, 3, 1), (9, 3, 3), (7, 2, 2), (10, 4, 3)]:
        x = np.abs(tensor(1, 2, size, size + 1)) + 0.5
        form = {"auto_pad": auto_pad, "dilations": [dilation] * 2, "strides": [stride] * 2, "ceil_mode": ceil}
        attributes = {"kernel_shape": [kernel] * 2, **form}
        model = one_node(op_type, [x.astype(np.float32)], attributes, opset=19, dims=lambda _i, _x: [None] * 4)
        (expected,) = session(model).run(None, {"x0": x.astype(np.float32)})
        found = run(op_type, x, kernel_shape=[kernel] * 2, **form)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=f"{size}, {kernel}, {stride}")
