"""Where a gradient can flow at all: the one place that says so."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from onnx_gradcam.errors import MethodError, NoGradientPath
from onnx_gradcam.graph.quantization import quantization

# Operators whose derivative is zero, or not defined, by definition: no gradient flows through them.
NO_GRADIENT = frozenset(
    "ArgMax ArgMin BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil ConstantOfShape Equal EyeLike "
    "Floor Greater GreaterOrEqual Hardmax IsInf IsNaN Less LessOrEqual MelWeightMatrix Multinomial NonMaxSuppression "
    "NonZero Not And Or Xor RandomNormalLike RandomUniformLike Round Shape Sign Size".split()
)
# (operator, input) pairs of floating-point inputs that only steer the operator.
STEERING = frozenset(
    {
        ("Bernoulli", 0),
        ("CastLike", 1),
        ("Dropout", 1),
        ("MaxRoiPool", 1),  # boxes, as those of RoiAlign
        ("OneHot", 0),
        ("OneHot", 1),
        ("Range", 1),
        ("Resize", 1),
        ("Resize", 2),
        ("RoiAlign", 1),  # boxes, to which torchvision has no gradient either
        ("Upsample", 1),
    }
)
# (operator, output) pairs of floating-point outputs that are constants as far as the gradient goes.
SETTLED = frozenset({("DynamicQuantizeLinear", 1)})

FLOATING = frozenset(dtype for dtype in ir.DataType if dtype.is_floating_point())
STEP = "constant between jumps"  # key in ``meta`` of values that are so by construction, though made by Mul and Clip


def is_float(value: ir.Value) -> bool:
    """Tell whether ``value`` holds floating-point numbers, as far as is known."""
    return value.dtype is None or value.dtype in FLOATING


def carries(value: ir.Value) -> bool:
    """Tell whether ``value`` holds real numbers: in floating point, or quantized."""
    return is_float(value) or quantization(value) is not None


def _has_no_gradient(node: ir.Node) -> bool:
    return node.op_type in NO_GRADIENT and node.domain in ("", "ai.onnx")


def bodies_of(node: ir.Node) -> list[ir.Graph]:
    """Return the bodies of an If, Loop or Scan, without those inside them."""
    return [g for a in node.attributes.values() for g in _graphs(a)]


def captured(node: ir.Node) -> list[ir.Value]:
    """Return the outer values that the bodies of an If, Loop or Scan read: inputs in all but name."""
    bodies = bodies_of(node)
    if not bodies:
        return []
    inner = [n for body in bodies for n in ir.traversal.RecursiveGraphIterator(body)]
    own = {v for n in inner for v in n.outputs}
    own.update(v for body in bodies for g in [body, *body.subgraphs()] for v in [*g.inputs, *g.initializers.values()])
    read = [v for n in inner for v in n.inputs] + [v for body in bodies for v in body.outputs]
    return [v for v in dict.fromkeys(read) if v is not None and v not in own]


def _graphs(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else ()


def operands(node: ir.Node) -> list[ir.Value | None]:
    """Return all that ``node`` reads, in the positions that ``carriers`` counts: its inputs, then what its bodies
    capture."""
    return [*node.inputs, *captured(node)]


def carriers(node: ir.Node) -> Iterator[tuple[int, ir.Value]]:
    """Return the inputs of ``node``, with their positions, through which a gradient can flow; captured ones
    come last."""
    if _has_no_gradient(node):
        return
    for i, outer in enumerate(captured(node), len(node.inputs)):
        if carries(outer):
            yield i, outer
    for i, value in enumerate(node.inputs):
        if value is not None and carries(value) and (node.op_type, i) not in STEERING:
            yield i, value


def step(value: ir.Value) -> ir.Value:
    """Return ``value``, marked as constant between jumps: a gradient that is differentiated again does not flow through
    it."""
    value.meta[STEP] = True
    return value


def results(node: ir.Node) -> list[ir.Value]:
    """Return the outputs of ``node`` that depend differentiably on what it is given."""
    return [
        v for k, v in enumerate(node.outputs) if carries(v) and (node.op_type, k) not in SETTLED and STEP not in v.meta
    ]


def downstream(nodes: Iterable[ir.Node], sources: Iterable[ir.Value]) -> set[ir.Value]:
    """Return all values that depend differentiably on one of ``sources``, these included; ``nodes`` in topological
    order."""
    reached = set(sources)
    for node in nodes:
        if any(value in reached for _, value in carriers(node)):
            reached.update(results(node))
    return reached


def upstream(nodes: Iterable[ir.Node], *sinks: ir.Value) -> set[ir.Value]:
    """Return all values on which one of ``sinks`` depends differentiably, these included; ``nodes`` in topological
    order."""
    reached = {*sinks}
    for node in reversed(list(nodes)):
        if any(v in reached for v in results(node)):
            reached.update(value for _, value in carriers(node))
    return reached


class Steps(NamedTuple):
    """The differentiable steps of a graph, for who walks it many times.

    Attributes:
        after: for each value those that are computed of it.
        before: for each value those that it is computed of.
        order: for each value that a node makes how many nodes stand before that one.
    """

    after: Mapping[ir.Value, Sequence[ir.Value]]
    before: Mapping[ir.Value, Sequence[ir.Value]]
    order: Mapping[ir.Value, int]


def steps_of(nodes: Iterable[ir.Node], within: Container[ir.Value] | None = None) -> Steps:
    """Return the differentiable steps of a graph, or those between two values of ``within``, in graph order."""
    after, before = dict[ir.Value, list[ir.Value]](), dict[ir.Value, list[ir.Value]]()
    order: dict[ir.Value, int] = {}
    for index, node in enumerate(nodes):
        order.update(dict.fromkeys(node.outputs, index))
        made = [v for v in results(node) if within is None or v in within]
        for _, source in carriers(node) if made else ():
            if within is None or source in within:
                after.setdefault(source, []).extend(made)
                for value in made:
                    before.setdefault(value, []).append(source)
    return Steps(after, before, order)


def spread(
    sources: Iterable[ir.Value],
    along: Mapping[ir.Value, Sequence[ir.Value]],
    is_passed: Callable[[ir.Value], bool] = lambda value: True,
) -> set[ir.Value]:
    """Return all values that steps lead to from ``sources``, these included; ``along`` is one side of ``Steps``.

    The steps go through values for which ``is_passed`` holds, and no others are reached.
    """
    reached = set(sources)
    pending = list(reached)
    while pending:
        new = [v for v in along.get(pending.pop(), ()) if v not in reached and is_passed(v)]
        reached.update(new)
        pending.extend(new)
    return reached


def between(steps: Steps, begin: Sequence[ir.Value], end: ir.Value) -> set[ir.Value]:
    """Return the values on the paths from those of ``begin`` to ``end``, both included; none where no path leads there.

    No walk leaves the part of the graph between them, so that the price of all blocks is that of one walk over it.
    """
    first = min(steps.order.get(v, -1) for v in begin)
    before = spread([end], steps.before, lambda value: steps.order.get(value, -1) >= first)
    return spread([v for v in begin if v in before], steps.after, before.__contains__)


def dependents(nodes: Iterable[ir.Node], sources: Iterable[ir.Value]) -> set[ir.Value]:
    """Return all values that depend on one of ``sources``, these included, whatever their dtype; not those that know
    only its shape or a comparison."""
    reached = set(sources)
    for node in nodes:
        if not _has_no_gradient(node) and any(v in reached for v in [*node.inputs, *captured(node)]):
            reached.update(node.outputs)
    return reached


def beginnings(nodes: Sequence[ir.Node], inputs: Iterable[ir.Value]) -> list[ir.Value]:
    """Return the values where differentiable paths begin: the float inputs, and the float values that the others (bytes
    of an image) become."""
    inputs = list(inputs)
    bytewise = dependents(nodes, [v for v in inputs if not is_float(v)])
    first = [n for n in nodes if not any(value in bytewise for _, value in carriers(n))]
    return [v for v in inputs if is_float(v)] + [
        v for node in first for v in node.outputs if v in bytewise and is_float(v)
    ]


class FirstFloat(NamedTuple):
    """The value called ``name`` is what an input begins as for a gradient; ``note`` says so where it is not the input
    itself, and is empty where it is."""

    name: str
    note: str


def first_float(graph: ir.Graph, input_name: str, score: ir.Value) -> FirstFloat:
    """Return what a gradient of ``score`` in input space is taken with respect to: the input, if it holds
    floating-point numbers; else the first floating-point value that Cast, DequantizeLinear or another operator makes of
    it on the way.

    Raises ``NoGradientPath`` where an input of integers does not become one, ``MethodError`` where it becomes several.
    """
    given = next(v for v in graph.inputs if v.name == input_name)
    if is_float(given):
        return FirstFloat(input_name, "")
    nodes = list(graph)
    before = upstream(nodes, score)
    found = [v for v in beginnings(nodes, [given]) if v in before]
    kind = "?" if given.dtype is None else given.dtype.name.lower()
    if not found:
        raise NoGradientPath(
            f"the input {input_name!r} is {kind}, and nothing on the way to {score.name!r} makes "
            "floating-point numbers of it",
            hint="a method that explains a layer (gradcam), or the model with a floating-point input",
            outputs=(score.name,),
            value=input_name,
        )
    if len(found) > 1:
        raise MethodError(
            f"the input {input_name!r} is {kind} and becomes floating-point numbers in several places: "
            + ", ".join(repr(v.name) for v in found),
            hint="a method that explains a layer (gradcam)",
            values=tuple(v.name for v in found),
        )
    (value,) = found
    node = value.producer()
    assert node is not None
    return FirstFloat(
        value.name or "",
        f"the input {input_name!r} is {kind}: gradients are with respect to {value.name!r}, the floating-point numbers "
        f"that {node.op_type} makes of it",
    )
