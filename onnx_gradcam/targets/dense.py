"""The tensors of a dense score, written into a graph: one score for each class and image, and what goes with it.

N images, K classes, P cells. What stands for a class is its most probable cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.dense import tensors
from onnx_gradcam.anatomy.dense.cells import Level
from onnx_gradcam.anatomy.dense.scores import DenseScores
from onnx_gradcam.anatomy.dense.tensors import Tensor
from onnx_gradcam.graph.builder import HALF_PRECISION, LOWEST, Builder, Value, rank
from onnx_gradcam.graph.names import dense_score


@dataclass(frozen=True)
class DenseTensors:
    """The values of a graph that go with a dense score, which is the logit of each class at its most probable cell.

    Attributes:
        ranking: (N, K) by which classes are ranked, lowest for the background.
        probability: (N, K) of each class at that cell.
        cell: (N, K, n) the index of that cell in its output, behind the number of the output where there are several.
        level: (N, K) the level that the cell lies on.
        cell_number: (N, K, 1) the number of the cell among all cells.
        logits: (N, K, P) of all cells.
        objectness: (N, 1, P); None where there is none.
        boxes: (N, 4 or more, P) the numbers of the boxes; None where they are not known.
        sides: (1, outputs, n) how many cells lie along each axis of each output.
        grids: (1, levels, 3) how many cells each level has, and the height and width of the map that they were made
            in; None where what made them is no map of two axes.
    """

    ranking: Value
    probability: Value
    cell: Value
    level: Value
    cell_number: Value
    logits: Value
    objectness: Value | None
    boxes: Value | None
    sides: Value
    grids: Value | None

    def on(self, values: Mapping[str, Value]) -> DenseTensors:
        """Return the same in a copy of the graph, whose values are given by name."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: values[v.name or ""] for name, v in held.items() if v is not None})

    @property
    def values(self) -> tuple[Value, ...]:
        """Return all of the values."""
        held = (getattr(self, field.name) for field in fields(self))
        return tuple(value for value in held if value is not None)

    @property
    def results(self) -> tuple[Value, ...]:
        """Return what a run returns beside the score."""
        return (self.ranking, self.probability, self.cell, self.level, *self.detection.values())

    @property
    def detection(self) -> dict[str, Value]:
        """Return by attribute what tells the box of a class, and its probability's parts; empty for no detector."""
        if self.objectness is None and self.boxes is None:
            return {}
        values = {name: getattr(self, name) for name in ("cell_number", "logits", "objectness", "boxes", "grids")}
        return {name: value for name, value in values.items() if value is not None}


def write_dense(op: Builder, dense: DenseScores, values: Mapping[str, Value]) -> tuple[Value, DenseTensors]:
    """Write a dense score into a graph.

    Args:
        op: writes into the graph.
        dense: the score, described on the same graph or on one that it is a copy of.
        values: the values of the graph by name.

    Returns:
        The score (N, K), and the values that go with it.
    """
    write = TensorWriter(op, values)
    logits = write(dense.logits)
    gate, box = (None if t is None else write(t) for t in (dense.objectness, dense.boxes))
    is_softmax = dense.activation != "Sigmoid" and dense.count > 1
    winner = op.ArgMax(logits, axis=1, keepdims=1) if is_softmax else None
    odds = logits if winner is None else _odds(op, logits, winner, dense.count)
    likely = odds if gate is None else op.Mul(op.Sigmoid(odds), op.Sigmoid(gate))
    cell_number = op.ArgMax(likely, axis=2, keepdims=1)  # (N, K, 1)
    best = op.ReduceMax(likely, op.ints(2), keepdims=0)
    ranking = best
    if winner is not None and gate is None:
        background = _background(op, logits, winner, dense.count)
        ranking = op.Where(background, op.const(LOWEST, like=best), best)
    if dense.may_have_background:
        ranking = op.Where(_likely_in_most_cells(op, logits), op.const(LOWEST, like=best), best)
    score = op.Reshape(op.GatherElements(logits, cell_number, axis=2), op.ints(0, dense.count))
    level = _level_of(op, write, cell_number, dense.levels)
    sides = _sides(op, [write(head.grid) for head in dense.heads])
    outputs = [Level(head.logits, 2, 1) for head in dense.heads]
    cell = _cell_index(op, cell_number, _level_of(op, write, cell_number, outputs), sides)
    grids = _grids(op, write, dense.levels) if dense.has_maps else None
    written = DenseTensors(
        ranking=_named(op, ranking, "ranking"),
        probability=_named(op, op.Sigmoid(best) if gate is None else best, "probability"),
        cell=_named(op, cell, "cell"),
        level=_named(op, op.Reshape(level, op.ints(0, dense.count)), "level"),
        cell_number=cell_number,
        logits=logits,
        objectness=gate,
        boxes=None if box is None else _named(op, box, "boxes"),
        sides=_named(op, op.Unsqueeze(sides, op.ints(0)), "sides"),
        grids=None if grids is None else _named(op, op.Unsqueeze(grids, op.ints(0)), "grids"),
    )
    return _named(op, score, "logits"), written


def _named(op: Builder, value: Value, name: str) -> Value:
    value = op.Identity(value)
    value.name = op.claim(dense_score(name))
    return value


def _odds(op: Builder, logits: Value, winner: Value, count: int) -> Value:
    """log p/(1 − p) of a Softmax over axis 1, exact where p rounds to 1: saturated cells would be a tie."""
    wins = op.Equal(winner, op.array(np.arange(count, dtype=np.int64).reshape(1, -1, 1)))
    rest = op.Where(wins, op.const(LOWEST, like=logits), logits)
    second = op.ReduceMax(rest, op.ints(1), keepdims=1)
    others = op.Log(op.ReduceSum(op.Exp(op.Sub(rest, second)), op.ints(1), keepdims=1))
    log_p = op.LogSoftmax(logits, axis=1)
    below = op.Sub(log_p, op.Log(op.Sub(op.const(1, like=logits), op.Exp(op.Where(wins, second, log_p)))))
    return op.Where(wins, op.Sub(op.Sub(logits, second), others), below)


def _background(op: Builder, logits: Value, winner: Value, count: int) -> Value:
    """Write which class wins most cells, (N, K); of two classes it is the first, (1, 2)."""
    if count == 2:
        return op.array(np.array([[True, False]]))
    wins = op.Equal(winner, op.array(np.arange(count, dtype=np.int64).reshape(1, -1, 1)))
    share = op.ReduceMean(op.Cast(wins, to=int(ir.DataType.FLOAT)), op.ints(2), keepdims=0)
    return op.Greater(share, op.array(np.array(0.5, np.float32)))


def _likely_in_most_cells(op: Builder, logits: Value) -> Value:
    """Write which classes are more likely than not in most cells, (N, K): no object is, but the background of a Softmax
    is."""
    is_likely = op.Cast(op.Greater(logits, op.const(0, like=logits)), to=int(ir.DataType.FLOAT))
    return op.Greater(op.ReduceMean(is_likely, op.ints(2), keepdims=0), op.array(np.array(0.5, np.float32)))


# --- cells ------------------------------------------------------------------------------------------------------


def _level_of(op: Builder, write: TensorWriter, cell_number: Value, levels: Sequence[Level]) -> Value:
    """Write which of the levels a cell (N, K, 1) lies on."""
    zero = op.Mul(cell_number, op.ints(0))
    if len(levels) == 1:
        return zero
    counts = [op.Gather(op.shape_of(write(level.tensor)), op.ints(level.cells)) for level in levels]
    total = op.Concat(*counts, axis=0)
    number, start = zero, None
    for k in range(len(levels) - 1):
        start = op.Gather(total, op.ints(k)) if start is None else op.Add(start, op.Gather(total, op.ints(k)))
        number = op.Add(number, op.Cast(op.GreaterOrEqual(cell_number, start), to=int(ir.DataType.INT64)))
    return number


def _sides(op: Builder, grids: Sequence[Value]) -> Value:
    """Write how many cells lie along each axis of each output, (outputs, n)."""
    shapes = [op.Slice(op.shape_of(grid), op.ints(2), op.ints(rank(grid))) for grid in grids]
    return op.Concat(*(op.Unsqueeze(s, op.ints(0)) for s in shapes), axis=0)


def _cell_index(op: Builder, cell_number: Value, output: Value, sides: Value) -> Value:
    """Write the index of a cell in its output, (N, K, n); the number of the output goes before it if there are several.

    ``cell_number`` (N, K, 1) among all cells; ``output`` (N, K, 1); ``sides`` (outputs, n).
    """
    counts = op.ReduceProd(sides, op.ints(1), keepdims=0)
    starts = op.Sub(op.CumSum(counts, op.array(np.array(0, np.int64))), counts)
    local = op.Sub(cell_number, op.Gather(starts, output))
    lengths = op.Gather(sides, op.Squeeze(output, op.ints(2)), axis=0)  # (N, K, n)
    assert sides.shape is not None
    outputs, axes = sides.shape
    assert isinstance(axes, int)
    index: list[Value] = []
    for k in reversed(range(axes)):
        side = op.Slice(lengths, op.ints(k), op.ints(k + 1), op.ints(2))
        index.insert(0, op.Mod(local, side))
        local = op.Div(local, side)
    return op.Concat(*([output] if outputs != 1 else []), *index, axis=2)


def _grids(op: Builder, write: TensorWriter, levels: Sequence[Level]) -> Value:
    """Write how many cells each level has, and the height and width of the map that made them, (levels, 3)."""
    rows: list[Value] = []
    for level in levels:
        count = op.Gather(op.shape_of(write(level.tensor)), op.ints(level.cells))
        rows.append(op.Concat(count, op.Slice(op.shape_of(write(level.origin())), op.ints(2), op.ints(4)), axis=0))
    return op.Concat(*(op.Unsqueeze(row, op.ints(0)) for row in rows), axis=0)


# --- described tensors ------------------------------------------------------------------------------------------


class TensorWriter:
    """Write described tensors into a graph, each once.

    Args:
        op: writes into the graph.
        values: the values of the graph by name.
    """

    def __init__(self, op: Builder, values: Mapping[str, Value]) -> None:
        self._op, self._values = op, values
        self._written: dict[Tensor, Value] = {}

    def __call__(self, tensor: Tensor) -> Value:
        """Return the value of the graph that holds a tensor."""
        if isinstance(tensor, ir.Value):
            return self._values[tensor.name or ""]
        if tensor not in self._written:
            write: Callable[..., Value] = WRITERS[type(tensor)]
            self._written[tensor] = write(self, tensor)
        return self._written[tensor]

    def _repeated(self, tensor: tensors.Repeated) -> Value:
        node = tensor.node
        rest = [None if v is None else self(v) for v in node.inputs[1:]]
        attributes = {name: a.value for name, a in node.attributes.items()}
        outputs = self._op.node(node.op_type, self(tensor.first), *rest, outputs=len(node.outputs), **attributes)
        value = outputs[list(node.outputs).index(tensor.output)]
        if value.shape is None:
            value.shape = tensor.output.shape
        return value

    def _joined(self, tensor: tensors.Joined) -> Value:
        return self._op.Concat(*(self(part) for part in tensor.parts), axis=tensor.axis)

    def _columns(self, tensor: tensors.Columns) -> Value:
        op, end = self._op, tensor.start + tensor.count
        return op.Slice(self(tensor.source), op.ints(tensor.start), op.ints(end), op.ints(tensor.axis))

    def _arranged(self, tensor: tensors.Arranged) -> Value:
        value = self(tensor.source)
        if value.dtype in HALF_PRECISION:
            value = self._op.Cast(value, to=int(ir.DataType.FLOAT))
        order = list(tensor.order)
        return value if order == sorted(order) else self._op.Transpose(value, perm=order)

    def _flattened(self, tensor: tensors.Flattened) -> Value:
        count = tensors.dims_of(tensor)[1]
        assert isinstance(count, int)
        return self._op.Reshape(self(tensor.source), self._op.ints(0, count, -1))

    def _batched(self, tensor: tensors.Batched) -> Value:
        return self._op.Unsqueeze(self(tensor.source), self._op.ints(0))

    def _apart(self, tensor: tensors.Apart) -> Value:
        op, dims, axis = self._op, tensors.dims_of(tensor), tensor.axis
        source = self(tensor.source)
        count, rest = dims[axis], dims[axis + 1]
        assert isinstance(count, int)
        assert isinstance(rest, int)
        shape = op.shape_of(source)
        before, behind = (
            op.Slice(shape, op.ints(0), op.ints(axis)),
            op.Slice(shape, op.ints(axis + 1), op.ints(len(dims))),
        )
        value = op.Reshape(source, op.Concat(before, op.ints(count, rest), behind, axis=0))
        value.shape = ir.Shape(dims)
        return value


WRITERS: Mapping[type, Callable[..., Value]] = {
    tensors.Repeated: TensorWriter._repeated,
    tensors.Joined: TensorWriter._joined,
    tensors.Columns: TensorWriter._columns,
    tensors.Arranged: TensorWriter._arranged,
    tensors.Flattened: TensorWriter._flattened,
    tensors.Batched: TensorWriter._batched,
    tensors.Apart: TensorWriter._apart,
}
