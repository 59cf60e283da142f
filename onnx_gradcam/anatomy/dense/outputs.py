"""One output with scores, described: its logits, and the objectness and boxes that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnx_gradcam.anatomy.dense import heads
from onnx_gradcam.anatomy.dense.heads import BOX
from onnx_gradcam.anatomy.dense.tensors import Batched, Flattened, Tensor, arranged, columns, dims_of
from onnx_gradcam.anatomy.entries.columns import Entries
from onnx_gradcam.anatomy.vectors import Batches, batch_axis
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.operators import COPIES, REORDERS
from onnx_gradcam.graph.quantization import real_form

OBJECTNESS_NAMES = ("obj", "conf", "ctr", "centerness")


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
        raw: why they are taken for scores, where nothing in the model squashes them; "" where something does.
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
    raw: str = ""

    @property
    def count(self) -> int:
        """Return the number of classes."""
        count = dims_of(self.grid)[1]
        assert isinstance(count, int)
        return count


def activation_behind(value: Value) -> str:
    """Return the operator behind logits that makes probabilities of them, "" where there is none."""
    for node in value.consumers():
        if node.op_type in heads.MAKES_PROBABILITIES:
            return _activation(node)
        if node.op_type in REORDERS | COPIES and node.inputs[0] is value:
            activation = activation_behind(node.outputs[0])
            if activation:
                return activation
    return ""


def _activation(node: ir.Node) -> str:
    return "Sigmoid" if node.op_type.endswith("Sigmoid") else "Softmax"


def of_entries(end: heads.End, batches: Batches) -> ScoredOutput | None:
    """Return the head whose scores are the entries of the value at an end."""
    value, entries = end.value, end.entries
    classes, gate = heads.classes(entries)
    node = entries.squashed_by[classes[0]]
    assert node is not None
    axis, total = entries.axis, len(entries.squashed_by)
    logits = columns(entries.logits, axis, classes[0], len(classes), total)
    objectness = entries.objectness if gate is None else columns(entries.logits, axis, gate, 1, total)
    first = _box_column(entries)
    boxes = None if first is None else columns(real_form(value), axis, first, BOX, total)
    output = scored_output(value, logits, axis, objectness, boxes, _activation(node), batches)
    if output is None:
        return None
    source = node.inputs[0]
    name = (real_form(source).name if source is not None else value.name) or ""
    return replace(output, has_boxes=None in entries.squashed_by, name=name, returned_in=end.outputs)


def _box_column(entries: Entries) -> int | None:
    """Return the first of four columns that are no scores."""
    scored = [node is not None for node in entries.squashed_by]
    runs = [k for k in range(len(scored) - BOX + 1) if not any(scored[k : k + BOX])]
    return runs[0] if runs else None


def scored_output(
    output: Value,
    logits: Tensor,
    axis: int,
    objectness: Tensor | None,
    boxes: Tensor | None,
    activation: str,
    batches: Batches,
    raw: str = "",
) -> ScoredOutput | None:
    """Return the head with these tensors, whose columns lie along ``axis``; None where the batch axis is not known.

    Of one image alone the axis of the batch may be missing.
    """
    dims = dims_of(logits)
    others = [k for k in range(len(dims)) if k != axis]
    batch = batch_axis(output, dims, others, batches)
    if batch is None and batches == {1} and len(dims) == 2:
        tensors = [None if t is None else Batched(t) for t in (logits, objectness, boxes)]
        grid, gate, box = (None if t is None else arranged(t, [0, axis + 1, 2 - axis]) for t in tensors)
    elif batch is None or len(dims) < 3:
        return None
    else:
        order = [batch, axis, *(k for k in others if k != batch)]
        grid, gate, box = (None if t is None else arranged(t, order) for t in (logits, objectness, boxes))
    assert grid is not None
    gate, box = (None if t is None else _flat(t) for t in (gate, box))
    name = output.name or ""
    has_boxes = boxes is not None or objectness is not None
    return ScoredOutput(_flat(grid), grid, gate, box, activation, has_boxes, name, output, (name,), raw)


def _flat(grid: Tensor) -> Tensor:
    return grid if len(dims_of(grid)) == 3 else Flattened(grid)


def with_objectness(head: ScoredOutput, gates: Sequence[ScoredOutput]) -> ScoredOutput:
    """Return the head with the objectness that another output is: one of one column and as many cells."""
    if head.objectness is not None:
        return head
    same = [gate for gate in gates if dims_of(gate.grid)[2:] == dims_of(head.grid)[2:]]
    return replace(head, objectness=same[0].logits) if same else head


def gates_among(outputs: Sequence[ScoredOutput]) -> list[ScoredOutput]:
    """Return those of the outputs that are the objectness of others.

    They have one column beside several classes; where all have one, two outputs go together for each grid, and the gate
    is the one that its name says to be, or else the second.
    """
    most = max((output.count for output in outputs), default=0)
    if most > 1:
        return [output for output in outputs if output.count == 1]
    grids: dict[tuple[object, ...], list[ScoredOutput]] = {}
    for output in outputs:
        grids.setdefault(tuple(dims_of(output.grid)[2:]), []).append(output)
    if any(
        len(pair) != len(("class", "objectness")) or None not in (p.objectness for p in pair) for pair in grids.values()
    ):
        return []
    return [next((p for p in pair if is_named_objectness(p.returned_in)), pair[1]) for pair in grids.values()]


def without_boxes(outputs: Sequence[ScoredOutput]) -> list[ScoredOutput]:
    """Return the outputs without those that are boxes: four Sigmoids for each cell of another output's.

    Where that one has four, too, the boxes are what its name says to be.
    """
    return [output for output in outputs if not any(_is_box_of(output, other) for other in outputs)]


def _is_box_of(output: ScoredOutput, other: ScoredOutput) -> bool:
    if output is other or output.count != BOX or output.activation != "Sigmoid":
        return False
    is_told = other.count != BOX or any("box" in name.lower() for name in output.returned_in)
    return is_told and other.count > 1 and dims_of(output.grid)[2:] == dims_of(other.grid)[2:]


def is_named_objectness(names: Sequence[str]) -> bool:
    """Tell whether one of the names of a value or of outputs says that it is an objectness."""
    return any(part in name.lower() for name in names for part in OBJECTNESS_NAMES)


def with_boxes(some_heads: Sequence[ScoredOutput], left: list[Value]) -> list[ScoredOutput]:
    """Return the heads with the boxes that are outputs of their own: as many cells, four columns or a multiple of it.

    A head's output comes with that of its boxes: of several that fit, each is taken once, off the list ``left``.
    """
    scores = {head.output for head in some_heads}
    left[:] = [v for v in left if v.shape is not None and v not in scores]
    return [head if head.boxes is not None else _take_boxes(head, left) for head in some_heads]


def _take_boxes(head: ScoredOutput, left: list[Value]) -> ScoredOutput:
    """Return the head with the first of the outputs ``left`` that fits as its boxes, which is taken off the list."""
    for value in left:
        boxes = _boxes_for(value, head.grid)
        if boxes is not None:
            left.remove(value)
            return replace(head, boxes=_flat(boxes), has_boxes=True)
    return head


def _boxes_for(value: Value, grid: Tensor) -> Tensor | None:
    """Return ``value`` as (N, columns, …), where it has four columns, or a multiple, for each cell of ``grid``."""
    dims, cells = dims_of(value), dims_of(grid)[2:]
    has_batch = len(dims) == len(cells) + 2
    boxes: Tensor = value if has_batch else Batched(value)
    for axis in range(int(has_batch), len(dims)):
        count = dims[axis]
        others = [d for k, d in enumerate(dims) if k not in (axis, 0 if has_batch else None)]
        if isinstance(count, int) and count and count % BOX == 0 and others == cells:
            column = axis + (not has_batch)
            return arranged(boxes, [0, column, *(k for k in range(1, len(dims_of(boxes))) if k != column)])
    return None
