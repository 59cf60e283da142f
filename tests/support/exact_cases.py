"""Attributions of small nets in round numbers, each worked out by hand.

The nets are those of captum's own tests: a ReLU that saturates, two inputs whose rectifiers compete, a perceptron with
a unit that starts late, and one convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from nets import Net

F32 = np.float32


def saturating() -> onnx.ModelProto:
    """y = 1 − relu(1 − x)."""
    net = Net()
    one = net.array(F32([[1]]))
    net.op("Sub", one, net.op("Relu", net.op("Sub", one, net.input("x", ["N", 1]))), out="y")
    return net.model({"y": ["N", 1]})


def numbers() -> onnx.ModelProto:
    """y = relu(relu(a) − 1 − relu(b)), one number for each image: (N,)."""
    net = Net()
    a, b = (net.op("Relu", net.input(name, ["N"])) for name in "ab")
    net.op("Relu", net.op("Sub", net.op("Sub", a, net.array(F32([1]))), b), out="y")
    return net.model({"y": ["N"]})


def difference() -> onnx.ModelProto:
    """y = relu(relu(a) − 1 − relu(b))."""
    net = Net()
    a, b = (net.op("Relu", net.input(name, ["N", 1])) for name in "ab")
    net.op("Relu", net.op("Sub", net.op("Sub", a, net.array(F32([[1]]))), b), out="y")
    return net.model({"y": ["N", 1]})


def late() -> onnx.ModelProto:
    """y = relu(relu(a − 1) − relu(b))."""
    net = Net()
    a = net.op("Relu", net.op("Sub", net.input("a", ["N", 1]), net.array(F32([[1]]))))
    net.op("Relu", net.op("Sub", a, net.op("Relu", net.input("b", ["N", 1]))), out="y")
    return net.model({"y": ["N", 1]})


def perceptron() -> onnx.ModelProto:
    """h = relu(x₁ + x₂ + x₃ + (−10, 1, 1, 1)), y = Σ h + (−1, 1)."""
    net = Net()
    ones = net.array(np.ones((4, 3), F32)), net.array(F32([-10, 1, 1, 1]))
    h = net.op("Relu", net.op("Gemm", net.input("x", ["N", 3]), *ones, transB=1))
    net.op("Gemm", h, net.array(np.ones((2, 4), F32)), net.array(F32([-1, 1])), transB=1, out="y")
    return net.model({"y": ["N", 2]})


SIGNS = F32([1, 1, 1, 1, 1, -1, -1, -1])  # of the two channels of four windows in ``convolution``


def convolution() -> onnx.ModelProto:
    """A (2 channels) = relu of the sums of the four 3 × 3 windows, y = relu(⟨signs, A⟩), the same for four classes."""
    net = Net()
    x = net.op("Conv", net.input("x", ["N", 1, 4, 4]), net.array(np.ones((2, 1, 3, 3), F32)))
    flat = net.op("Reshape", net.op("Relu", x, out="windows"), net.ints(-1, 8))
    net.op("Relu", net.op("Gemm", flat, net.array(np.tile(SIGNS, (4, 1))), transB=1), out="y")
    return net.model({"y": ["N", 4]})


def product() -> onnx.ModelProto:
    """y = a · b · c."""
    net = Net()
    a, b, c = (net.input(name, ["N", 1]) for name in "abc")
    net.op("Mul", net.op("Mul", a, b), c, out="y")
    return net.model({"y": ["N", 1]})


NETS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    f.__name__: f for f in (saturating, numbers, difference, late, perceptron, convolution, product)
}


AFTER_RELU = {"convolution"}
"""Nets with several outputs behind a ReLU, which are taken for no classes unless they are named."""


@dataclass(frozen=True)
class Case:
    """What a method gives for one input of a net.

    Attributes:
        net: the name of the net.
        method: the name of the method.
        feeds: arrays by input name.
        expected: the attributions by input name.
        target: the class; None for a net with one output.
        options: options of the method.
    """

    net: str
    method: str
    feeds: Mapping[str, Any]
    expected: Mapping[str, Any]
    target: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


STEPS = {"steps": 42}  # a multiple of 2, 3, 6 and 7: the kinks below lie between two steps, and the integral is exact
COLUMN = np.array([[1.0], [2], [3], [0], [-1], [7]], F32)
ONE_EACH = {"a": F32([[3]]), "b": F32([[1]])}
PIXELS = np.arange(16, dtype=F32).reshape(1, 1, 4, 4)
TWO_ROWS = {"a": F32([[3], [4]]), "b": F32([[1], [1]])}

CASES = [
    Case("saturating", "saliency", {"x": COLUMN}, {"x": [[0], [0], [0], [1], [1], [0]]}),
    Case("saturating", "input-x-gradient", {"x": COLUMN}, {"x": [[0], [0], [0], [0], [-1], [0]]}),
    Case("saturating", "integrated-gradients", {"x": COLUMN}, {"x": [[1], [1], [1], [0], [-1], [1]]}, options=STEPS),
    Case("numbers", "saliency", {"a": F32([3, 4]), "b": F32([1, 5])}, {"a": [1, 0], "b": [-1, 0]}),
    Case("numbers", "integrated-gradients", {"a": F32([3]), "b": F32([1])}, {"a": [1.5], "b": [-0.5]}, options=STEPS),
    Case("difference", "saliency", ONE_EACH, {"a": [[1]], "b": [[-1]]}),
    Case("difference", "input-x-gradient", ONE_EACH, {"a": [[3]], "b": [[-1]]}),
    # relu(3α − 1 − α) wakes at α = ½: a gets 3 · ½, b gets −1 · ½
    Case("difference", "integrated-gradients", ONE_EACH, {"a": [[1.5]], "b": [[-0.5]]}, options=STEPS),
    # a = 4: relu(4α − 1 − α) wakes at α = ⅓
    Case(
        "difference", "integrated-gradients", TWO_ROWS, {"a": [[1.5], [8 / 3]], "b": [[-0.5], [-2 / 3]]}, options=STEPS
    ),
    # b stays at 1: relu(3α − 2) wakes at α = ⅔
    Case(
        "difference", "integrated-gradients", ONE_EACH, {"a": [[1]], "b": [[0]]},
        options=STEPS | {"baseline": {"a": 0.0, "b": 1.0}},
    ),
    Case("late", "saliency", ONE_EACH, {"a": [[1]], "b": [[-1]]}),
    Case("late", "integrated-gradients", ONE_EACH, {"a": [[1.5]], "b": [[-0.5]]}, options=STEPS),
    # from a = 2, b = 0, where y = 1: relu(1 + α − α) stays 1, a gets 1, b gets −1
    Case(
        "late", "integrated-gradients", ONE_EACH, {"a": [[1]], "b": [[-1]]},
        options=STEPS | {"baseline": {"a": 2.0, "b": 0.0}},
    ),
    Case("perceptron", "saliency", {"x": F32([[100, 0, 0], [0, 5, 0]])}, {"x": [[4, 4, 4], [3, 3, 3]]}, 0),
    Case("perceptron", "input-x-gradient", {"x": F32([[100, 0, 0]])}, {"x": [[400, 0, 0]]}, 1),
    # the first unit wakes at α = 1/10
    Case(
        "perceptron", "integrated-gradients", {"x": F32([[100, 0, 0]])}, {"x": [[390, 0, 0]]}, 1, {"steps": 50},
    ),
    Case("perceptron", "guided-backprop", {"x": F32([[100, 0, 0]])}, {"x": [[4, 4, 4]]}, 0),
    # deconvolution does not ask which unit was active
    Case("perceptron", "deconvolution", {"x": F32([[0, 5, 0]])}, {"x": [[4, 4, 4]]}, 0),
    # ⟨signs, A⟩: of the two channels of a window, the first window has 1 + 1, the others 1 − 1
    Case(
        "convolution", "saliency", {"x": PIXELS},
        {"x": [[[[2, 2, 2, 0], [2, 2, 2, 0], [2, 2, 2, 0], [0, 0, 0, 0]]]]}, 0,
    ),
    # what is negative is cut: the first window has 2, the others 1
    Case(
        "convolution", "guided-backprop", {"x": PIXELS},
        {"x": [[[[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]]]}, 0,
    ),
    Case(
        "convolution", "deconvolution", {"x": PIXELS},
        {"x": [[[[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]]]}, 3,
    ),
    # from 0 the score is linear along the path
    Case(
        "convolution", "integrated-gradients", {"x": PIXELS},
        {"x": [[[[0, 2, 4, 0], [8, 10, 12, 0], [16, 18, 20, 0], [0, 0, 0, 0]]]]}, 0, STEPS,
    ),
    # each gets ∫ 3α² dα of the product
    Case(
        "product", "integrated-gradients", {"a": F32([[2]]), "b": F32([[3]]), "c": F32([[-1]])},
        {"a": [[-2]], "b": [[-2]], "c": [[-2]]}, options={"steps": 1000},
    ),
]  # fmt: skip

GRADCAM_OF_WINDOWS = np.array([[[22.5, 27], [40.5, 45]]], F32)
"""α = (1, −½): the means of the signs. The cam is half of the windows' sums."""
