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

from onnx_gradcam.anatomy.axes import Dim
from onnx_gradcam.anatomy.dense import heads
from onnx_gradcam.anatomy.dense.cells import Level, levels
from onnx_gradcam.anatomy.dense.heads import BOX
from onnx_gradcam.anatomy.dense.tensors import (
    Flattened,
    Joined,
    Tensor,
    arranged,
    column_sources,
    columns,
    dims_of,
    sources,
)
from onnx_gradcam.anatomy.entries.columns import Entries
from onnx_gradcam.anatomy.natures import is_image
from onnx_gradcam.anatomy.vectors import Batches
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.operators import COPIES, REORDERS


@dataclass(frozen=True)
class ScoredOutput:
    """One output with scores of K classes in P cells.

    Attributes:
        logits: (N, K, P).
        grid: (N, K, …) the same, the cells in their own axes.
        objectness: (N, 1, P); None where there is none.
        boxes: (N, 4 or more, P) the numbers of the boxes; None where they are not known.
        activation: "Softmax" or "Sigmoid" as the model has it, "" for logits that it leaves as they are.
        has_boxes: whether other columns stand beside the scores.
        name: the name of the model's value that holds the logits.
        output: the value of the model that holds the scores.
        returned_in: the names of the graph outputs that they come to.
    """

    logits: Tensor
    grid: Tensor
    objectness: Tensor | None
    boxes: Tensor | None
    activation: str
    has_boxes: bool
    name: str
    output: Value
    returned_in: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Return the number of classes."""
        return _known(dims_of(self.grid)[1])


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
        made = f"pass through a {first.activation} and are only moved behind it" if first.activation else "are logits"
        columns = f"{self.count} columns" if self.count > 1 else "one column"
        others = "; the other columns meet arithmetic, or are left as they are: boxes" if first.has_boxes else ""
        gate = "; another one is the objectness" if self.objectness is not None else ""
        return f"{columns} for each of many cells {made}{gate}{others}"

    @property
    def cell_axes(self) -> int:
        """Return the number of axes of the cells in their output."""
        return len(dims_of(self.heads[0].grid)) - 2

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
    """Return the scores in all outputs of ``graph``, those with most classes first.

    Outputs of as many classes and cell axes are one score; one of a single class and as many cells as another one's is
    the objectness of that one.

    Args:
        graph: a prepared graph.
        known: the entries of its values.
        batches: the first dimensions of the inputs.
    """
    outputs = _scored_outputs(graph, known, batches)
    most = max((output.count for output in outputs), default=0)
    gates = [output for output in outputs if output.count == 1 < most]
    groups: dict[tuple[int, int], list[ScoredOutput]] = {}
    for output in outputs:
        if output not in gates:
            groups.setdefault((output.count, len(dims_of(output.grid))), []).append(output)
    left = list(graph.outputs)
    alike = [[_with_objectness(output, gates) for output in group] for group in groups.values()]
    ordered = sorted(alike, key=lambda group: -group[0].count)
    return [_joined(_with_boxes(group, left)) for group in ordered]


def named_dense_score(value: Value, known: Mapping[Value, Entries], batches: Batches) -> DenseScores | None:
    """Return the scores behind a value that the user names; None where it has none.

    ``known`` and ``batches``: see ``dense_scores``.
    """
    traced = [_of_entries(end, batches) for end in heads.ends([value], known)]
    outputs = [output for output in traced if output is not None]
    if not outputs and value in known:
        plain = _scored(value, value, known[value].axis, None, None, _activation_behind(value), batches)
        outputs = [] if plain is None else [plain]
    most = max((output.count for output in outputs), default=0)
    return _joined([output for output in outputs if output.count == most]) if outputs else None


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


# --- heads ------------------------------------------------------------------------------------------------------


def _scored_outputs(graph: ir.Graph, known: Mapping[Value, Entries], batches: Batches) -> list[ScoredOutput]:
    """Return the outputs with probabilities, or else one with logits that the model leaves as they are."""
    traced = [_of_entries(end, batches) for end in heads.ends(graph.outputs, known)]
    with_probabilities = [s for s in traced if s is not None and not is_image(graph, s.output, known)]
    if with_probabilities:
        return with_probabilities
    plain = _plain_logits(graph, known)
    if plain is None:
        return []
    value, axis = plain
    output = _scored(value, value, axis, None, None, _activation_behind(value), batches)
    return [] if output is None else [output]


def _column_axis(value: Value, known: Mapping[Value, Entries]) -> int | None:
    return known[value].axis if value in known else None


def _plain_logits(graph: ir.Graph, known: Mapping[Value, Entries]) -> tuple[Value, int] | None:
    """Return logits that the model leaves as they are, and the axis of the classes.

    They are what an ArgMax reads; a map of several classes in the size of the image or not much below; steps that a
    recurrent layer leads to.
    """
    decided = heads.before_argmax(graph.outputs)
    if decided is not None:
        return decided
    images = [v for v in graph.inputs if v.shape is not None and len(v.shape) > 3]
    maps = [v for v in graph.outputs if v.shape is not None and len(v.shape) > 3]
    recurrent = any(node.op_type in ("LSTM", "GRU", "RNN") for node in graph)
    steps = [v for v in graph.outputs if v.shape is not None and len(v.shape) == 3] if recurrent else []
    for value in [*maps[:1], *steps[:1]]:
        axis = _column_axis(value, known)
        count = 0 if axis is None else dims_of(value)[axis]
        if axis is None or not isinstance(count, int) or count < 2:
            continue
        if value in steps or (images and _is_map_of(value, axis, maps, images[0], known)):
            return value, axis
    return None


def _is_map_of(value: Value, axis: int, maps: Sequence[Value], image: Value, known: Mapping[Value, Entries]) -> bool:
    """Tell whether a map may be one of classes of the image: as fine, other maps alike, and not itself an image."""
    alike = all(_may_be_same(_space(v, _column_axis(v, known)), _space(value, axis)) for v in maps)
    is_image = dims_of(value)[axis] == _channels(image)
    return alike and not is_image and _is_fine(_space(value, axis), _space(image, None))


def _space(value: Value, axis: int | None) -> list[Dim]:
    dims = dims_of(value)
    if axis is None:
        axis = len(dims) - 1 if dims[-1] in (1, 3, 4) else 1
    return [d for k, d in enumerate(dims) if k not in (0, axis)]


def _channels(image: Value) -> Dim:
    dims = dims_of(image)
    return dims[-1] if dims[-1] in (1, 3, 4) else dims[1]


def _may_be_same(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    return len(a) == len(b) and all(
        x == y or not (isinstance(x, int) and isinstance(y, int)) for x, y in zip(a, b, strict=True)
    )


def _is_fine(space: Sequence[Dim], image: Sequence[Dim]) -> bool:
    """Tell whether a map has at least an eighth of the image's resolution (a coarser one may be anything)."""
    known = [(a, b) for a, b in zip(space, image, strict=False) if isinstance(a, int) and isinstance(b, int)]
    return len(space) == len(image) and all(a * 8 >= b for a, b in known)


def _activation_behind(value: Value) -> str:
    """Return the operator behind logits that makes probabilities of them, "" where there is none."""
    for node in value.consumers():
        if node.op_type in heads.MAKES_PROBABILITIES:
            return _activation(node)
        if node.op_type in REORDERS | COPIES and node.inputs[0] is value:
            activation = _activation_behind(node.outputs[0])
            if activation:
                return activation
    return ""


def _activation(node: ir.Node) -> str:
    return "Sigmoid" if node.op_type == "Sigmoid" else "Softmax"


def _of_entries(end: heads.End, batches: Batches) -> ScoredOutput | None:
    """Return the head whose scores are the entries of the value at an end."""
    value, entries = end.value, end.entries
    classes, gate = heads.classes(entries)
    node = entries.squashed_by[classes[0]]
    assert node is not None
    axis, total = entries.axis, len(entries.squashed_by)
    logits = columns(entries.logits, axis, classes[0], len(classes), total)
    objectness = entries.objectness if gate is None else columns(entries.logits, axis, gate, 1, total)
    first = _box_column(entries)
    boxes = None if first is None else columns(value, axis, first, BOX, total)
    made = _scored(value, logits, axis, objectness, boxes, _activation(node), batches)
    source = node.inputs[0]
    name = (source.name if source is not None else value.name) or ""
    return (
        None
        if made is None
        else replace(made, has_boxes=None in entries.squashed_by, name=name, returned_in=end.outputs)
    )


def _box_column(entries: Entries) -> int | None:
    """Return the first of four columns that are no scores."""
    scored = [node is not None for node in entries.squashed_by]
    runs = [k for k in range(len(scored) - BOX + 1) if not any(scored[k : k + BOX])]
    return runs[0] if runs else None


def _scored(
    output: Value,
    logits: Tensor,
    axis: int,
    objectness: Tensor | None,
    boxes: Tensor | None,
    activation: str,
    batches: Batches,
) -> ScoredOutput | None:
    """Return the head with these tensors, whose columns lie along ``axis``; None where the batch axis is not known."""
    dims = dims_of(logits)
    others = [k for k in range(len(dims)) if k != axis]
    batch = next((k for k in others if dims[k] in batches or not isinstance(dims[k], int)), None)
    if batch is None or len(dims) < 3:
        return None
    order = [batch, axis, *(k for k in others if k != batch)]
    grid = arranged(logits, order)
    gate, box = (None if t is None else _flat(arranged(t, order)) for t in (objectness, boxes))
    return ScoredOutput(
        _flat(grid), grid, gate, box, activation, False, output.name or "", output, (output.name or "",)
    )


def _flat(grid: Tensor) -> Tensor:
    return grid if len(dims_of(grid)) == 3 else Flattened(grid)


def _with_objectness(head: ScoredOutput, gates: Sequence[ScoredOutput]) -> ScoredOutput:
    """Return the head with the objectness that another output is: one of one column and as many cells."""
    if head.objectness is not None:
        return head
    same = [gate for gate in gates if dims_of(gate.grid)[2:] == dims_of(head.grid)[2:]]
    return replace(head, objectness=same[0].logits) if same else head


def _with_boxes(some_heads: Sequence[ScoredOutput], left: list[Value]) -> list[ScoredOutput]:
    """Return the heads with the boxes that are outputs of their own: as many cells, four columns or a multiple of it.

    A head's output comes with that of its boxes: of several that fit, each is taken once, off the list ``left``.
    """
    scores = {head.output for head in some_heads}
    left[:] = [v for v in left if v.shape is not None and v not in scores]
    return [head if head.boxes is not None else _take_boxes(head, left) for head in some_heads]


def _take_boxes(head: ScoredOutput, left: list[Value]) -> ScoredOutput:
    """Return the head with the first of the outputs ``left`` that fits as its boxes, which is taken off the list."""
    for value in left:
        axis = _box_axis(value, head.grid)
        if axis is not None:
            left.remove(value)
            order = [0, axis, *(k for k in range(1, len(dims_of(value))) if k != axis)]
            return replace(head, boxes=_flat(arranged(value, order)))
    return head


def _box_axis(value: Value, grid: Tensor) -> int | None:
    """Return the axis of the columns, where the others are those of the cells of ``grid`` (N, K, …)."""
    dims, cells = dims_of(value), dims_of(grid)[2:]
    for axis in range(1, len(dims)):
        count = dims[axis]
        if isinstance(count, int) and count and count % BOX == 0 and dims[1:axis] + dims[axis + 1 :] == cells:
            return axis
    return None


def _is_map(tensor: Tensor) -> bool:
    is_known = not isinstance(tensor, ir.Value) or tensor.shape is not None
    return is_known and len(dims_of(tensor)) == 4


def _known(count: Dim) -> int:
    assert isinstance(count, int)
    return count
