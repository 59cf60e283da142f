"""The scores of models with many for each image (segmenters, detectors, sequences), described.

Entries are one score for each class and cell: a pixel, an anchor, a step in time. What stands for a class is its most
probable cell, so that a model of any number of cells has one score per class and image, as a classifier has. Here the
scores are described; ``targets`` writes them into a graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import onnx_ir as ir

from onnx_gradcam.anatomy.dense import heads
from onnx_gradcam.anatomy.dense.cells import Level, levels
from onnx_gradcam.anatomy.dense.grouping import grouped, without_boxes
from onnx_gradcam.anatomy.dense.outputs import ScoredOutput, activation_behind, of_entries, scored_output
from onnx_gradcam.anatomy.dense.plain import is_coarse_map, plain_logits
from onnx_gradcam.anatomy.dense.raw import raw_heads, squashed_anchors
from onnx_gradcam.anatomy.dense.reading import column_axis, read_as, with_columns
from onnx_gradcam.anatomy.dense.settling import as_options, lines_of_detector
from onnx_gradcam.anatomy.dense.tensors import Joined, Tensor, column_sources, dims_of, sources
from onnx_gradcam.anatomy.entries.columns import Entries
from onnx_gradcam.anatomy.natures import is_image
from onnx_gradcam.anatomy.sizes import Sizes
from onnx_gradcam.anatomy.vectors import Batches
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.operators import CONVOLUTIONS, CUTS


@dataclass(frozen=True)
class DenseScores:
    """The scores of a model with many for each image.

    Attributes:
        heads: the outputs that hold them, all of as many classes.
        logits: (N, K, P) of all cells of all heads.
        objectness: (N, 1, P); None where a head has none.
        boxes: (N, 4 or more, P) the numbers of the boxes; None where they are not known of a head.
        levels: the levels that the cells lie on.
    """

    heads: tuple[ScoredOutput, ...]
    logits: Tensor
    objectness: Tensor | None
    boxes: Tensor | None
    levels: tuple[Level, ...]

    @property
    def count(self) -> int:
        """Return the number of classes."""
        return self.heads[0].count

    @property
    def activation(self) -> str:
        """Return the operator that makes probabilities of the logits: "Softmax", "Sigmoid", or "" for none."""
        return self.heads[0].activation

    @property
    def detector(self) -> bool:
        """Return whether boxes go with the cells."""
        return len(self.levels) > 1 or self.objectness is not None or any(head.has_boxes for head in self.heads)

    @property
    def may_have_background(self) -> bool:
        """Return whether one of the classes may be the background, which is likely in most cells."""
        return any(head.may_have_background for head in self.heads)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the model's values that hold the logits."""
        return tuple(head.name for head in self.heads)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of the model's values that hold the scores as the model returns them."""
        return tuple(dict.fromkeys(name for head in self.heads for name in head.returned_in))

    @property
    def reason(self) -> str:
        """Return why these are the scores."""
        first = self.heads[0]
        otherwise = f" (or else {first.otherwise})" if first.otherwise else ""
        if first.raw:
            return f"{first.raw}; nothing in the model squashes them{otherwise}"
        made = f"pass through a {first.activation} and are only moved behind it" if first.activation else "are logits"
        columns = f"{self.count} columns" if self.count > 1 else "one column"
        others = "; the other columns meet arithmetic, or are left as they are: boxes" if first.has_boxes else ""
        gate = "; another one is the objectness" if self.objectness is not None else ""
        return f"{columns} for each of many cells {made}{gate}{others}{otherwise}"

    @property
    def cell_axes(self) -> int:
        """Return the number of axes of the cells in their output."""
        return len(dims_of(self.heads[0].grid)) - 2

    @cached_property
    def has_undecoded_boxes(self) -> bool:
        """Return whether the boxes are as a convolution left them, one for each cell, with an objectness beside them.

        So YOLOX leaves them, with a Sigmoid over objectness and classes.
        """
        if self.boxes is None or self.objectness is None or self.activation != "Sigmoid":
            return False
        origins = [level.origin() for level in levels(self.boxes) or (Level(self.boxes, 2, 1),)]
        return all(_is_map(made) and dims_of(made)[1] == heads.BOX and _is_convolved(made) for made in origins)

    @cached_property
    def has_maps(self) -> bool:
        """Return whether the cells of each level were made in a map of two axes."""
        return all(_is_map(level.origin()) for level in self.levels)

    @property
    def sources(self) -> tuple[Value, ...]:
        """Return the values of the model that the logits are made of."""
        return tuple(sources(self.logits))

    def branch(self, name: str) -> tuple[Level, ...]:
        """Return the levels of a branch of a detector: "logits", "objectness" or "boxes"."""
        tensor = self._tensor(name)
        if tensor is self.logits:
            return self.levels
        return levels(tensor, through_arithmetic=True) or (Level(tensor, 2, 1),)

    def branch_sources(self, name: str) -> tuple[Value, ...]:
        """Return the values of the model that a branch is made of, without those beside it."""
        return tuple(column_sources(self._tensor(name)))

    def _tensor(self, branch: str) -> Tensor:
        tensor = {"objectness": self.objectness, "boxes": self.boxes}.get(branch)
        return self.logits if tensor is None else tensor


def dense_scores(graph: ir.Graph, known: Mapping[Value, Entries], batches: Batches) -> list[DenseScores]:
    """Return the scores in all outputs of ``graph``, what is explained first before the others (``grouped``).

    Args:
        graph: a prepared graph.
        known: the entries of its values.
        batches: the first dimensions of the inputs.
    """
    sizes = Sizes.of(graph)
    outputs = _scored_outputs(graph, known, batches, sizes)
    others = [*graph.outputs, *_suppressed_boxes(graph), *_cut_beside(outputs)]
    return [_joined(group) for group in grouped(outputs, others, known, sizes)]


def _suppressed_boxes(graph: ir.Graph) -> list[Value]:
    """Return the boxes that the model suppresses itself, all of them: what a NonMaxSuppression reads."""
    nodes = [node for node in graph if node.op_type == "NonMaxSuppression"]
    return list(dict.fromkeys(v for node in nodes if (v := node.inputs[0]) is not None))


def _cut_beside(outputs: Sequence[ScoredOutput]) -> list[Value]:
    """Return the values that were cut from the same value as the scores: boxes that a model selects before it ends."""
    cut = [(output.output, node) for output in outputs if (node := output.output.producer()) is not None]
    sources = [(value, node.inputs[0]) for value, node in cut if node.op_type in CUTS]
    readers = [(value, node) for value, source in sources if source is not None for node in source.consumers()]
    parts = [part for value, node in readers if node.op_type in CUTS for part in node.outputs if part is not value]
    return list(dict.fromkeys(parts))


def named_dense_score(
    graph: ir.Graph,
    named: Sequence[tuple[Value, Mapping[str, str]]],
    known: Mapping[Value, Entries],
    batches: Batches,
) -> DenseScores | None:
    """Return the scores behind values that the user names, the levels of one score; None where they have none.

    Args:
        graph: a prepared graph.
        named: the values, each with what the user says of it (``Reading.options``).
        known: the entries of the values.
        batches: the first dimensions of the inputs.

    Raises:
        ScoreError: what the user says does not fit a value.
    """
    outputs = _of_values(graph, named, known, batches)
    most = max((output.count for output in outputs), default=0)
    return _joined([output for output in outputs if output.count == most]) if outputs else None


def _of_values(
    graph: ir.Graph,
    named: Sequence[tuple[Value, Mapping[str, str]]],
    known: Mapping[Value, Entries],
    batches: Batches,
) -> list[ScoredOutput]:
    if any(options for _, options in named):
        each = [read_as(value, options, known, batches) for value, options in named]
        return [output for output in each if output is not None]
    values = [value for value, _ in named]
    outputs = [output for end in heads.ends(values, known) if (output := of_entries(end, batches)) is not None]
    if not outputs and len(values) > 1:
        outputs = raw_heads(graph, known, batches, Sizes.of(graph), values)
    return outputs or [output for value in values if (output := _plain(value, known, batches)) is not None]


def _plain(value: Value, known: Mapping[Value, Entries], batches: Batches) -> ScoredOutput | None:
    """Return the scores that every column of ``value`` is; None where it has no cells, or an open number of columns.

    Of an output its axes say where the columns are, where its history does not.
    """
    if value.shape is None or len(value.shape) < len("NPK") or not (value in known or value.is_graph_output()):
        return None
    value = with_columns(value, known)
    axis = column_axis(value, known)
    if not isinstance(dims_of(value)[axis], int):
        return None
    return scored_output(value, value, axis, None, None, activation_behind(value), batches)


def _joined(all_heads: Sequence[ScoredOutput]) -> DenseScores:
    logits = _side_by_side([head.logits for head in all_heads])
    own = tuple(Level(head.logits, 2, 1) for head in all_heads)
    assert logits is not None
    return DenseScores(
        tuple(all_heads),
        logits,
        _side_by_side([head.objectness for head in all_heads]),
        _side_by_side([head.boxes for head in all_heads]),
        own if len(own) > 1 else levels(logits) or own,
    )


def _side_by_side(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Return the cells of all parts behind one another; None where a part is missing."""
    there = tuple(part for part in parts if part is not None)
    if len(there) < len(parts):
        return None
    return there[0] if len(there) == 1 else Joined(there, 2)


def _scored_outputs(
    graph: ir.Graph, known: Mapping[Value, Entries], batches: Batches, sizes: Sizes
) -> list[ScoredOutput]:
    """Return the outputs with probabilities, or else one with logits that the model leaves as they are."""
    traced = [of_entries(end, batches) for end in heads.ends(graph.outputs, known)]
    there = [s for s in traced if s is not None and not is_image(graph, s.output, known)]
    with_probabilities = squashed_anchors(graph, known, batches, sizes) or without_boxes(there)
    if with_probabilities and not _may_be_boxes_of_queries(with_probabilities, known):
        return with_probabilities
    raw = raw_heads(graph, known, batches, sizes)
    if with_probabilities:
        return raw or _beside_boxes(graph, with_probabilities[0], batches) or with_probabilities
    if raw and not heads.before_argmax(graph.outputs):
        return raw
    return [s for value, axis in plain_logits(graph, known) if (s := _left_alone(graph, value, axis, batches))]


def _left_alone(graph: ir.Graph, value: Value, axis: int, batches: Batches) -> ScoredOutput | None:
    """Return the scores that a map or the steps of a reader hold, which the model leaves as they are."""
    output = scored_output(value, value, axis, None, None, activation_behind(value), batches)
    if output is None or not value.is_graph_output() or output.activation:
        return output
    lines = [f"each column is a map of its own: {as_options([value], ':squash=sigmoid')}"]
    if len(graph.outputs) == 1 and is_coarse_map(graph, value):
        lines += lines_of_detector([value], output.count)
    return replace(output, otherwise="; or ".join(lines))


def _may_be_boxes_of_queries(outputs: Sequence[ScoredOutput], known: Mapping[Value, Entries]) -> bool:
    """Tell whether what passes through a Sigmoid may be the coordinates of boxes, beside raw logits of classes.

    Those of a query are part of the whole image. What a convolution makes in a cell lies about an anchor, and is left
    as it is.
    """
    origins = [v for output in outputs if output.output in known for v in known[output.output].columns[0].origins]
    return not any(_is_convolved(v) for v in origins) and all(
        output.count == heads.BOX and output.activation == "Sigmoid" for output in outputs
    )


def _beside_boxes(graph: ir.Graph, boxes: ScoredOutput, batches: Batches) -> list[ScoredOutput]:
    """Return the one output that has columns for each box of queries: logits of classes, by whatever arithmetic.

    Empty: there is none, there are several, or it has as many columns as a box, and may be the boxes itself.
    """
    cells = dims_of(boxes.grid)[2:]
    others = [v for v in graph.outputs if v is not boxes.output and v.name not in boxes.returned_in]
    shapes = [(v, list(v.shape)) for v in others if v.shape is not None and len(v.shape) == 3]
    beside = [(v, dims[2]) for v, dims in shapes if dims[1:2] == cells]
    if len(beside) != 1 or beside[0][1] == heads.BOX:
        return []
    value, count = beside[0]
    reason = f"{count} columns for each of the boxes that pass through a Sigmoid, {boxes.returned_in[0]!r}"
    output = scored_output(value, value, 2, None, None, "", batches, reason)
    return [] if output is None or not isinstance(count, int) else [output]


def _is_convolved(tensor: Tensor) -> bool:
    node = tensor.producer() if isinstance(tensor, ir.Value) else None
    return node is not None and node.op_type in CONVOLUTIONS


def _is_map(tensor: Tensor) -> bool:
    is_known = not isinstance(tensor, ir.Value) or tensor.shape is not None
    return is_known and len(dims_of(tensor)) == 4
