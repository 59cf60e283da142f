"""The graph behind a value, by itself: from the value, and what else of the forward pass it reads, to a score."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from onnx_gradcam.engine.program import varying, write_target
from onnx_gradcam.errors import NoGradientPath
from onnx_gradcam.graph.builder import Builder, Value, same_dim
from onnx_gradcam.graph.flow import captured
from onnx_gradcam.graph.names import changed_input, values_by_name
from onnx_gradcam.graph.quantization import quantization, quantized_form
from onnx_gradcam.targets.kinds import Kind
from onnx_gradcam.targets.written import WrittenScore


class Behind(NamedTuple):
    """The graph behind a value, in two parts: what does not depend on the target, and the score of a target.

    Attributes:
        trunk: the first part; None where the score is computed from the value itself. No shape in either part says how
            many images there are.
        scoring: the second part, for other kinds than classes; None for classes.
        changed: the name of the input that holds the value.
        beside: the names of the inputs that hold other values of the forward pass; they are called as there.
        by_image: those of ``beside`` that are known to hold one row for each image along their first axis.
        output: the name of the output: the score tensor, or for other kinds than classes the score (N,).
        inputs: the inputs for the parameters of targets, as in ``GradientNames``; empty for classes.
        widest: how many numbers the largest value holds for one image, of those whose shape is known; at least 1.
    """

    trunk: ir.Model | None
    scoring: ir.Model | None
    changed: str
    beside: tuple[str, ...]
    by_image: frozenset[str]
    output: str
    inputs: Mapping[str, str]
    widest: int


def behind(prepared: ir.Model, score: WrittenScore, kind: Kind, name: str, image_input: str) -> Behind:
    """Return the graph behind a value of a model, for targets of a kind.

    The cells that dense scores are read in are held: they are values of the forward pass, and not chosen anew. Numbers
    that the model stores as integers are rounded to these as the model rounds them.

    Args:
        prepared: the model, as ``write_score`` returns it.
        score: its score.
        kind: the kind of the targets.
        name: the name of the value; that of an input of the model for the whole graph.
        image_input: the name of the input that holds the images.

    Raises:
        NoGradientPath: the score does not depend on the value.
    """
    model = prepared.clone()
    graph, values = model.graph, values_by_name(model.graph)
    score = score.on(values)
    held = set() if score.dense is None else {score.dense.cell_number}
    own = set(graph)
    op = Builder(graph)
    output, parameters, scoring = score.value, dict[str, str](), list[ir.Node]()
    if not kind.is_score_entry:
        written = write_target(op, score, kind)
        output, parameters = written.score, written.inputs
        scoring = [node for node in graph if node not in own]
    of_targets = [v for v in graph.inputs if v.name in parameters.values()]
    changed = _entrance(op, values[name])
    nodes = _dependent(graph, [changed, *of_targets], held, own)
    edge = _edge(nodes, [output], held)
    if changed not in edge:
        raise NoGradientPath(
            f"the score does not depend on {name!r}",
            hint="another layer: `onnx-gradcam inspect MODEL` lists them",
            outputs=(score.value.name,),
            value=name,
        )
    moving = varying(graph)
    beside = [v for v in edge if v is not changed and v in moving and v not in of_targets]
    batch = next(v.shape for v in graph.inputs if v.name == image_input)
    by_image = frozenset(v.name or "" for v in beside if batch is not None and _has_rows(v, batch[0]))
    names = tuple(v.name or "" for v in beside)
    widest = max([1, _size(changed), *(_size(v) for node in nodes for v in node.outputs)])
    common = changed.name or "", names, by_image, output.name or "", parameters, widest
    free = [changed, *beside, *of_targets]
    if not scoring:
        return Behind(_part(model, nodes, free, [output], held), None, *common)
    first = [node for node in nodes if node not in scoring]
    shared = [v for v in _edge(scoring, [output], ()) if v.producer() in first and v not in held]
    trunk = _part(model, first, free, shared, held) if shared else None
    return Behind(trunk, _part(model, scoring, [*free, *shared], [output], ()), *common)


def _part(
    model: ir.Model,
    nodes: Collection[ir.Node],
    free: Sequence[Value],
    outputs: Sequence[Value],
    held: Collection[Value],
) -> ir.Model:
    """Return the graph of some nodes; its inputs are those of the values ``free`` that it reads."""
    edge = _edge(nodes, outputs, held)
    part = ir.convenience.extract(model.graph, [v for v in free if v in edge], outputs)
    part.opset_imports.update(model.graph.opset_imports)
    _forget_shapes(part)
    return ir.Model(part, ir_version=model.ir_version)


def _entrance(op: Builder, value: Value) -> Value:
    """Return what copies of a value are fed to: for quantized numbers an input before the QuantizeLinear of theirs."""
    stored = quantized_form(value)
    q = quantization(stored)
    if stored is value or q is None:
        return value
    entrance = ir.val(op.claim(changed_input(value.name or "")), dtype=value.dtype, shape=value.shape)
    rounded = ir.val(op.claim(changed_input(stored.name or "")), dtype=stored.dtype, shape=stored.shape)
    attributes = {} if q.axis is None else {"axis": q.axis}
    ir.convenience.replace_all_uses_with(stored, rounded)
    node = ir.node("QuantizeLinear", [entrance, q.scale, q.zero_point], attributes, outputs=[rounded])
    producer = stored.producer()
    assert producer is not None
    op.graph.insert_after(producer, node)
    op.graph.inputs.append(entrance)
    return entrance


def _dependent(
    graph: ir.Graph, begin: Iterable[Value], held: Collection[Value], own: Collection[ir.Node]
) -> list[ir.Node]:
    """Return the nodes that depend on one of ``begin`` by more than a value in ``held``, and those not in ``own``."""
    reached, nodes = set(begin), []
    for node in graph:
        if node not in own or any(v in reached for v in _read(node)):
            reached.update(v for v in node.outputs if v not in held)
            nodes.append(node)
    return nodes


def _edge(nodes: Collection[ir.Node], outputs: Iterable[Value], held: Collection[Value]) -> list[Value]:
    """Return the values from which some nodes compute outputs, and which they do not make; ``held`` among them."""
    within, passed, edge = set(nodes), set[Value](), dict[Value, None]()
    pending = list(outputs)
    while pending:
        value = pending.pop()
        if value in passed:
            continue
        passed.add(value)
        node = value.producer()
        if node is None or node not in within or value in held:
            edge[value] = None
        else:
            pending.extend(_read(node))
    return list(edge)


def _read(node: ir.Node) -> list[Value]:
    return [v for v in [*node.inputs, *captured(node)] if v is not None]


def _has_rows(value: Value, images: int | ir.SymbolicDim) -> bool:
    return value.shape is not None and len(value.shape) > 0 and same_dim(value.shape[0], images)


def _size(value: Value) -> int:
    """Return how many numbers a value holds for one image, 0 where that is not known."""
    dims = () if value.shape is None else value.shape[1:]
    known = [d for d in dims if isinstance(d, int)]
    return math.prod(known) if known and len(known) == len(dims) else 0


def _forget_shapes(graph: ir.Graph) -> None:
    """Leave out what the shapes of a graph say of the number of images."""
    for node in ir.traversal.RecursiveGraphIterator(graph):
        for value in node.outputs:
            value.shape = None
    for value in graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([None] * len(value.shape))
