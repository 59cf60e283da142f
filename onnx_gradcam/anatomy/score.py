"""Find what is explained: the score tensor, before its final Softmax or Sigmoid, of each head that a model has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.anatomy.dense.reading import parse_reading
from onnx_gradcam.anatomy.dense.scores import DenseScores, dense_scores, named_dense_score
from onnx_gradcam.anatomy.dense.settling import settling_lines
from onnx_gradcam.anatomy.entries.columns import Entries
from onnx_gradcam.anatomy.entries.follow import follow
from onnx_gradcam.anatomy.natures import CLASSES, EMBEDDING, VALUES, Nature, is_image, is_picked, nature_of
from onnx_gradcam.anatomy.points import nature_of_points, row_of_points
from onnx_gradcam.anatomy.vectors import Batches, Vector, describe, leads_to, walk_back
from onnx_gradcam.errors import NoGradientPath, ScoreError, nearest
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.dims import shown_shape
from onnx_gradcam.graph.flow import NO_GRADIENT, beginnings, dependents, downstream, is_float
from onnx_gradcam.graph.names import values_by_name
from onnx_gradcam.graph.operators import RESHAPES
from onnx_gradcam.graph.unknown import accusation, unknown_before, way_out

STEP_FUNCTIONS = NO_GRADIENT - {"Shape", "Size", "ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike"}
NO_CLASSES = (EMBEDDING, VALUES)
NAMED = "named by the user, and taken for the scores of classes"


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
        nature: "classes", "probabilities" for classes whose scores are a mean of probabilities, or "embedding" or
            "values" for numbers that are no classes; "" for a single number.
        reason: why it is taken for what it is.
    """

    value: ir.Value
    class_axis: int | None
    activation: str
    count: int
    output: str
    dense: DenseScores | None = None
    nature: str = ""
    reason: str = ""

    @property
    def kind(self) -> str:
        """Return "classes", "dense", "binary" (one logit and a Sigmoid), "regression", "values" or "embedding"."""
        if self.dense is not None:
            return "dense"
        if self.nature in NO_CLASSES:
            return self.nature
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

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of the graph outputs that hold the scores."""
        return (self.output,) if self.dense is None else self.dense.outputs


def find_heads(graph: ir.Graph, labels: int = 0) -> tuple[Score, ...]:
    """Return the scores of all heads of a model: what could be explained, first what is.

    An output with a Softmax or Sigmoid goes before one without: a model that makes probabilities of its classes itself
    leaves none as they are. An output with one score for each class goes before a single number. Outputs with many
    scores for each image, an embedding and the values of a regression come behind these.

    Args:
        graph: a prepared graph.
        labels: how many labels of classes the model brings.
    """
    reached, batches, known = dependents(graph, graph.inputs), _batches(graph), follow(graph)
    points = {v: row for v in graph.outputs if v in reached and (row := row_of_points(v, batches)) is not None}
    ends = [x for x in _float_ends(graph) if x in reached and x not in points]
    vectors = [v for x in ends if (v := walk_back(x, batches)) is not None]
    images = [v for v in graph.inputs if v in reached]
    smooth = downstream(graph, beginnings(list(graph), graph.inputs))
    whole = [v for v in vectors if not _are_cells(v, known) and not is_picked(v, known)]
    of_images = [_of_vector(v, nature_of(v, known, images, labels)) for v in whole]
    of_images += [_of_vector(row, nature_of_points(v)) for v, row in points.items()]
    with_gradient = [score for score in of_images if score.value in smooth]
    whole_outputs = {score.output for score in with_gradient}
    each = [_of_dense(d) for d in dense_scores(graph, known, batches)]
    dense = [score for score in each if not whole_outputs & {*score.outputs}]  # one cell is no cell
    ranked = sorted(with_gradient if with_gradient or dense else of_images, key=_merit, reverse=True)
    first = [s for s in ranked if s.kind in ("classes", "binary")]
    rest = [s for s in ranked if s not in first and (s.value in smooth or not (first or dense))]
    return (*first, *dense, *rest)


def _merit(score: Score) -> tuple[bool, bool, bool]:
    return score.activation != "", score.kind == "classes", score.kind not in NO_CLASSES


def _of_vector(vector: Vector, nature: Nature) -> Score:
    return Score(
        vector.value,
        vector.class_axis,
        vector.activation,
        vector.count,
        vector.output,
        nature=nature.name,
        reason=nature.reason,
    )


def _of_dense(dense: DenseScores) -> Score:
    return Score(dense.sources[0], 1, dense.activation, dense.count, dense.outputs[0], dense, CLASSES, dense.reason)


def _are_cells(vector: Vector, known: Mapping[ir.Value, Entries]) -> bool:
    """Tell whether what looks like classes is one column, of as many cells, or the columns of many cells in one row.

    Similarities of images and texts are no cells.
    """
    entries = known.get(vector.value)
    if entries is not None and len(entries.columns) == 1 and vector.class_axis not in (None, entries.axis):
        makers = [node for origin in entries.columns[0].origins if (node := origin.producer()) is not None]
        return not any(node.op_type == "MatMul" and all(constant(v) is None for v in node.inputs) for node in makers)
    node = vector.value.producer()
    while node is not None and node.op_type in RESHAPES and node.inputs[0] is not None:
        entries = known.get(node.inputs[0])
        if entries is not None and entries.are_squashed and len(entries.columns) < vector.count:
            return True
        node = node.inputs[0].producer()
    return False


def find_score(graph: ir.Graph, name: str | Sequence[str] = "auto", head: str = "auto") -> Score:
    """Return the score called ``name``, or that of a head.

    Args:
        graph: a prepared graph.
        name: the name of a value, the names of those that hold the levels of one score, or "auto".
        head: the name of one of the outputs of a head, or "auto": the first of ``find_heads``.

    Raises:
        ScoreError: no value has that name, no output has scores, or the named one has none.
        NoGradientPath: an output with scores depends on the inputs through steps and comparisons only.
    """
    if not isinstance(name, str):
        return _of_levels(graph, list(name))
    if name != "auto":
        return _named(graph, name)
    return choose_head(graph, find_heads(graph), head)


def choose_head(graph: ir.Graph, heads: Sequence[Score], name: str = "auto") -> Score:
    """Return the head with an output called ``name``, or the first of ``heads``; see ``find_score``.

    Raises:
        ScoreError: there is no such head, or none at all.
        NoGradientPath: an output with scores depends on the inputs through steps and comparisons only.
    """
    if name != "auto":
        return _head_called(name, heads)
    if heads:
        return heads[0]
    reached = dependents(graph, graph.inputs)
    _refuse_steps(graph, reached, _batches(graph))
    _refuse_images(graph)
    shapes = ", ".join(f"{v.name} {shown_shape(v)}" for v in graph.outputs)
    if unknown := unknown_before(graph, graph.outputs):
        raise ScoreError(
            f"what the outputs hold is not known: {accusation(unknown[-1])}",
            where=f"node {unknown[-1].name!r}; outputs: {shapes}",
            hint=way_out(unknown[-1]),
            outputs=tuple(v.name for v in graph.outputs),
        )
    raise ScoreError(
        "no output holds one score per class and image, or entries that pass through a Sigmoid or Softmax",
        where=f"outputs: {shapes}",
        hint=_way_out(graph),
        outputs=tuple(v.name for v in graph.outputs),
    )


def _way_out(graph: ir.Graph) -> str:
    """Return how a user can settle what no output tells: each by its name, or another value."""
    lines = settling_lines(graph, follow(graph))
    settled = f"if the numbers of an output are {lines}. Else " if lines else ""
    return (
        f"{settled}--score NAME: a value (N, classes), or one with scores of classes in cells, as (N, classes, H, W) "
        "or (N, anchors, classes) (`onnx-gradcam inspect MODEL` lists values)"
    )


def _refuse_images(graph: ir.Graph) -> None:
    """Raise ``ScoreError``, saying how a part of it is explained, where an output is an image like the input."""
    known = follow(graph)
    for value in graph.outputs:
        if is_image(graph, value, known):
            raise ScoreError(
                f"the output {value.name!r} is an image like the input, and holds no classes",
                where=f"shape {shown_shape(value)}",
                hint=f"a part of its channel 0: --score {value.name} --target box:0@X1,Y1,X2,Y2, or mask:0@FILE. If it "
                f"is a mask: --score {value.name}",
                outputs=(value.name,),
            )


def _head_called(name: str, heads: Sequence[Score]) -> Score:
    for score in heads:
        if name in score.outputs:
            return score
    names = [output for score in heads for output in score.outputs]
    if name == "all":
        raise ScoreError(
            "all heads are explained one after the other",
            where=f"heads: {', '.join(names) or 'none'}",
            hint="on the command line: explain --head all; in Python: one Explainer for each of heads(model)",
            name=name,
        )
    raise ScoreError(
        f"no head {name!r} could be explained",
        where=f"heads: {', '.join(names) or 'none'}",
        hint=f"--head {nearest(name, names)}" if names else "--score NAME",
        name=name,
    )


def _refuse_steps(graph: ir.Graph, reached: Set[ir.Value], batches: Batches) -> None:
    """Raise ``NoGradientPath``, naming the operator, where an output is a score but its gradient zero by definition."""
    for value in _float_ends(graph):
        if value not in reached and walk_back(value, batches) is not None:
            steps = [n for n in _makers(value) if n.op_type in STEP_FUNCTIONS and any(v in reached for v in n.inputs)]
            if steps:
                raise NoGradientPath(
                    f"the gradient of {value.name!r} is zero by definition: no path from the input goes around "
                    f"{steps[0].op_type}",
                    where=f"node {steps[0].name!r}",
                    hint="a score before that node: --score NAME; or this one by its name, with a method without "
                    "gradients (reciprocam)",
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
    value, options = _value_called(graph, name)
    activation, output = leads_to(value)
    batches = _batches(graph)
    vector = None if options else describe(value, activation, output or value.name or "", batches)
    if vector is not None:
        return _of_vector(vector, Nature(CLASSES if vector.class_axis is not None else "", NAMED))
    dense = named_dense_score(graph, [(value, options)], follow(graph), batches)
    score = None if dense is None else _of_dense(dense)
    if score is None:
        raise ScoreError(
            f"{name!r} of shape {shown_shape(value)} is not one score per class and image",
            hint="a floating-point value of shape (N, classes), (N, 1) or (N,), or scores of classes in cells",
            name=name,
        )
    return score


def _value_called(graph: ir.Graph, name: str) -> tuple[ir.Value, Mapping[str, str]]:
    """Return the value that is called ``name``, and what the user says of it behind a colon (``Reading``)."""
    values = {k: v for k, v in values_by_name(graph).items() if not v.is_initializer()}
    reading = parse_reading(name, values)
    if reading.name not in values:
        raise ScoreError(f"the model has no value {name!r}", hint=f"one of {nearest(name, values)}", name=name)
    return values[reading.name], reading.options


def _of_levels(graph: ir.Graph, names: Sequence[str]) -> Score:
    """Return the score whose levels are the values with these names.

    Raises:
        ScoreError: there is no such value, or they are no levels of one score.
    """
    named = [_value_called(graph, name) for name in names]
    dense = named_dense_score(graph, named, follow(graph), _batches(graph))
    if dense is None or len(dense.heads) < len(named):
        shapes = ", ".join(f"{v.name} {shown_shape(v)}" for v, _ in named)
        raise ScoreError(
            f"{len(named)} values are not the levels of one score",
            where=shapes,
            hint="--score for each level: values of as many columns, in as many axes; another head is --head NAME",
            names=tuple(names),
        )
    return _of_dense(dense)


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
