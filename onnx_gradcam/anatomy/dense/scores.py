"""The score of models with many scores per image (segmenters, detectors, sequences), written into the graph.

Entries are one score for each class and cell: a pixel, an anchor, a step in time. What stands for a class is its most
probable cell, so that a model of any number of cells has one score per class and image, as a classifier has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.axes import COPIES
from onnx_gradcam.anatomy.dense import cells, heads
from onnx_gradcam.anatomy.dense.cells import Part
from onnx_gradcam.anatomy.dense.heads import BOX, Entries
from onnx_gradcam.graph.builder import HALF_PRECISION, LOWEST, Builder, Value
from onnx_gradcam.graph.names import DENSE_SCORE, dense_score


@dataclass(frozen=True)
class Dense:
    """Values (N, K, …) beside the score (N, K), which is the logit of each class at its most probable cell.

    ``ranking``: by which classes are ranked, lowest for the background; ``probability``; ``cell`` (N, K, n): the index
    of the cell in the output, behind the number of the output where there are several; ``level`` (N, K): which of
    ``levels`` it belongs to; ``cell_number`` (N, K, 1): its number among all cells; ``logits`` (N, K, P) of all
    of these; ``objectness`` (N, 1, P) and the numbers of the boxes, ``boxes`` (N, 4 or more, P), where there are;
    ``sides`` (1, outputs, n): how the cells of each output lie; ``grids`` (1, levels, 3): how many on each level, and
    height and width of the map that they were made in. ``detector``: whether boxes go with cells. ``names``: of the
    model's values that hold the logits.
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
    levels: tuple[Part, ...]
    detector: bool
    names: tuple[str, ...]
    count: int
    activation: str

    def on(self, values: Mapping[str, Value]) -> Dense:
        """The same in a copy of the graph, whose values are given by name."""

        def there(value: Value) -> Value:
            return values[value.name or ""]

        def perhaps(value: Value | None) -> Value | None:
            return None if value is None else there(value)

        return replace(
            self,
            ranking=there(self.ranking),
            probability=there(self.probability),
            cell=there(self.cell),
            level=there(self.level),
            cell_number=there(self.cell_number),
            logits=there(self.logits),
            objectness=perhaps(self.objectness),
            boxes=perhaps(self.boxes),
            sides=there(self.sides),
            grids=perhaps(self.grids),
            levels=tuple(part._replace(value=there(part.value)) for part in self.levels),
        )

    @property
    def axes(self) -> int:
        """The number of axes of the cells in their output."""
        count = _dims(self.sides)[2]
        assert isinstance(count, int)
        return count

    def branch(self, name: str) -> tuple[Part, ...]:
        """The levels of "logits", "objectness" or "boxes"."""
        value = getattr(self, name)
        if name == "logits" or value is None:
            return self.levels
        return cells.levels(value, 2, 1, decoded=True) or (Part(value, 2, 1, 0),)

    @property
    def written(self) -> tuple[Value, ...]:
        """All values that go with the score, of those that there are."""
        held = (*self.results, self.cell_number, self.logits, self.objectness, self.boxes, self.sides, self.grids)
        return tuple(value for value in held if value is not None)

    @property
    def results(self) -> tuple[Value, ...]:
        """What a run returns beside the score."""
        return self.ranking, self.probability, self.cell, self.level


@dataclass(frozen=True)
class Head:
    """One output: ``logits`` (N, K, P) of P cells, in their own axes ``grid`` (N, K, …); ``objectness`` (N, 1, P).

    ``boxes``: the numbers (N, 4, P) beside them, if they are in the same ``output``; ``has_boxes``: whether they are.

    ``activation``: "Softmax" or "Sigmoid" as the model has it, "" for logits that it leaves as they are.
    """

    logits: Value
    grid: Value
    objectness: Value | None
    boxes: Value | None
    activation: str
    has_boxes: bool
    name: str
    output: Value

    @property
    def count(self) -> int:
        """The number of classes."""
        assert self.grid.shape is not None
        found = self.grid.shape[1]
        assert isinstance(found, int)
        return found


def write(graph: ir.Graph, name: str, batches: Set[int | ir.SymbolicDim | None]) -> tuple[Value, Dense] | None:
    """Find the entries that are scores, in all outputs or behind the value ``name``, and write the score.

    None where there are none.
    """
    op = Builder(graph, DENSE_SCORE)
    found = _found(op, graph, name, batches)
    score = None
    if found:
        count = max(head.count for head in found)
        levels = [head for head in found if head.count == count]
        gates = [head for head in found if head.count == 1 < count]
        alike = [_gated(head, gates) for head in levels if len(_dims(head.grid)) == len(_dims(levels[0].grid))]
        score = _write(op, _boxed(op, alike, graph.outputs))
    kept = {score[0], *score[1].written} if score else set()
    for node in reversed(op.written):
        if not any(v in kept or v.uses() for v in node.outputs):
            graph.remove(node)
    return score


def _dims(value: Value) -> list[int | ir.SymbolicDim]:
    assert value.shape is not None
    return list(value.shape)


# --- heads ------------------------------------------------------------------------------------------------------


def _found(op: Builder, graph: ir.Graph, name: str, batches: Set[int | ir.SymbolicDim | None]) -> list[Head]:
    nodes = list(graph)
    values = {v.name: v for node in nodes for v in node.outputs}
    if name != "auto" and name not in values:
        return []
    outputs = list(graph.outputs) if name == "auto" else [values[name]]
    found = [h for v, e in heads.ends(op, outputs) for h in _heads(op, v, e, nodes, batches)]
    if found:
        return found
    if name == "auto":
        plain = _plain(graph, nodes)
    else:
        axis = heads.channel_axis(values[name])
        plain = None if axis is None else (values[name], axis)
    if plain is None:
        return []
    value, axis = plain
    activation = _activation_behind(value)
    head = _head(op, value, axis, None, None, activation, batches)
    return [] if head is None else [head]


def _plain(graph: ir.Graph, nodes: Sequence[ir.Node]) -> tuple[Value, int] | None:
    """Logits that the model leaves as they are, with the axis of the classes: what an ArgMax reads; a map of several
    classes in the size of the image or not much below; steps that a recurrent layer leads to."""
    decided = heads.before_argmax(graph.outputs)
    if decided is not None:
        return decided
    images = [v for v in graph.inputs if v.shape is not None and len(v.shape) > 3]
    maps = [v for v in graph.outputs if v.shape is not None and len(v.shape) > 3]
    recurrent = any(node.op_type in ("LSTM", "GRU", "RNN") for node in nodes)
    steps = [v for v in graph.outputs if v.shape is not None and len(v.shape) == 3] if recurrent else []
    for value in [*maps[:1], *steps[:1]]:
        axis = heads.channel_axis(value)
        if axis is None:
            continue
        count = _dims(value)[axis]
        if not isinstance(count, int) or count < 2:
            continue
        if value in steps:
            return value, axis
        alike = all(_same(_space(v, heads.channel_axis(v)), _space(value, axis)) for v in maps)
        if images and alike and count != _channels(images[0]) and _fine(_space(value, axis), _space(images[0], None)):
            return value, axis
    return None


def _space(value: Value, axis: int | None) -> list[int | ir.SymbolicDim]:
    dims = _dims(value)
    if axis is None:
        axis = len(dims) - 1 if dims[-1] in (1, 3, 4) else 1
    return [d for k, d in enumerate(dims) if k not in (0, axis)]


def _channels(image: Value) -> int | ir.SymbolicDim:
    dims = _dims(image)
    return dims[-1] if dims[-1] in (1, 3, 4) else dims[1]


def _same(a: Sequence[int | ir.SymbolicDim], b: Sequence[int | ir.SymbolicDim]) -> bool:
    return len(a) == len(b) and all(
        x == y or not (isinstance(x, int) and isinstance(y, int)) for x, y in zip(a, b, strict=True)
    )


def _fine(space: Sequence[int | ir.SymbolicDim], image: Sequence[int | ir.SymbolicDim]) -> bool:
    """Whether a map has at least an eighth of the image's resolution (a coarser one may be anything)."""
    known = [(a, b) for a, b in zip(space, image, strict=False) if isinstance(a, int) and isinstance(b, int)]
    return len(space) == len(image) and all(a * 8 >= b for a, b in known)


def _activation_behind(value: Value) -> str:
    for node in value.consumers():
        if node.op_type in heads.SQUASHES:
            return _kind(node)
        if node.op_type in heads.MOVES_ENTRIES | COPIES and node.inputs[0] is value:
            found = _activation_behind(node.outputs[0])
            if found:
                return found
    return ""


def _kind(node: ir.Node) -> str:
    return "Sigmoid" if node.op_type == "Sigmoid" else "Softmax"


def _heads(
    op: Builder, value: Value, entries: Entries, nodes: Sequence[ir.Node], batches: Set[int | ir.SymbolicDim | None]
) -> list[Head]:
    columns, gate = heads.classes(entries, nodes)
    node = entries.made[columns[0]]
    assert node is not None
    logits = _take(op, entries.logits, entries.axis, columns[0], len(columns), len(entries.made))
    objectness = entries.objectness
    if gate is not None:
        objectness = _take(op, entries.logits, entries.axis, gate, 1, len(entries.made))
    box = _box_columns(entries)
    boxes = None if box is None else _take(op, value, entries.axis, box, BOX, len(entries.made))
    head = _head(op, logits, entries.axis, objectness, boxes, _kind(node), batches)
    source = node.inputs[0]
    name = (source.name if source is not None else value.name) or ""
    return [] if head is None else [replace(head, has_boxes=bool(entries.others), name=name, output=value)]


def _box_columns(entries: Entries) -> int | None:
    """The first of four columns that are no scores."""
    scored = [made is not None for made in entries.made]
    runs = [k for k in range(len(scored) - BOX + 1) if not any(scored[k : k + BOX])]
    return runs[0] if runs else None


def _take(op: Builder, value: Value, axis: int, start: int, count: int, of: int) -> Value:
    return value if count == of else op.Slice(value, op.ints(start), op.ints(start + count), op.ints(axis))


def _head(
    op: Builder,
    logits: Value,
    axis: int,
    objectness: Value | None,
    boxes: Value | None,
    activation: str,
    batches: Set[int | ir.SymbolicDim | None],
) -> Head | None:
    dims = _dims(logits)
    others = [k for k in range(len(dims)) if k != axis]
    batch = next((k for k in others if dims[k] in batches or not isinstance(dims[k], int)), None)
    if batch is None or len(dims) < 3:
        return None
    order = [batch, axis, *(k for k in others if k != batch)]

    def arranged(value: Value) -> tuple[Value, Value]:
        if value.dtype in HALF_PRECISION:
            value = op.Cast(value, to=int(ir.DataType.FLOAT))
        grid = value if order == sorted(order) else op.Transpose(value, perm=order)
        if grid.shape is not None and len(grid.shape) == 3:
            return grid, grid
        return op.Reshape(grid, op.ints(0, _count(grid), -1)), grid

    flat, grid = arranged(logits)
    gate, box = (None if value is None else arranged(value)[0] for value in (objectness, boxes))
    return Head(flat, grid, gate, box, activation, False, logits.name or "", logits)


def _count(grid: Value) -> int:
    count = _dims(grid)[1]
    assert isinstance(count, int)
    return count


def _gated(head: Head, gates: Sequence[Head]) -> Head:
    """An output of one column and as many cells is the objectness of these."""
    if head.objectness is not None:
        return head
    same = [g for g in gates if _dims(g.grid)[2:] == _dims(head.grid)[2:]]
    return replace(head, objectness=same[0].logits) if same else head


def _boxed(op: Builder, found: Sequence[Head], outputs: Sequence[Value]) -> list[Head]:
    """The heads with the boxes that are outputs of their own: as many cells, and four columns or a multiple of it.

    A head's output comes with that of its boxes: of several that fit, each is taken once.
    """
    scores = {head.output for head in found}
    left = [v for v in outputs if v.shape is not None and v not in scores]
    boxed: list[Head] = []
    for head in found:
        if head.boxes is None:
            fitting = [(v, axis) for v in left if (axis := _box_axis(v, head.grid)) is not None]
            if fitting:
                value, axis = fitting[0]
                left.remove(value)
                wide = op.Cast(value, to=int(ir.DataType.FLOAT)) if value.dtype in HALF_PRECISION else value
                order = [0, axis, *(k for k in range(1, len(_dims(value))) if k != axis)]
                grid = wide if order == sorted(order) else op.Transpose(wide, perm=order)
                head = replace(head, boxes=op.Reshape(grid, op.ints(0, _count(grid), -1)))
        boxed.append(head)
    return boxed


def _box_axis(value: Value, grid: Value) -> int | None:
    """The axis of the columns, where the others are those of the cells of ``grid`` (N, K, …)."""
    dims, cells_ = _dims(value), _dims(grid)[2:]
    for axis in range(1, len(dims)):
        count = dims[axis]
        if isinstance(count, int) and count and count % BOX == 0 and dims[1:axis] + dims[axis + 1 :] == cells_:
            return axis
    return None


# --- the score --------------------------------------------------------------------------------------------------


def _write(op: Builder, found: Sequence[Head]) -> tuple[Value, Dense]:
    first, several = found[0], len(found) > 1
    logits = op.Concat(*(h.logits for h in found), axis=2) if several else first.logits
    gates = [h.objectness for h in found if h.objectness is not None]
    gate = (op.Concat(*gates, axis=2) if several else gates[0]) if len(gates) == len(found) else None
    winner = op.ArgMax(logits, axis=1, keepdims=1) if first.activation != "Sigmoid" and first.count > 1 else None
    odds = logits if winner is None else _odds(op, logits, winner, first.count)
    likely = odds if gate is None else op.Mul(op.Sigmoid(odds), op.Sigmoid(gate))
    cell_number = op.ArgMax(likely, axis=2, keepdims=1)  # (N, K, 1)
    best = op.ReduceMax(likely, op.ints(2), keepdims=0)
    probability = op.Sigmoid(best) if gate is None else best
    ranking = best
    if winner is not None and gate is None:
        background = _background(op, logits, winner, first.count)
        ranking = op.Where(background, op.const(LOWEST, like=best), best)
    score = op.Reshape(op.GatherElements(logits, cell_number, axis=2), op.ints(0, first.count))
    own = tuple(Part(h.logits, 2, 1, 0) for h in found)
    parts = own if several else cells.levels(first.logits, 2, 1) or own
    level = cells.level_of(op, cell_number, parts)
    sides = cells.sides(op, [h.grid for h in found])
    grids = cells.grids(op, parts)
    boxes = [h.boxes for h in found if h.boxes is not None]
    box = (op.Concat(*boxes, axis=2) if several else boxes[0]) if len(boxes) == len(found) else None
    dense = Dense(
        _named(op, ranking, "ranking"),
        _named(op, probability, "probability"),
        _named(op, cells.cell_of(op, cell_number, own, sides), "cell"),
        _named(op, op.Reshape(level, op.ints(0, first.count)), "level"),
        cell_number,
        logits,
        gate,
        None if box is None else _named(op, box, "boxes"),
        _named(op, op.Unsqueeze(sides, op.ints(0)), "sides"),
        None if grids is None else _named(op, op.Unsqueeze(grids, op.ints(0)), "grids"),
        parts,
        detector=len(parts) > 1 or gate is not None or any(h.has_boxes for h in found),
        names=tuple(h.name for h in found),
        count=first.count,
        activation=first.activation,
    )
    return _named(op, score, "logits"), dense


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
    """The class that wins most cells; of two classes the first. (N, K), or (1, 2)."""
    if count == 2:
        return op.array(np.array([[True, False]]))
    wins = op.Equal(winner, op.array(np.arange(count, dtype=np.int64).reshape(1, -1, 1)))
    share = op.ReduceMean(op.Cast(wins, to=int(ir.DataType.FLOAT)), op.ints(2), keepdims=0)
    return op.Greater(share, op.array(np.array(0.5, np.float32)))
