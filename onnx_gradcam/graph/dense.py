"""The score of models with many scores per image (segmenters, detectors, sequences), written into the graph.

Entries are one score for each class and cell: a pixel, an anchor, a step in time. What stands for a class is its most
probable cell, so that a model of any number of cells has one score per class and image, as a classifier has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph import heads
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.heads import Entries

PREFIX = "score"  # of the names of what is written
LOWEST = -3e38
HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class Part(NamedTuple):
    """A level: a value, its axes of the cells and of the columns, and the column of the first class."""

    value: Value
    cells: int
    classes: int
    column: int

    def origin(self) -> Value:
        """What a convolution or linear layer made of the column, before it was moved and joined."""
        value, axis, column = self.value, self.classes, self.column
        while (back := heads.step_back(value, axis, column)) is not None:
            value, axis, column = back
        return value


@dataclass(frozen=True)
class Dense:
    """Values (N, K, …) beside the score (N, K), which is the logit of each class at its most probable cell.

    ``ranking``: by which classes are ranked, lowest for the background; ``probability``; ``cell`` (N, K, n): the index
    of the cell in the output, behind the number of the output where there are several; ``level`` (N, K): which of
    ``levels`` it belongs to; ``place`` (N, K, 1): its number among all cells; ``logits`` (N, K, P) of all of these;
    ``objectness`` (N, 1, P) where there is one; ``sides`` (outputs, n): how the cells of each output lie. ``detector``:
    whether boxes go with cells. ``names``: of the model's values that hold the logits.
    """

    ranking: Value
    probability: Value
    cell: Value
    level: Value
    place: Value
    logits: Value
    objectness: Value | None
    sides: Value
    levels: tuple[Part, ...]
    detector: bool
    names: tuple[str, ...]
    count: int
    activation: str

    def on(self, values: Mapping[str, Value]) -> Dense:
        """The same in a copy of the graph, whose values are given by name."""

        def there(value: Value) -> Value:
            return values[value.name or ""]

        return replace(
            self,
            ranking=there(self.ranking),
            probability=there(self.probability),
            cell=there(self.cell),
            level=there(self.level),
            place=there(self.place),
            logits=there(self.logits),
            objectness=None if self.objectness is None else there(self.objectness),
            sides=there(self.sides),
            levels=tuple(part._replace(value=there(part.value)) for part in self.levels),
        )

    @property
    def axes(self) -> int:
        """The number of axes of the cells in their output."""
        count = _dims(self.sides)[1]
        assert isinstance(count, int)
        return count

    @property
    def results(self) -> tuple[Value, ...]:
        """What a run returns beside the score."""
        return self.ranking, self.probability, self.cell, self.level


@dataclass(frozen=True)
class Head:
    """One output: ``logits`` (N, K, P) of P cells, in their own axes ``grid`` (N, K, …); ``objectness`` (N, 1, P).

    ``activation``: "Softmax" or "Sigmoid" as the model has it, "" for logits that it leaves as they are.
    """

    logits: Value
    grid: Value
    objectness: Value | None
    activation: str
    boxes: bool
    name: str

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
    op = Builder(graph, PREFIX)
    found = _found(op, graph, name, batches)
    score = None
    if found:
        count = max(head.count for head in found)
        levels = [head for head in found if head.count == count]
        gates = [head for head in found if head.count == 1 < count]
        score = _write(
            op, [_gated(head, gates) for head in levels if len(_dims(head.grid)) == len(_dims(levels[0].grid))]
        )
    kept = {score[0], *score[1].results, score[1].place, score[1].sides} if score else set()
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
    head = _head(op, value, axis, None, activation, batches)
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
        if node.op_type in heads.SQUASHING:
            return _kind(node)
        if node.op_type in (*heads.RESHAPING, *heads.IN_PLACE, "Transpose") and node.inputs[0] is value:
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
    head = _head(op, logits, entries.axis, objectness, _kind(node), batches)
    source = node.inputs[0]
    name = (source.name if source is not None else value.name) or ""
    return [] if head is None else [replace(head, boxes=bool(entries.others), name=name)]


def _take(op: Builder, value: Value, axis: int, start: int, count: int, of: int) -> Value:
    return value if count == of else op.Slice(value, op.ints(start), op.ints(start + count), op.ints(axis))


def _head(
    op: Builder,
    logits: Value,
    axis: int,
    objectness: Value | None,
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
        if value.dtype in HALF:
            value = op.Cast(value, to=int(ir.DataType.FLOAT))
        grid = value if order == sorted(order) else op.Transpose(value, perm=order)
        if grid.shape is not None and len(grid.shape) == 3:
            return grid, grid
        return op.Reshape(grid, op.ints(0, _count(grid), -1)), grid

    flat, grid = arranged(logits)
    gate = None if objectness is None else arranged(objectness)[0]
    return Head(flat, grid, gate, activation, False, logits.name or "")


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


# --- the score --------------------------------------------------------------------------------------------------


def _write(op: Builder, found: Sequence[Head]) -> tuple[Value, Dense]:
    first, several = found[0], len(found) > 1
    logits = op.Concat(*(h.logits for h in found), axis=2) if several else first.logits
    gates = [h.objectness for h in found if h.objectness is not None]
    gate = (op.Concat(*gates, axis=2) if several else gates[0]) if len(gates) == len(found) else None
    winner = op.ArgMax(logits, axis=1, keepdims=1) if first.activation != "Sigmoid" and first.count > 1 else None
    odds = logits if winner is None else _odds(op, logits, winner, first.count)
    likely = odds if gate is None else op.Mul(op.Sigmoid(odds), op.Sigmoid(gate))
    place = op.ArgMax(likely, axis=2, keepdims=1)  # (N, K, 1)
    best = op.ReduceMax(likely, op.ints(2), keepdims=0)
    probability = op.Sigmoid(best) if gate is None else best
    ranking = best
    if winner is not None and gate is None:
        background = _background(op, logits, winner, first.count)
        ranking = op.Where(background, op.const(LOWEST, like=best), best)
    score = op.Reshape(op.GatherElements(logits, place, axis=2), op.ints(0, first.count))
    own = tuple(Part(h.logits, 2, 1, 0) for h in found)
    parts = own if several else _levels(first.logits, 2, 1) or own
    level = _level(op, place, parts)
    sides = _sides(op, found)
    dense = Dense(
        _named(op, ranking, "ranking"),
        _named(op, probability, "probability"),
        _named(op, _cell(op, place, found, sides), "cell"),
        _named(op, op.Reshape(level, op.ints(0, first.count)), "level"),
        place,
        logits,
        gate,
        _named(op, sides, "sides"),
        parts,
        detector=len(parts) > 1 or gate is not None or any(h.boxes for h in found),
        names=tuple(h.name for h in found),
        count=first.count,
        activation=first.activation,
    )
    return _named(op, score, "logits"), dense


def _named(op: Builder, value: Value, name: str) -> Value:
    value = op.Identity(value)
    value.name = f"{PREFIX}/{name}"
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


def _levels(value: Value, cells: int, classes: int, column: int = 0) -> tuple[Part, ...]:
    """The parts that are joined along the axis of the cells; none where nothing is."""
    node = value.producer()
    if node is not None and node.op_type == "Concat" and node.attributes["axis"].as_int() % len(_dims(value)) == cells:
        return tuple(Part(v, cells, classes, column) for v in node.inputs if v is not None)
    back = heads.step_back(value, classes, column)
    if node is None or back is None:
        return ()
    source, axis, column = back
    along = heads.axis_before(node, source, cells)
    return () if along is None else _levels(source, along, axis, column)


def _level(op: Builder, place: Value, parts: Sequence[Part]) -> Value:
    """Which of the parts a place (N, K, 1) lies in."""
    zero = op.Mul(place, op.ints(0))
    if len(parts) == 1:
        return zero
    counts = [op.Gather(op.shape_of(part.value), op.ints(part.cells)) for part in parts]
    total = op.Concat(*counts, axis=0)
    level, start = zero, None
    for k in range(len(parts) - 1):
        start = op.Gather(total, op.ints(k)) if start is None else op.Add(start, op.Gather(total, op.ints(k)))
        level = op.Add(level, op.Cast(op.GreaterOrEqual(place, start), to=int(ir.DataType.INT64)))
    return level


def _sides(op: Builder, found: Sequence[Head]) -> Value:
    """(outputs, n): the lengths of the axes of the cells."""
    shapes = [op.Slice(op.shape_of(h.grid), op.ints(2), op.ints(len(_dims(h.grid)))) for h in found]
    return op.Concat(*(op.Unsqueeze(s, op.ints(0)) for s in shapes), axis=0)


def _cell(op: Builder, place: Value, found: Sequence[Head], table: Value) -> Value:
    """The index of the cell in its output, (N, K, n); the number of the output goes before it if there are several."""
    level = _level(op, place, [Part(h.logits, 2, 1, 0) for h in found])
    counts = op.ReduceProd(table, op.ints(1), keepdims=0)
    starts = op.Sub(op.CumSum(counts, op.array(np.array(0, np.int64))), counts)
    local = op.Sub(place, op.Gather(starts, level))
    sides = op.Gather(table, op.Squeeze(level, op.ints(2)), axis=0)  # (N, K, n)
    columns: list[Value] = []
    for k in reversed(range(len(_dims(found[0].grid)) - 2)):
        side = op.Slice(sides, op.ints(k), op.ints(k + 1), op.ints(2))
        columns.insert(0, op.Mod(local, side))
        local = op.Div(local, side)
    return op.Concat(*([level] if len(found) > 1 else []), *columns, axis=2)
