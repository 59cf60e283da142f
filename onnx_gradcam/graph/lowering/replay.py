"""Write the nodes of a body once more, with other values in the place of its own; sequences become Python lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.builder import Builder, Value, ints_of, rank, static_dims
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.lowering.registry import Unlowered, call, find
from onnx_gradcam.graph.node_inference import SMALL

MOST = 4000  # nodes that a loop may become: those of its body, times its repetitions

Term = Value | list[Value] | None  # a tensor, a sequence of tensors, or nothing
Known = dict[Value, Term]
Attributes = Mapping[str, Any]


def replay(op: Builder, nodes: Iterable[ir.Node], known: Known) -> None:
    """Write ``nodes`` once more, in their order.

    Args:
        op: writes the nodes.
        nodes: the nodes of a body.
        known: what stands for values that the nodes read; a value that is missing stands for itself. What stands for
            the outputs of the nodes is added.

    Raises:
        Unlowered: a node cannot be written: its sequences or its repetitions depend on what is known in the run only.
    """
    for node in nodes:
        known.update(zip(node.outputs, write(op, node, known), strict=False))


def write(op: Builder, node: ir.Node, known: Known) -> Sequence[Term]:
    """Write one node once more; return what stands for its outputs. See ``replay``."""
    operands = [None if v is None else known.get(v, v) for v in node.inputs]
    attributes = {a.name: a.value for a in node.attributes.values()}
    is_standard = node.domain in ("", "ai.onnx")
    if is_standard and node.op_type in WRITERS:
        return WRITERS[node.op_type](op, operands, attributes, known)
    tensors = [_tensor(v) for v in operands]
    if is_standard:
        return [fold(op, v) for v in op.node(node.op_type, *tensors, outputs=len(node.outputs), **attributes)]
    return _foreign(op, node, tensors)


def _foreign(op: Builder, node: ir.Node, tensors: Sequence[Value | None]) -> Sequence[Term]:
    """Write the standard operators for a node of another domain."""
    function = find(node)
    if function is None:
        raise Unlowered(f"no VJP rule for {node.domain}::{node.op_type} in the body")
    outputs = [ir.val(v.name) for v in node.outputs]
    alone = ir.Node(node.domain, node.op_type, tensors, node.attributes.values(), outputs=outputs)
    try:
        return call(function, op, alone)
    finally:
        for k in range(len(tensors)):
            alone.replace_input_with(k, None)  # the node is thrown away: no value shall have it as a reader


def fold(op: Builder, value: Value) -> Value:
    """Return ``value``, or a constant in its place where it is small and known."""
    dims = static_dims(value)
    array = constant(value) if dims is not None and math.prod(dims) <= SMALL else None
    return value if array is None else op.array(array)


def distinct(op: Builder, terms: Sequence[Term], start: int) -> tuple[Value | None, ...]:
    """Return one value of its own for each output: a body may return what it is given, or one value twice.

    Args:
        op: has written the nodes of the body.
        terms: what stands for the outputs.
        start: how many nodes were written before the body.
    """
    own = {v for node in op.written[start:] for v in node.outputs}
    values: list[Value | None] = []
    for term in terms:
        value = _tensor(term)
        values.append(op.Identity(value) if value is not None and value not in own else value)
        own.discard(value)
    return tuple(values)


def results_of(body: ir.Graph, known: Known) -> list[Term]:
    """Return what stands for the outputs of a body."""
    return [known.get(v, v) for v in body.outputs]


def weights_of(op: Builder, body: ir.Graph) -> Known:
    """Return what stands for the initializers of a body."""
    return {v: op.array(v.const_value.numpy()) for v in body.initializers.values() if v.const_value is not None}


def _tensor(term: Term) -> Value | None:
    if isinstance(term, list):
        raise Unlowered("no VJP rule for a sequence")
    return term


def _sequence(term: Term) -> list[Value]:
    if not isinstance(term, list):
        raise Unlowered("no VJP rule for a sequence whose elements are known in the run only,")
    return term


def required(term: Term) -> Value:
    """Return a tensor that must be there."""
    value = _tensor(term)
    if value is None:
        raise Unlowered("no VJP rule without an operand")
    return value


def number(term: Term, what: str) -> int:
    """Return an integer that must be known before the run."""
    known = ints_of(required(term))
    if known is None or len(known) != 1:
        raise Unlowered(f"no VJP rule for {what} known in the run only,")
    return known[0]


def parts(op: Builder, x: Value, axis: int, *, keepdims: bool) -> list[Value]:
    """Write the slices of ``x`` along an axis of known length, from the first to the last."""
    size = None if x.shape is None else x.shape[axis]
    if not isinstance(size, int):
        raise Unlowered("no VJP rule for a length that is known in the run only,")
    if size > MOST:
        raise Unlowered(f"no VJP rule for {size} slices")
    split = op.node("Split", x, outputs=size, axis=axis, num_outputs=size) if size > 1 else [x] * size
    return list(split) if keepdims else [op.Squeeze(v, op.ints(axis)) for v in split]


def stack(op: Builder, values: Sequence[Value], axis: int) -> Value:
    """Write values side by side along a new axis."""
    return op.Concat(*[op.Unsqueeze(v, op.ints(axis)) for v in values], axis=axis)


# ------------------------------------------------------------------------------------------------- the writers


def _constant(op: Builder, operands: Sequence[Term], attributes: Attributes, known: Known) -> list[Term]:
    ((name, value),) = attributes.items()
    return [op.array(value.numpy() if name == "value" else np.array(value, np.int64 if "int" in name else np.float32))]


def _identity(op: Builder, operands: Sequence[Term], attributes: Attributes, known: Known) -> list[Term]:
    return [operands[0]]


def _has(op: Builder, operands: Sequence[Term], attributes: Attributes, known: Known) -> list[Term]:
    return [op.array(np.array(any(v is not None for v in operands)))]


def _if(op: Builder, operands: Sequence[Term], attributes: Attributes, known: Known) -> Sequence[Term]:
    """The branch that is taken, where it is known; else an If with branches of its own."""
    condition = required(operands[0])
    decided = constant(condition)
    if decided is not None:
        branch: ir.Graph = attributes["then_branch" if decided.item() else "else_branch"]
        inner = known | weights_of(op, branch)
        replay(op, branch, inner)
        return results_of(branch, inner)
    bodies, results = {}, []
    for name in ("then_branch", "else_branch"):
        writer = op.inside(name)
        inner = known | weights_of(writer, attributes[name])
        replay(writer, attributes[name], inner)
        results = [writer.Identity(required(v)) for v in results_of(attributes[name], inner)]
        writer.graph.outputs.extend(results)
        bodies[name] = writer.graph
    outputs = op.node("If", condition, outputs=len(results), **bodies)
    for output, like in zip(outputs, results, strict=True):
        output.type, output.shape = like.type, like.shape
    return outputs


def _loop(op: Builder, operands: Sequence[Term], attributes: Attributes, known: Known) -> list[Term]:
    """Every repetition, one after the other; each one must tell before the run whether there is another."""
    body: ir.Graph = attributes["body"]
    limit, going, *states = [*operands, None, None][: max(len(operands), 2)]
    most = MOST if limit is None else number(limit, "a number of repetitions that is")
    goes_on = going is None or _decided(going)
    outer, stacked = known | weights_of(op, body), [list[Value]() for _ in body.outputs[1 + len(states) :]]
    if goes_on and _passes_on(body):
        _refuse_many(body, most)
    step = 0
    while goes_on and step < most:
        _refuse_many(body, step + 1)
        count, yes = op.array(np.array(step, np.int64)), op.array(np.array(True))
        inner = outer | dict(zip(body.inputs, [count, yes, *states], strict=True))
        replay(op, body, inner)
        more, *results = results_of(body, inner)
        states, made = results[: len(states)], results[len(states) :]
        for values, value in zip(stacked, made, strict=True):
            values.append(required(value))
        goes_on, step = _decided(more), step + 1
    return [*states, *(stack(op, values, 0) if values else None for values in stacked)]


def _passes_on(body: ir.Graph) -> bool:
    """Tell whether the body of a Loop returns the condition to go on that it is given: only the count ends it."""
    value = body.outputs[0]
    while (node := value.producer()) is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        value = node.inputs[0]
    return value is body.inputs[1]


def _refuse_many(body: ir.Graph, times: int) -> None:
    size = sum(1 for _ in ir.traversal.RecursiveGraphIterator(body))
    if max(size, 1) * times > MOST:
        raise Unlowered(f"no VJP rule for more than {MOST} repeated nodes")


def _decided(term: Term) -> bool:
    array = constant(required(term))
    if array is None:
        raise Unlowered("no VJP rule for a condition to go on that is known in the run only,")
    return bool(array.item())


def _scan(op: Builder, operands: Sequence[Term], attributes: Attributes, known: Known) -> list[Term]:
    """Every step, one after the other."""
    body: ir.Graph = attributes["body"]
    count = int(attributes["num_scan_inputs"])
    states, inputs = list(operands[:-count]), [required(v) for v in operands[-count:]]
    axes = attributes.get("scan_input_axes") or [0] * count
    slices = [parts(op, x, axis % rank(x), keepdims=False) for x, axis in zip(inputs, axes, strict=True)]
    for values, backwards in zip(slices, attributes.get("scan_input_directions") or [0] * count, strict=True):
        values[:] = values[::-1] if backwards else values
    _refuse_many(body, min(len(values) for values in slices))
    outer = known | weights_of(op, body)
    stacked = [list[Value]() for _ in body.outputs[len(states) :]]
    for operands_now in zip(*slices, strict=True):
        inner = outer | dict(zip(body.inputs, [*states, *operands_now], strict=True))
        replay(op, body, inner)
        results = results_of(body, inner)
        states = results[: len(states)]
        for values, value in zip(stacked, results[len(states) :], strict=True):
            values.append(required(value))
    return [*states, *_joined(op, stacked, attributes)]


def _joined(op: Builder, stacked: Sequence[list[Value]], attributes: Attributes) -> list[Term]:
    """Write the outputs of a Scan, each along its own axis and in its own direction."""
    axes = attributes.get("scan_output_axes") or [0] * len(stacked)
    turned = attributes.get("scan_output_directions") or [0] * len(stacked)
    outputs: list[Term] = []
    for values, axis, backwards in zip(stacked, axes, turned, strict=True):
        ordered = values[::-1] if backwards else values
        outputs.append(stack(op, ordered, axis % (rank(ordered[0]) + 1)) if ordered else None)
    return outputs


def _construct(op: Builder, operands: Sequence[Term], attributes: Attributes, known: Known) -> list[Term]:
    return [[required(v) for v in operands]]


def _place(sequence: Sequence[Value], operands: Sequence[Term], position: int, default: int) -> int:
    """Return where in a sequence an operator works, which counts from the end where it is negative."""
    if len(operands) <= position or operands[position] is None:
        return default
    place = number(operands[position], "a place in a sequence that is")
    return place + len(sequence) if place < 0 else place


def _at(op: Builder, operands: Sequence[Term], attributes: Attributes, known: Known) -> list[Term]:
    sequence = _sequence(operands[0])
    place = _place(sequence, operands, 1, 0)
    if not 0 <= place < len(sequence):
        raise Unlowered(f"no VJP rule for place {place} of {len(sequence)} elements,")
    return [sequence[place]]


def _insert(op: Builder, operands: Sequence[Term], attributes: Attributes, known: Known) -> list[Term]:
    sequence = _sequence(operands[0])
    place = _place(sequence, operands, 2, len(sequence))
    return [[*sequence[:place], required(operands[1]), *sequence[place:]]]


def _erase(op: Builder, operands: Sequence[Term], attributes: Attributes, known: Known) -> list[Term]:
    sequence = _sequence(operands[0])
    place = _place(sequence, operands, 1, len(sequence) - 1)
    return [[*sequence[:place], *sequence[place + 1 :]]]


def _count(op: Builder, operands: Sequence[Term], attributes: Attributes, known: Known) -> list[Term]:
    return [op.array(np.array(len(_sequence(operands[0])), np.int64))]


def _split(op: Builder, operands: Sequence[Term], attributes: Attributes, known: Known) -> list[Term]:
    """Without lengths: slices of length 1; one length: as many as there are, the last one shorter."""
    x = required(operands[0])
    axis = int(attributes.get("axis", 0)) % rank(x)
    given = operands[1] if len(operands) > 1 else None
    if given is None:
        return [parts(op, x, axis, keepdims=bool(attributes.get("keepdims", 1)))]
    lengths, size = ints_of(required(given)), None if x.shape is None else x.shape[axis]
    if lengths is None or not isinstance(size, int):
        raise Unlowered("no VJP rule for lengths that are known in the run only,")
    if static_dims(required(given)) == ():
        lengths = [min(lengths[0], size - k) for k in range(0, size, lengths[0])]
    if len(lengths) == 1:
        return [[x]]
    return [list(op.node("Split", x, op.ints(*lengths), outputs=len(lengths), axis=axis))]


def _join(op: Builder, operands: Sequence[Term], attributes: Attributes, known: Known) -> list[Term]:
    values, axis = _sequence(operands[0]), int(attributes["axis"])
    if not values:
        raise Unlowered("no VJP rule for an empty sequence,")
    if not attributes.get("new_axis", 0):
        return [op.Concat(*values, axis=axis)]
    return [stack(op, values, axis % (rank(values[0]) + 1))]


Writer = Callable[[Builder, Sequence[Term], Attributes, Known], Sequence[Term]]
WRITERS: dict[str, Writer] = {
    "ConcatFromSequence": _join,
    "Constant": _constant,
    "Identity": _identity,
    "If": _if,
    "Loop": _loop,
    "Optional": _identity,
    "OptionalGetElement": _identity,
    "OptionalHasElement": _has,
    "Scan": _scan,
    "SequenceAt": _at,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _construct,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": _count,
    "SplitToSequence": _split,
}
HOLDING = frozenset(name for name in WRITERS if "Sequence" in name or name.startswith("Optional"))
