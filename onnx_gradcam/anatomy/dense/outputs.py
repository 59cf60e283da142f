"""One output with scores, described: its logits, and the objectness and boxes that go with them."""

from __future__ import annotations

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
        may_have_background: whether one of the classes may be the background, that of most cells.
        otherwise: what else they may be, with the line that says so; "" where the file leaves no doubt.
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
    may_have_background: bool = False
    otherwise: str = ""

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
    gate, box = (None if t is None else flat(t) for t in (gate, box))
    name = output.name or ""
    has_boxes = boxes is not None or objectness is not None
    return ScoredOutput(flat(grid), grid, gate, box, activation, has_boxes, name, output, (name,), raw)


def flat(grid: Tensor) -> Tensor:
    """Return a tensor (N, K, *cells) as (N, K, P)."""
    return grid if len(dims_of(grid)) == 3 else Flattened(grid)
