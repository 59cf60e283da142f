"""What is known of a value before the run, without changing the graph."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

UNKNOWN = "onnx_gradcam.not_constant"
RANDOM = frozenset("RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli".split())
# Operators of other domains that are the standard ones for more dtypes.
TWINS = frozenset({("com.microsoft", "QuantizeLinear"), ("com.microsoft", "DequantizeLinear")})
UNWRITTEN = frozenset("GlobalLpPool MaxRoiPool Scatter".split())  # in the reference evaluator
DEQUANTIZES_FROM = 21  # the evaluator's DequantizeLinear for all integers; it computes what that of opset 13 does


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the array of a value that does not depend on the model's inputs, or None.

    Initializers are read; what constant operators make of them (Identity, ConstantOfShape, DequantizeLinear, the Shape
    of a static value …) is computed once with the reference evaluator. The graph itself stays as deployed.
    """
    if value is None:
        return None
    pending = [value]  # not by recursion: a network may be deeper than Python's stack
    while pending:
        if _is_settled(pending[-1]):
            pending.pop()
        elif (unsettled := _unsettled_input(pending[-1])) is not None:
            pending.append(unsettled)
        else:
            _settle(pending.pop())
    return None if value.const_value is None else value.const_value.numpy()


def _is_settled(value: ir.Value) -> bool:
    return value.const_value is not None or UNKNOWN in value.meta


def _unsettled_input(value: ir.Value) -> ir.Value | None:
    """Return the first input that must be settled before ``value`` can be; None where no more of them matters."""
    node = value.producer()
    if node is None or not _is_evaluated(node) or _own_dims(node) is not None:
        return None
    inputs = node.inputs[:1] if _is_cast_like(value, node) else node.inputs
    if node.op_type == "Gather" and node.inputs[1] is not None and not _is_settled(node.inputs[1]):
        return node.inputs[1]
    if node.op_type == "Gather" and _gathered_dims(node) is not None:
        return None
    for x in inputs:
        if x is not None and not _is_settled(x):
            return x
        if x is not None and UNKNOWN in x.meta:
            return None
    return None


def _settle(value: ir.Value) -> None:
    """Note what ``value`` is, or that it is not known before the run; what that takes of its inputs is settled."""
    array = _compute(value)
    if array is None:
        value.meta[UNKNOWN] = True
    else:
        value.const_value = ir.tensor(array, name=value.name)


def forget(value: ir.Value) -> None:
    """Forget what was found of a value: more shapes are known now."""
    value.meta.pop(UNKNOWN, None)


@contextlib.contextmanager
def unknown(values: Iterable[ir.Value]) -> Iterator[None]:
    """Take values for ones that are known in the run only, as long as the context lasts.

    A gradient with respect to a constant must not be lost where an operator is written through others, which fold what
    is constant.
    """
    known = {value: value.const_value for value in values if constant(value) is not None}
    for value in known:
        value.const_value = None
        value.meta[UNKNOWN] = True
    try:
        yield
    finally:
        for value, tensor in known.items():
            forget(value)
            value.const_value = tensor


def _compute(value: ir.Value) -> np.ndarray | None:
    node = value.producer()
    if node is None or not _is_evaluated(node):
        return None
    if (dims := _own_dims(node)) is not None:
        return dims
    if value.dtype is not None and _is_cast_like(value, node):
        array = constant(node.inputs[0])
        return None if array is None else array.astype(value.dtype.numpy())
    if node.op_type == "Gather" and (dims := _gathered_dims(node)) is not None:
        return dims
    arrays = _constant_inputs(node)
    if arrays is None:
        return None
    try:
        return evaluate(node, arrays, [value])[0]
    except (IndexError, RuntimeError, TypeError, ValueError):
        return None  # the evaluator is stricter than onnxruntime, as with CumSum's axis: the run will tell


def _is_evaluated(node: ir.Node) -> bool:
    """Tell whether the reference evaluator computes ``node`` as onnxruntime does, and always the same."""
    if node.op_type in RANDOM | UNWRITTEN:
        return False
    if node.domain not in ("", "ai.onnx") and (node.domain, node.op_type) not in TWINS:
        return False
    return all(a.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())


def _constant_inputs(node: ir.Node) -> dict[str, np.ndarray] | None:
    """Return the arrays of what ``node`` reads, by name; None where one of them is not constant."""
    arrays: dict[str, np.ndarray] = {}
    for value in node.inputs:
        if value is not None:
            array = constant(value)
            if array is None:
                return None
            arrays[value.name or ""] = array
    return arrays


def _is_cast_like(value: ir.Value, node: ir.Node) -> bool:
    """Tell whether ``node`` is a CastLike to a known dtype: its second operand lends no number."""
    return node.op_type == "CastLike" and value.dtype is not None


def _own_dims(node: ir.Node) -> np.ndarray | None:
    """Return what a Shape or Size makes of a static shape; None for every other node."""
    dims = _dims(node) if node.op_type in ("Shape", "Size") else None
    if dims is None or not all(isinstance(d, int) for d in dims):
        return None
    return np.array(math.prod(dims) if node.op_type == "Size" else dims, np.int64)


def _gathered_dims(node: ir.Node) -> np.ndarray | None:
    """Return static dimensions that are taken out of a shape that is not static as a whole."""
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    indices = constant(node.inputs[1])
    dims = _dims(source) if source is not None and source.op_type == "Shape" else None
    if dims is None or indices is None:
        return None
    found = [dims[i] for i in indices.ravel()]
    return np.array(found, np.int64).reshape(indices.shape) if all(isinstance(d, int) for d in found) else None


def _dims(node: ir.Node) -> list[Any] | None:
    """Return what a Shape node returns, as far as it is known."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    ends = [node.attributes.get_int(name, None) for name in ("start", "end")]
    return None if shape is None else list(shape)[slice(*ends)]


def evaluate(node: ir.Node, arrays: Mapping[str, np.ndarray], wanted: Sequence[ir.Value]) -> list[np.ndarray]:
    """Return outputs of one node, which is run alone on the reference evaluator."""
    return evaluation(node, arrays, wanted)(arrays)


def evaluation(
    node: ir.Node, names: Iterable[str], wanted: Sequence[ir.Value]
) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """Return what runs one node alone on the reference evaluator: outputs of it for arrays that have these names."""
    graph = node.graph
    assert graph is not None
    opset = graph.opset_imports.get("", onnx.defs.onnx_opset_version())
    if node.op_type == "DequantizeLinear":
        opset = max(opset, DEQUANTIZES_FROM)
    inputs = [onnx.ValueInfoProto(name=name) for name in names]
    outputs = [onnx.ValueInfoProto(name=value.name or "") for value in wanted]
    proto = ir.serde.serialize_node(node)
    proto.domain = ""
    alone = onnx.helper.make_graph([proto], "constant", inputs, outputs)
    model = onnx.helper.make_model(alone, opset_imports=[onnx.helper.make_opsetid("", opset)])
    from onnx.reference import ReferenceEvaluator  # it loads every operator: not at import

    evaluator = ReferenceEvaluator(model)
    return lambda arrays: [np.asarray(array) for array in evaluator.run(None, dict(arrays))]
