from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import run

from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph.builder import (
    SMALL,
    Builder,
    ints_of,
    is_compact,
    rank,
    same_dim,
    static_dims,
)

F = ir.DataType.FLOAT


def started(opset: int = 18, **inputs: Any) -> tuple[Builder, ir.Graph, list[ir.Value]]:
    """A builder on an empty graph with float inputs of these shapes."""
    values = [ir.val(name, dtype=F, shape=shape) for name, shape in inputs.items()]
    graph = ir.Graph(values, [], nodes=[], opset_imports={"": opset}, name="g")
    return Builder(graph), graph, values


def evaluate(graph: ir.Graph, result: ir.Value, **arrays: np.ndarray) -> np.ndarray:
    graph.outputs.append(result)
    model = ir.to_proto(ir.Model(graph, ir_version=8))
    graph.outputs.pop()
    onnx.checker.check_model(model, full_check=False)
    found: np.ndarray = run(model, arrays)[result.name]
    return found


def test_a_node_is_appended_named_and_inferred() -> None:
    op, graph, (a, b) = started(a=[2, 3], b=[3])
    y = op.Mul(a, b)
    (node,) = graph
    assert (node.op_type, node.name, y.name) == ("Mul", "grad/Mul_1", "grad/Mul_1")
    assert y.producer() is node
    assert (y.dtype, static_dims(y)) == (F, (2, 3))
    found = evaluate(graph, y, a=np.ones((2, 3), np.float32), b=np.array([1, 2, 3], np.float32))
    np.testing.assert_array_equal(found, [[1, 2, 3], [1, 2, 3]])


def test_constants_help_to_infer_shapes() -> None:
    op, _, (a,) = started(a=["N", 3, 4])
    y = op.Reshape(a, op.ints(0, -1))
    assert y.shape is not None
    assert (str(y.shape[0]), y.shape[1]) == ("N", 12)


def test_an_operator_of_another_opset_is_refused() -> None:
    op, graph, (a,) = started(opset=19, a=[2])
    with pytest.raises(AttributeError, match="opset 19 has no operator 'Gelu'"):
        op.Gelu(a)
    with pytest.raises(AttributeError, match="'Mull'"):
        op.Mull(a, a)
    assert len(graph) == 0
    op, graph, (a,) = started(opset=20, a=[2])
    assert op.Gelu(a).dtype == F


def test_an_unknown_attribute_is_refused() -> None:
    op, graph, (a,) = started(a=[2])
    with pytest.raises(TypeError, match="Softmax of opset 18 has no attribute"):
        op.Softmax(a, axes=1)
    assert len(graph) == 0


def test_attributes_that_are_none_are_left_out() -> None:
    op, graph, (a,) = started(a=[2, 2])
    op.Softmax(a, axis=None)
    assert not next(iter(graph)).attributes


def test_several_outputs() -> None:
    op, graph, (a,) = started(a=[4])
    low, high = op.node("Split", a, op.ints(1, 3), outputs=2)
    assert (low.name, high.name) == ("grad/Split_2:0", "grad/Split_2:1")
    assert (static_dims(low), static_dims(high)) == ((1,), (3,))
    np.testing.assert_array_equal(evaluate(graph, high, a=np.arange(4, dtype=np.float32)), [1, 2, 3])


def test_optional_inputs_may_be_left_out() -> None:
    op, graph, (a,) = started(a=[3])
    y = op.Clip(a, None, op.const(1, like=a))
    np.testing.assert_array_equal(evaluate(graph, y, a=np.array([-5, 0, 5], np.float32)), [-5, 0, 1])


def test_constants_take_the_dtype_asked_for() -> None:
    op, _, (a,) = started(a=[2])
    half = op.Cast(a, to=int(ir.DataType.FLOAT16))
    for like, dtype in ((a, np.float32), (half, np.float16)):
        value = op.const([1, 2.5], like=like)
        assert value.dtype == like.dtype
        assert value.const_value.numpy().dtype == dtype  # type: ignore[union-attr]
        np.testing.assert_array_equal(value.const_value.numpy(), [1, 2.5])  # type: ignore[union-attr]
    assert ints_of(op.ints(3, -1)) == [3, -1]
    with pytest.raises(TypeError, match="dtype of 'x'"):
        op.const(1, like=ir.val("x"))


def test_equal_small_constants_are_shared() -> None:
    op, graph, _ = started()
    assert op.ints(1, 2) is op.ints(1, 2)
    assert op.ints(1, 2) is not op.array(np.array([[1, 2]]))
    assert op.ints(1, 2) is not op.array(np.array([1, 2], np.int32))
    assert op.array(np.array(0.0)) is not op.array(np.array(-0.0))
    assert op.array(np.array(0.0)) is not op.array(np.array(0))
    large = np.zeros(SMALL + 1)
    assert op.array(large) is not op.array(large)
    assert len(graph.initializers) == 8


def test_a_constant_keeps_its_values_whatever_its_memory_layout() -> None:
    op, _, _ = started()
    array = np.arange(6).reshape(2, 3)
    for given in (array.T, array[:, ::-1], np.broadcast_to(array[:1], (2, 3))):
        np.testing.assert_array_equal(op.array(given).const_value.numpy(), given)  # type: ignore[union-attr]


def test_a_static_shape_is_a_constant_and_a_dynamic_one_is_asked_for_once() -> None:
    op, graph, (a, b) = started(a=[2, 3], b=["N", 3])
    assert ints_of(op.shape_of(a)) == [2, 3]
    assert len(graph) == 0
    assert op.shape_of(b) is op.shape_of(b)
    assert [node.op_type for node in graph] == ["Shape"]
    np.testing.assert_array_equal(
        evaluate(graph, op.shape_of(b), a=np.ones((2, 3), np.float32), b=np.ones((5, 3), np.float32)), [5, 3]
    )


def test_expand_writes_nothing_for_a_full_value() -> None:
    op, graph, (a, b) = started(a=["N", 3], b=["N", 3])
    assert op.expand(a, b) is a
    assert len(graph) == 0


@pytest.mark.parametrize("shape", [[1, 3], ["N", 1], [1, 1], [3], [1], []])
def test_expand_broadcasts_a_compact_value(shape: list[int | str]) -> None:
    op, graph, (a, b) = started(a=shape, b=["N", 3])
    full = op.expand(a, b)
    assert str(full.shape) == "[N,3]"
    given = np.arange(6, dtype=np.float32)[: int(np.prod([2 if d == "N" else d for d in shape]))]
    given = given.reshape([2 if d == "N" else int(d) for d in shape])
    found = evaluate(graph, full, a=given, b=np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(found, np.broadcast_to(given, (2, 3)))


def test_fill_expands_whatever_is_known() -> None:
    op, graph, (a, b) = started(a=["M"], b=["N"])
    full = op.fill(a, b)
    found = evaluate(graph, full, a=np.array([7], np.float32), b=np.zeros(3, np.float32))
    np.testing.assert_array_equal(found, [7, 7, 7])


def test_names_that_are_taken_are_passed_over() -> None:
    a = ir.val("Neg_2", dtype=F, shape=[2])
    taken = ir.node("Neg", [a], outputs=[ir.val("grad/Neg_1", dtype=F, shape=[2])])
    graph = ir.Graph([a], [], nodes=[taken], opset_imports={"": 18}, name="g")
    op = Builder(graph)
    assert op.Neg(a).name == "grad/Neg_3", "grad/Neg_2 is what the gradient of Neg_2 is called"


def test_another_prefix() -> None:
    _, graph, (a,) = started(a=[2])
    assert Builder(graph, "tail").Neg(a).name == "tail/Neg_1"


def test_what_is_known_of_shapes() -> None:
    static, dynamic, unknown = ir.val("s", shape=[2, 3]), ir.val("d", shape=["N", 3]), ir.val("u")
    assert (static_dims(static), static_dims(dynamic), static_dims(unknown)) == ((2, 3), None, None)
    assert (rank(static), rank(dynamic)) == (2, 2)
    with pytest.raises(ModelError, match="rank of 'u'"):
        rank(unknown)
    n, m, nameless = ir.SymbolicDim("N"), ir.SymbolicDim("M"), ir.SymbolicDim(None)
    assert same_dim(3, 3)
    assert same_dim(n, ir.SymbolicDim("N"))
    for a, b in ((3, 4), (n, m), (n, 3), (nameless, nameless)):
        assert not same_dim(a, b)


@pytest.mark.parametrize(
    ("g", "like", "compact"),
    [
        ([2, 1], [2, 3], True),
        ([3], [2, 3], True),
        ([2, 1], [2, 1], False),
        (["N", 3], ["N", 3], False),
        ([1, 3], ["N", 3], True),
        (["M", 3], ["N", 3], False),
        ([1, 2, 3], [2, 3], False),  # the rank of like was declared wrongly
    ],
)
def test_is_compact(g: list[Any], like: list[Any], compact: bool) -> None:
    assert is_compact(ir.val("g", shape=g), ir.val("like", shape=like)) == compact
    assert is_compact(ir.val("g"), ir.val("like", shape=like))  # for all that is known
    assert is_compact(ir.val("g", shape=g), ir.val("like"))


def test_ints_of_what_is_not_constant() -> None:
    assert ints_of(None) is None
    assert ints_of(ir.val("x", dtype=ir.DataType.INT64, shape=[2])) is None


def test_inputs_that_an_operator_does_not_take_are_a_model_error() -> None:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18})
    op = Builder(graph)
    x = ir.val("x", dtype=ir.DataType.BFLOAT16, shape=ir.Shape([1, 3, 8, 8]))
    with pytest.raises(ModelError, match="AveragePool of opset 18 does not take 'x' BFLOAT16"):
        op.AveragePool(x, kernel_shape=[2, 2])
    a, b = (ir.val(n, dtype=ir.DataType.FLOAT, shape=ir.Shape([k])) for n, k in (("a", 2), ("b", 3)))
    with pytest.raises(ModelError, match="Add of opset 18"):
        op.Add(a, b)
