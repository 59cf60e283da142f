"""The table of what operators do to axes, and where a Transpose or a reshape puts an axis."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest

from onnx_gradcam.anatomy.axes import axis_after, axis_before, reshaped_axis
from onnx_gradcam.graph.operators import OPERATORS, AxisEffect, operators


def test_each_operator_stands_once() -> None:
    every = list(itertools.chain(*OPERATORS.values()))
    assert len(every) == len(set(every))
    assert OPERATORS.keys() == set(AxisEffect)
    assert operators(AxisEffect.JOINED, AxisEffect.CUT) == {"Concat", "QLinearConcat", "Split"}


def varying(after: np.ndarray) -> list[int]:
    """The axes of ``after`` along which it varies."""
    return [k for k in range(after.ndim) if (after != after.take([0], axis=k)).any()]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_transpose(order: tuple[int, ...]) -> None:
    dims = (2, 3, 4)
    x = ir.val("x", shape=dims)
    y = ir.val("y", shape=[dims[k] for k in order])
    node = ir.node("Transpose", [x], {"perm": order}, outputs=[y])
    for axis in range(3):
        index = np.broadcast_to(np.arange(dims[axis]).reshape([-1 if k == axis else 1 for k in range(3)]), dims)
        (expected,) = varying(index.transpose(order))
        assert axis_after(node, axis) == expected
        assert axis_before(node, x, expected) == axis


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 6, 4, 5), (2, 6, 20)), ((2, 20, 3), (2, 4, 5, 3)), ((2, 3, 4), (2, 3, 1, 4)), ((2, 3, 4), (6, 4))],
)
def test_a_reshape_that_leaves_an_axis_whole(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    """An axis that varies along one axis of the same length afterwards is that one."""
    for axis, count in enumerate(before):
        index = np.broadcast_to(np.arange(count).reshape([-1 if k == axis else 1 for k in range(len(before))]), before)
        along = varying(index.reshape(after))
        if len(along) == 1 and after[along[0]] == count:
            assert reshaped_axis(before, after, axis) == along[0]


def test_a_reshape_that_takes_the_features_apart() -> None:
    """Anchors × classes: the minor part."""
    assert reshaped_axis([1, 18, 4, 4], [1, 2, 9, 4, 4], 1) == 2
    assert reshaped_axis([1, 18], [1, 2, 9], 1) is None, "features of the whole image"


def test_sizes_that_only_the_run_knows() -> None:
    n, p, nameless = ir.SymbolicDim("n"), ir.SymbolicDim("p"), ir.SymbolicDim(None)
    assert reshaped_axis([n, 4, p], [n, 4, p, 1], 1) == 1
    assert reshaped_axis([n, 4, nameless], [n, 2, 2, nameless], 1) is None
