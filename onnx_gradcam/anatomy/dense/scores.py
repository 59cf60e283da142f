"""The scores of models with many for each image (segmenters, detectors, sequences), described.

Entries are one score for each class and cell: a pixel, an anchor, a step in time. What stands for a class is its most
probable cell, so that a model of any number of cells has one score per class and image, as a classifier has. Here the
scores are described; ``targets`` writes them into a graph.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property

import onnx_ir as ir

from onnx_gradcam.anatomy.axes import Dim
from onnx_gradcam.anatomy.dense import heads
from onnx_gradcam.anatomy.dense.cells import Level, levels
from onnx_gradcam.anatomy.dense.heads import BOX, Entries
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
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.operators import COPIES, REORDERS

Batches = Set[Dim | None]


@dataclass(frozen=True)
class Head:
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
    """

    logits: Tensor
    grid: Tensor
    objectness: Tensor | None
    boxes: Tensor | None
    activation: str
    has_boxes: bool
    name: str
    output: Value

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

    heads: tuple[Head, ...]
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


def dense_scores(graph: ir.Graph, name: str, batches: Batches) -> DenseScores | None:
    """Return the scores in all outputs of ``graph``, or behind its value ``name``; None where there are none.

    Args:
        graph: a prepared graph.
        name: the name of a value, or "auto".
        batches: the first dimensions of the inputs.
    """
    known = _heads(graph, name, batches)
    if not known:
        return None
    count = max(head.count for head in known)
    largest = [head for head in known if head.count == count]
    gates = [head for head in known if head.count == 1 < count]
    rank = len(dims_of(largest[0].grid))
    alike = [_with_objectness(head, gates) for head in largest if len(dims_of(head.grid)) == rank]
    return _joined(_with_boxes(alike, graph.outputs))


def _joined(all_heads: Sequence[Head]) -> DenseScores:
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


def _heads(graph: ir.Graph, name: str, batches: Batches) -> list[Head]:
    """Return the outputs with probabilities, or else one with logits that the model leaves as they are."""
    nodes = list(graph)
    values = {v.name: v for node in nodes for v in node.outputs}
    if name != "auto" and name not in values:
        return []
    outputs = list(graph.outputs) if name == "auto" else [values[name]]
    traced = [_head_of_entries(v, entries, nodes, batches) for v, entries in heads.ends(outputs)]
    with_probabilities = [head for head in traced if head is not None]
    if with_probabilities:
        return with_probabilities
    if name == "auto":
        plain = _plain_logits(graph, nodes)
    else:
        axis = heads.channel_axis(values[name])
        plain = None if axis is None else (values[name], axis)
    if plain is None:
        return []
    value, axis = plain
    head = _head(value, value, axis, None, None, _activation_behind(value), batches)
    return [] if head is None else [head]


def _plain_logits(graph: ir.Graph, nodes: Sequence[ir.Node]) -> tuple[Value, int] | None:
    """Return logits that the model leaves as they are, and the axis of the classes.

    They are what an ArgMax reads; a map of several classes in the size of the image or not much below; steps that a
    recurrent layer leads to.
    """
    decided = heads.before_argmax(graph.outputs)
    if decided is not None:
        return decided
    images = [v for v in graph.inputs if v.shape is not None and len(v.shape) > 3]
    maps = [v for v in graph.outputs if v.shape is not None and len(v.shape) > 3]
    recurrent = any(node.op_type in ("LSTM", "GRU", "RNN") for node in nodes)
    steps = [v for v in graph.outputs if v.shape is not None and len(v.shape) == 3] if recurrent else []
    for value in [*maps[:1], *steps[:1]]:
        axis = heads.channel_axis(value)
        count = 0 if axis is None else dims_of(value)[axis]
        if axis is None or not isinstance(count, int) or count < 2:
            continue
        if value in steps or (images and _is_map_of(value, axis, maps, images[0])):
            return value, axis
    return None


def _is_map_of(value: Value, axis: int, maps: Sequence[Value], image: Value) -> bool:
    """Tell whether a map may be one of classes of the image: as fine, other maps alike, and not itself an image."""
    alike = all(_may_be_same(_space(v, heads.channel_axis(v)), _space(value, axis)) for v in maps)
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


def _head_of_entries(value: Value, entries: Entries, nodes: Sequence[ir.Node], batches: Batches) -> Head | None:
    """Return the head whose scores are the entries of ``value``."""
    classes, gate = heads.classes(entries, nodes)
    node = entries.squashed_by[classes[0]]
    assert node is not None
    axis, total = entries.axis, len(entries.squashed_by)
    logits = columns(entries.logits, axis, classes[0], len(classes), total)
    objectness = entries.objectness if gate is None else columns(entries.logits, axis, gate, 1, total)
    first = _box_column(entries)
    boxes = None if first is None else columns(value, axis, first, BOX, total)
    head = _head(value, logits, axis, objectness, boxes, _activation(node), batches)
    source = node.inputs[0]
    name = (source.name if source is not None else value.name) or ""
    return None if head is None else replace(head, has_boxes=bool(entries.others), name=name)


def _box_column(entries: Entries) -> int | None:
    """Return the first of four columns that are no scores."""
    scored = [node is not None for node in entries.squashed_by]
    runs = [k for k in range(len(scored) - BOX + 1) if not any(scored[k : k + BOX])]
    return runs[0] if runs else None


def _head(
    output: Value,
    logits: Tensor,
    axis: int,
    objectness: Tensor | None,
    boxes: Tensor | None,
    activation: str,
    batches: Batches,
) -> Head | None:
    """Return the head with these tensors, whose columns lie along ``axis``; None where the batch axis is not known."""
    dims = dims_of(logits)
    others = [k for k in range(len(dims)) if k != axis]
    batch = next((k for k in others if dims[k] in batches or not isinstance(dims[k], int)), None)
    if batch is None or len(dims) < 3:
        return None
    order = [batch, axis, *(k for k in others if k != batch)]
    grid = arranged(logits, order)
    gate, box = (None if t is None else _flat(arranged(t, order)) for t in (objectness, boxes))
    return Head(_flat(grid), grid, gate, box, activation, False, output.name or "", output)


def _flat(grid: Tensor) -> Tensor:
    return grid if len(dims_of(grid)) == 3 else Flattened(grid)


def _with_objectness(head: Head, gates: Sequence[Head]) -> Head:
    """Return the head with the objectness that another output is: one of one column and as many cells."""
    if head.objectness is not None:
        return head
    same = [gate for gate in gates if dims_of(gate.grid)[2:] == dims_of(head.grid)[2:]]
    return replace(head, objectness=same[0].logits) if same else head


def _with_boxes(some_heads: Sequence[Head], outputs: Sequence[Value]) -> list[Head]:
    """Return the heads with the boxes that are outputs of their own: as many cells, four columns or a multiple of it.

    A head's output comes with that of its boxes: of several that fit, each is taken once.
    """
    scores = {head.output for head in some_heads}
    left = [v for v in outputs if v.shape is not None and v not in scores]
    return [head if head.boxes is not None else _take_boxes(head, left) for head in some_heads]


def _take_boxes(head: Head, left: list[Value]) -> Head:
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
