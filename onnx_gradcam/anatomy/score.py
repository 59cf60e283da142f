"""Find what is explained: the score tensor, before its final Softmax or Sigmoid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.anatomy.dense.scores import Batches, DenseScores, dense_scores
from onnx_gradcam.errors import NoGradientPath, ScoreError, nearest
from onnx_gradcam.graph.flow import NO_GRADIENT, carries, dependents, is_float
from onnx_gradcam.graph.names import values_by_name
from onnx_gradcam.graph.operators import AxisEffect, operators
from onnx_gradcam.graph.prepare.site import INSERTED
from onnx_gradcam.graph.quantization import quantized_form, real_form

SQUASHES = operators(AxisEffect.SQUASHED) | {"Sigmoid", "QLinearSigmoid"}
STEP_FUNCTIONS = NO_GRADIENT - {"Shape", "Size", "ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike"}
# What is walked back over without a word; a Q/DQ pair, too: saturation is never applied to the score.
PASSED_OVER = operators(AxisEffect.COPIED, AxisEffect.REQUANTIZED, AxisEffect.RESHAPED, AxisEffect.TRANSPOSED)


@dataclass(frozen=True)
class Score:
    """Which values of a model hold its scores, and what they are. It describes: nothing is written for it.

    Attributes:
        value: the value of the model that holds the scores; of a dense score the first of those.
        class_axis: the axis of the classes; None for a single number for each image.
        activation: the squashing operator that was walked back over, "" for none.
        count: the number of classes; 2 for a single logit with a Sigmoid, 1 for a regression.
        output: the name of the graph output that the value leads to.
        dense: the scores of a model that has many for each image; None for a classifier and a regression.
    """

    value: ir.Value
    class_axis: int | None
    activation: str
    count: int
    output: str
    dense: DenseScores | None = None

    @property
    def kind(self) -> str:
        """Return "classes", "dense", "binary" (one logit and a Sigmoid) or "regression"."""
        if self.dense is not None:
            return "dense"
        if self.class_axis is not None:
            return "classes"
        return "binary" if self.activation == "Sigmoid" else "regression"

    @property
    def name(self) -> str:
        """Return the name of the value, or the names of the values, that hold the scores."""
        return (self.value.name or "") if self.dense is None else ", ".join(self.dense.names)

    @property
    def sinks(self) -> tuple[ir.Value, ...]:
        """Return the values of the model in which the differentiable paths of the score end."""
        return (self.value,) if self.dense is None else self.dense.sources


def find_score(graph: ir.Graph, name: str = "auto") -> Score:
    """Return the score called ``name``, or that of the first output that looks like a classifier's.

    Where no output does, it is the score of outputs with many for each image.

    Args:
        graph: a prepared graph.
        name: the name of a value, or "auto".

    Raises:
        ScoreError: no value has that name, or no output has scores.
        NoGradientPath: an output with scores depends on the inputs through steps and comparisons only.
    """
    if name != "auto":
        return _named(graph, name)
    reached = dependents(graph, graph.inputs)
    batches = _batches(graph)
    scores = [s for v in _float_ends(graph) if v in reached and (s := _walk_back(v, batches)) is not None]
    if all(s.kind == "regression" for s in scores) and (dense := _dense(graph, name, batches)) is not None:
        return dense
    if not scores:
        _refuse_steps(graph, reached, batches)
        shapes = ", ".join(f"{v.name} {_dims(v)}" for v in graph.outputs)
        raise ScoreError(
            "no output holds one score per class and image, or entries that pass through a Sigmoid or Softmax",
            where=f"outputs: {shapes}",
            hint="--score NAME: a value (N, classes), or one with scores of classes in cells, as (N, classes, H, W) or "
            "(N, anchors, classes) (`onnx-gradcam inspect MODEL` lists values)",
            outputs=tuple(v.name for v in graph.outputs),
        )
    return max(scores, key=lambda s: (s.kind == "classes", s.activation != ""))  # the first of the best kind


def _refuse_steps(graph: ir.Graph, reached: Set[ir.Value], batches: Batches) -> None:
    """Raise ``NoGradientPath``, naming the operator, where an output is a score but its gradient zero by definition."""
    for value in _float_ends(graph):
        if value not in reached and _walk_back(value, batches) is not None:
            steps = [n for n in _makers(value) if n.op_type in STEP_FUNCTIONS and any(v in reached for v in n.inputs)]
            if steps:
                raise NoGradientPath(
                    f"the gradient of {value.name!r} is zero by definition: no path from the input goes around "
                    f"{steps[0].op_type}",
                    where=f"node {steps[0].name!r}",
                    hint="a score before that node: --score NAME",
                    outputs=(value.name,),
                    node=steps[0].name,
                )


def _makers(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes that ``value`` is made by, the nearest first."""
    seen: set[ir.Node] = set()
    pending = [value]
    while pending:
        node = pending.pop(0).producer()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            pending.extend(v for v in node.inputs if v is not None)


def _named(graph: ir.Graph, name: str) -> Score:
    values = {k: v for k, v in values_by_name(graph).items() if not v.is_initializer()}
    value = values.get(name)
    if value is None:
        raise ScoreError(f"the model has no value {name!r}", hint=f"one of {nearest(name, values)}", name=name)
    activation, output = _leads_to(value)
    batches = _batches(graph)
    score = _describe(value, activation, output or name, batches) or _dense(graph, name, batches)
    if score is None:
        raise ScoreError(
            f"{name!r} of shape {_dims(value)} is not one score per class and image",
            hint="a floating-point value of shape (N, classes), (N, 1) or (N,), or scores of classes in cells",
            name=name,
        )
    return score


def _dense(graph: ir.Graph, name: str, batches: Batches) -> Score | None:
    dense = dense_scores(graph, name, batches)
    return None if dense is None else Score(dense.sources[0], 1, dense.activation, dense.count, name, dense)


def _batches(graph: ir.Graph) -> Batches:
    """Return the first dimensions of the inputs."""
    return {v.shape[0] if v.shape else None for v in graph.inputs}


def _float_ends(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield the float outputs of the graph, and the float values that its other outputs (labels, top k) are made of."""
    seen: set[ir.Value] = set()
    pending = list(graph.outputs)
    while pending:
        value = pending.pop(0)
        if value in seen:
            continue
        seen.add(value)
        node = value.producer()
        if is_float(value) and (node is None or node.op_type != "TopK"):
            yield value
        elif node is not None:
            pending.extend(v for v in node.inputs if v is not None)


def _leads_to(value: ir.Value) -> tuple[str, str]:
    """Return the squashing operator behind ``value``, and the graph output that it ends in; "" where there is none."""
    for node in [*value.consumers(), *quantized_form(value).consumers()]:
        if _passes(node) and node.inputs[0] in (value, quantized_form(value)) and node.outputs[0] is not value:
            activation, output = _leads_to(node.outputs[0])
            if output:
                return node.op_type.removeprefix("QLinear") if node.op_type in SQUASHES else activation, output
    return "", (value.name or "") if value.is_graph_output() else ""


def _passes(node: ir.Node) -> bool:
    return node.domain in ("", "com.microsoft") and node.op_type in SQUASHES | PASSED_OVER


def _walk_back(output: ir.Value, batches: Batches) -> Score | None:
    """Return the score before a trailing Softmax, LogSoftmax or Sigmoid and the reshapes and casts around it."""
    name = output.name or ""
    trail = list(_trail(output))
    squashing = next((node for node in trail if node.op_type in SQUASHES), None)
    if squashing is None:
        return _first(output, trail, "", name, batches)
    before = squashing.inputs[0]
    assert before is not None
    if not _is_over_classes(squashing, before):
        return None
    return _first(before, trail[trail.index(squashing) + 1 :], squashing.op_type.removeprefix("QLinear"), name, batches)


def _trail(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes that made ``value``, back to the first one that computes something."""
    while (node := value.producer()) is not None and _passes(node):
        before = node.inputs[0]
        if before is None or not carries(before):
            return
        yield node
        value = before


def _first(value: ir.Value, trail: Sequence[ir.Node], activation: str, output: str, batches: Batches) -> Score | None:
    """Return the score for ``value``, or for what it was made of where its batch axis is gone or an adapter made it."""
    score = _describe(value, activation, output, batches)
    for node in trail:
        if not (_is_inserted(value) or (score is None and _is_vector(value))) or node.op_type in SQUASHES:
            break
        before = node.inputs[0]
        assert before is not None
        value, score = before, _describe(before, activation, output, batches) or score
    return score


def _is_inserted(value: ir.Value) -> bool:
    """Tell whether raising the opset made it: the deployed file does not have it."""
    return INSERTED in value.meta


def _is_vector(value: ir.Value) -> bool:
    return value.shape is not None and sum(d != 1 for d in value.shape) <= 1


def _is_over_classes(node: ir.Node, value: ir.Value) -> bool:
    """Tell whether ``node`` normalises the only axis of ``value`` with several entries, beside that of the batch."""
    if node.op_type.endswith("Sigmoid") or value.shape is None:
        return True
    wide = [k for k, d in enumerate(value.shape) if k > 0 and d != 1]
    axis = node.attributes.get_int("axis", -1) % len(value.shape)
    return not wide or wide == [axis] or len(value.shape) == 1


def _describe(value: ir.Value, activation: str, output: str, batches: Batches) -> Score | None:
    """Return the score for ``value``, or None where it is not one score per class and image."""
    value = real_form(value)
    dims = [] if value.shape is None else list(value.shape)
    if not dims or not is_float(value) or isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
        return None
    if all(isinstance(d, int) for d in (dims[0], *batches)) and dims[0] not in batches:
        return None
    wide = [k for k, d in enumerate(dims) if k > 0 and d != 1]
    if not wide:
        return Score(value, None, activation, 2 if activation == "Sigmoid" else 1, output)
    count = dims[wide[0]]
    if len(wide) > 1 or not isinstance(count, int):
        return None
    return Score(value, wide[0], activation, count, output)


def _dims(value: ir.Value) -> str:
    return "(?)" if value.shape is None else _shown(list(value.shape))


def _shown(dims: Sequence[int | ir.SymbolicDim]) -> str:
    return "(" + ", ".join(str(d) if isinstance(d, int) else (d.value or "?") for d in dims) + ")"
