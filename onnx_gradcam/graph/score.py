"""Find what is explained: the score tensor, before its final Softmax or Sigmoid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.errors import ScoreError, nearest
from onnx_gradcam.graph.flow import downstream, is_float

SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid")
PASSING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Transpose", "Dropout")


@dataclass(frozen=True)
class Score:
    """The score tensor of a classifier or of a regression.

    ``class_axis``: the axis of the classes, None for a single value per image. ``activation``: the squashing operator
    that was walked back over ("" if none). ``count``: the number of classes; 2 for a single logit with a Sigmoid, 1 for
    a regression. ``output``: the graph output that it leads to.
    """

    value: ir.Value
    class_axis: int | None
    activation: str
    count: int
    output: str

    @property
    def kind(self) -> str:
        """ "classes", "binary" (one logit and a Sigmoid) or "regression"."""
        if self.class_axis is not None:
            return "classes"
        return "binary" if self.activation == "Sigmoid" else "regression"


def find_score(graph: ir.Graph, name: str = "auto") -> Score:
    """The score tensor called ``name``, or the first output that looks like a classifier's.

    Raises ``ScoreError`` where no value has that name, or no output has one score per class.
    """
    if name != "auto":
        return _named(graph, name)
    nodes = list(graph)
    reached = downstream(nodes, graph.inputs)
    candidates = [v for v in _float_ends(graph) if v in reached]
    found = [s for s in (_walk_back(v) for v in candidates) if s is not None]
    if not found:
        shapes = ", ".join(f"{v.name} {_dims(v)}" for v in graph.outputs)
        raise ScoreError(
            "no output holds one score per class and image",
            where=f"outputs: {shapes}",
            hint="name the tensor of shape (N, classes) with --score NAME (`onnx-gradcam inspect MODEL` lists values)",
            outputs=tuple(v.name for v in graph.outputs),
        )
    return max(found, key=lambda s: s.kind == "classes")  # the first of the best kind


def _named(graph: ir.Graph, name: str) -> Score:
    values = ir.convenience.create_value_mapping(graph)
    value = values.get(name)
    if value is None:
        raise ScoreError(f"the model has no value {name!r}", hint=f"one of {nearest(name, values)}", name=name)
    score = _describe(value, "", name)
    if score is None:
        raise ScoreError(
            f"{name!r} of shape {_dims(value)} is not one score per class and image",
            hint="a floating-point value of shape (N, classes), (N, 1) or (N,)",
            name=name,
        )
    consumers = {use.node.op_type for use in value.uses()}
    squashing = next((op for op in SQUASHING if op in consumers), "")
    return _describe(value, squashing, name) or score


def _float_ends(graph: ir.Graph) -> Iterator[ir.Value]:
    """Float outputs of the graph, and the float values that its other outputs (labels) are made of."""
    seen: set[ir.Value] = set()
    pending = list(graph.outputs)
    while pending:
        value = pending.pop(0)
        if value in seen:
            continue
        seen.add(value)
        node = value.producer()
        if is_float(value):
            yield value
        elif node is not None:
            pending.extend(v for v in node.inputs if v is not None)


def _walk_back(output: ir.Value) -> Score | None:
    """From an output back over a trailing Softmax, LogSoftmax or Sigmoid and the reshapes and casts around it."""
    name = output.name or ""
    value = output
    while (node := value.producer()) is not None and node.domain in ("", "ai.onnx"):
        before = node.inputs[0] if node.inputs else None
        if before is None or not is_float(before):
            break
        if node.op_type in SQUASHING:
            return _describe(before, node.op_type, name, _axis(node, before))
        if node.op_type not in PASSING:
            break
        value = before
    return _describe(output, "", name)


def _axis(node: ir.Node, value: ir.Value) -> int | None:
    if node.op_type == "Sigmoid" or value.shape is None:
        return None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    return axis % len(value.shape)


def _describe(value: ir.Value, activation: str, output: str, axis: int | None = None) -> Score | None:
    """The Score for ``value``, or None where it is not one score per class and image."""
    if value.shape is None or not is_float(value):
        return None
    dims = list(value.shape)
    wide = [k for k, d in enumerate(dims) if k > 0 and d != 1]
    if len(wide) > 1 or (axis is not None and wide and wide != [axis]):
        return None
    if not wide:
        return Score(value, None, activation, 2 if activation == "Sigmoid" else 1, output)
    count = dims[wide[0]]
    if not isinstance(count, int):
        return None
    return Score(value, wide[0], activation, count, output)


def _dims(value: ir.Value) -> str:
    return "(?)" if value.shape is None else _shown(list(value.shape))


def _shown(dims: Sequence[int | ir.SymbolicDim]) -> str:
    return "(" + ", ".join(str(d) if isinstance(d, int) else (d.value or "?") for d in dims) + ")"
