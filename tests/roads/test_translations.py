"""ATen's backward operators in ONNX: each against torch's kernel, all forms in one exported model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="torch: not installed")
pytest.importorskip("onnxscript", reason="torch: onnxscript is not installed")

from exports import quiet  # noqa: E402

from onnx_gradcam.roads.torch.translations import TRANSLATIONS  # noqa: E402

aten = torch.ops.aten
X, X1, X3 = (2, 4, 11, 10), (2, 4, 11), (2, 4, 7, 6, 9)
Case = tuple[Callable[..., Any], tuple[Any, ...]]


def convolution(x: Any, weight: Any, *form: Any) -> Case:
    """``form``: stride, padding, dilation, transposed, output padding, groups."""
    x, weight = torch.randn(x), torch.randn(weight)
    y = aten.convolution(x, weight, None, *form)

    def backward(g: Any, x: Any, weight: Any) -> Any:
        return aten.convolution_backward(g, x, weight, None, *form, [True, False, False])[0]

    return backward, (torch.randn(y.shape), x, weight)


def average(x: Any, *form: Any) -> Case:
    """``form``: kernel, stride, padding, ceil_mode, count_include_pad, divisor_override."""
    forward, backward = getattr(aten, f"avg_pool{len(form[0])}d"), getattr(aten, f"avg_pool{len(form[0])}d_backward")
    x = torch.randn(x)
    return lambda g, x: backward(g, x, *form), (torch.randn(forward(x, *form).shape), x)


def maximum(x: Any, *form: Any) -> Case:
    """``form``: kernel, stride, padding, dilation, ceil_mode. Small integers tie often."""
    name = f"max_pool{len(form[0])}d_with_indices"
    backward = getattr(aten, f"{name}_backward")
    x = torch.randint(3, x).float()
    y, indices = getattr(aten, name)(x, *form)
    return lambda g, x, indices: backward(g, x, *form, indices), (torch.randn(y.shape), x, indices)


def adaptive(*size: int) -> Case:
    return aten._adaptive_avg_pool2d_backward, (torch.randn(*X[:2], *size), torch.randn(X))


CASES: dict[str, tuple[Any, ...]] = {
    "conv, strides that leave a rest": (convolution, X, (6, 4, 3, 3), [2, 2], [1, 1], [1, 1], False, [0, 0], 1),
    "conv, two of each": (convolution, X, (6, 4, 3, 2), [2, 3], [0, 1], [2, 1], False, [0, 0], 1),
    "conv, groups, gaps": (convolution, X, (8, 2, 3, 3), [4, 4], [0, 0], [1, 1], False, [0, 0], 2),
    "conv, depthwise, wide pads": (convolution, X, (4, 1, 3, 3), [1, 1], [4, 4], [2, 2], False, [0, 0], 4),
    "conv, one dimension": (convolution, X1, (6, 4, 3), [2], [1], [1], False, [0], 1),
    "conv, three dimensions": (convolution, X3, (6, 4, 3, 2, 3), [2] * 3, [1] * 3, [1] * 3, False, [0] * 3, 1),
    "transposed": (convolution, X, (4, 6, 3, 3), [2, 2], [1, 1], [1, 1], True, [1, 1], 1),
    "transposed, border beyond stride": (convolution, X, (4, 6, 3, 3), [2, 2], [1, 1], [3, 3], True, [2, 2], 1),
    "transposed, groups": (convolution, X, (4, 2, 2, 2), [2, 2], [0, 0], [1, 1], True, [0, 0], 2),
    "average": (average, X, [3, 3], [2, 2], [1, 1], False, True, None),
    "average of what is there": (average, X, [3, 3], [2, 2], [1, 1], False, False, None),
    "average, ceil": (average, X, [3, 3], [2, 2], [1, 1], True, True, None),
    "average of what is there, ceil": (average, X, [4, 4], [3, 3], [2, 2], True, False, None),
    "average, a window that begins behind the pads": (average, X, [4, 4], [3, 3], [2, 2], True, True, None),
    "average, divisor": (average, X, [2, 3], [2, 3], [0, 0], False, True, 5),
    "average, the kernel's stride": (average, X, [3, 2], [], [0, 0], False, True, None),
    "average, one image": (average, X[1:], [3, 3], [2, 2], [1, 1], False, True, None),
    "average, three dimensions": (average, X3, [3, 2, 3], [2, 2, 2], [1, 1, 1], True, False, None),
    "adaptive, bins that overlap": (adaptive, 3, 4),
    "adaptive, more bins than places": (adaptive, 13, 1),
    "maximum": (maximum, X, [3, 3], [2, 2], [1, 1], [1, 1], False),
    "maximum, ceil": (maximum, X, [2, 2], [2, 2], [0, 0], [1, 1], True),
    "maximum, dilated": (maximum, X, [3, 2], [1, 2], [1, 0], [2, 1], False),
    "maximum, three dimensions": (maximum, X3, [3] * 3, [2] * 3, [1] * 3, [1] * 3, False),
}


class Calls(torch.nn.Module):  # type: ignore[misc]
    """Every case's operator on its arguments."""

    def __init__(self, functions: list[Any]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, arguments: Any) -> Any:
        return [f(*given) for f, given in zip(self.functions, arguments, strict=True)]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What onnxruntime gives and what torch gives, by case."""
    torch.manual_seed(0)
    functions, arguments = zip(*(make(*form) for make, *form in CASES.values()), strict=True)
    module = Calls(list(functions)).eval()
    with quiet():
        program = torch.onnx.export(
            module, (list(arguments),), dynamo=True, verbose=False, custom_translation_table=dict(TRANSLATIONS)
        )
    session = ort.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    flat = [tensor.numpy() for given in arguments for tensor in given]
    found = session.run(None, {i.name: x for i, x in zip(session.get_inputs(), flat, strict=True)})
    expected = [y.numpy() for y in module(arguments)]
    return {name: pair for name, *pair in zip(CASES, found, expected, strict=True)}  # type: ignore[misc]


@pytest.mark.parametrize("case", CASES)
def test_against_torch(case: str, outcomes: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    found, expected = outcomes[case]
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
