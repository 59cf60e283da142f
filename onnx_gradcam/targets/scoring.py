"""Pieces of graph that the scores of all kinds are written with: N images, K classes, P cells of a dense score."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.natures import PROBABILITIES
from onnx_gradcam.anatomy.score import Score
from onnx_gradcam.graph.builder import HALF_PRECISION, Builder, Value, rank
from onnx_gradcam.targets.written import WrittenScore


def class_score(op: Builder, score: WrittenScore, index: Value) -> tuple[Value, Value]:
    """Write the score of a class, (N,), and the class index, (N,); ``index`` int64 (N,), −1 for top-1.

    Several classes: y_c, the entry of the score tensor. One logit z with a Sigmoid: z for class 1, −z for class 0; its
    top-1 is class 1 where z > 0. A regression: the value itself. Many scores per image: the logit of the class at its
    most probable cell; top-1 is the most probable class.
    """
    y = score.value
    chosen = chosen_class(op, score, index)
    if score.kind == "regression":
        return _per_image(op, y, index), chosen
    if score.kind == "binary":
        z = _per_image(op, y, index)
        assert z.dtype is not None
        sign = op.Sub(op.Mul(op.Cast(chosen, to=int(z.dtype)), op.const(2, like=z)), op.const(1, like=z))
        return op.Mul(z, sign), chosen
    assert score.class_axis is not None
    return entry(op, y, chosen, score.class_axis, score.count), chosen


def chosen_class(op: Builder, score: WrittenScore, index: Value) -> Value:
    """Write the class index (N,): ``index``, the model's own top-1 in the place of −1; 0 for a regression."""
    if score.kind == "regression":
        return op.Mul(index, op.ints(0))
    if score.kind == "binary":
        z = _per_image(op, score.value, index)
        best = op.Cast(op.Greater(z, op.const(0, like=z)), to=int(ir.DataType.INT64))
    else:
        ranking = score.value if score.dense is None else score.dense.ranking
        best = _per_image(op, op.ArgMax(ranking, axis=score.class_axis, keepdims=0), index)
    return op.Where(op.Less(index, op.ints(0)), best, index)


def _per_image(op: Builder, value: Value, index: Value) -> Value:
    """Write one number for each image, as many as ``index`` has: no gradient need be summed over them."""
    flat = op.Reshape(value, op.ints(-1))
    flat.shape = index.shape
    return flat


def entry(op: Builder, y: Value, chosen: Value, axis: int, count: int) -> Value:
    """Write y_c (N,) of the class ``chosen`` (N,), where other axes of ``y`` than the first and ``axis`` are 1."""
    ones = [1] * (rank(y) - 1)
    classes = op.array(np.arange(count, dtype=np.int64).reshape([-1, *ones[axis:]]))
    rows = op.Reshape(chosen, op.ints(-1, *ones))
    if y.shape is not None:
        rows.shape = ir.Shape([y.shape[0], *ones])  # as many as y has, see _per_image
    is_chosen = op.Equal(rows, classes)
    alone = op.Where(is_chosen, y, op.const(0, like=y))  # no product: a masked class may be −∞
    return op.ReduceSum(alone, op.ints(*range(1, rank(y))), keepdims=0)


def columns(op: Builder, score: WrittenScore, chosen: Value) -> Value:
    """Write the logits (N, K) that the chosen class stands among, float32 or wider.

    (−z, z) for one logit z with a Sigmoid; with many scores per image those of the cell that the class is most probable
    at; the value itself (N, 1) for a regression.
    """
    y = wide(op, score.value)
    if score.dense is not None:
        cell = entry(op, score.dense.cell_number, chosen, 1, score.count)
        return at_cell(op, score.dense.logits, cell)
    flat = op.Reshape(y, op.ints(-1, 1 if score.class_axis is None else score.count))
    return op.Concat(op.Neg(flat), flat, axis=1) if score.kind == "binary" else flat


def at_cell(op: Builder, values: Value, cell: Value) -> Value:
    """Write what ``values`` (N, C, P) are in one cell, (N, C); ``cell`` (N,) is its number."""
    assert values.shape is not None
    count = values.shape[1]
    assert isinstance(count, int)
    index = op.Expand(op.Reshape(cell, op.ints(-1, 1, 1)), op.ints(1, count, 1))
    return op.Reshape(op.GatherElements(values, index, axis=2), op.ints(-1, count))


def is_exclusive(score: Score | WrittenScore) -> bool:
    """Tell whether the probabilities of the classes sum to 1: a Softmax, not a Sigmoid for each."""
    return score.activation != "Sigmoid" and score.count > 1


def log_softmax(op: Builder, y: Value) -> Value:
    """log p over axis 1 = z − log Σ exp z,  z = y − max y.   No exponent overflows; of a class at −∞ p is 0."""
    z = op.Sub(y, op.ReduceMax(y, op.ints(1), keepdims=1))
    return op.Sub(z, op.Log(op.ReduceSum(op.Exp(z), op.ints(1), keepdims=1)))


def log_sigmoid(op: Builder, z: Value) -> Value:
    """log σ(z) = min(z, 0) − log(1 + exp(−|z|)).   The branches meet at 0 with the slope ½."""
    zero = op.const(0, like=z)
    below = op.Less(z, zero)
    falling = op.Where(below, z, op.Neg(z))
    return op.Sub(op.Where(below, z, zero), op.Log(op.Add(op.const(1, like=z), op.Exp(falling))))


def log_probability(op: Builder, score: WrittenScore, index: Value) -> tuple[Value, Value]:
    """Write log p of a class, (N,), and the class index, (N,); ``index`` int64 (N,), −1 for top-1.

    Softmax over the classes, or the Sigmoid of one; with many scores per image at the most probable cell of the class,
    times the objectness there, if the model has one: p = σ(objectness) · p_c.
    """
    chosen = chosen_class(op, score, index)
    y = columns(op, score, chosen)
    if score.nature == PROBABILITIES:
        log_p = op.Log(entry(op, y, chosen, 1, score.count))
    elif is_exclusive(score):
        log_p = entry(op, log_softmax(op, y), chosen, 1, score.count)
    else:
        log_p = log_sigmoid(op, entry(op, y, chosen, 1, score.count))
    if score.dense is not None and score.dense.objectness is not None:
        cell = entry(op, score.dense.cell_number, chosen, 1, score.count)
        gate = op.Reshape(at_cell(op, score.dense.objectness, cell), op.ints(-1))
        log_p = op.Add(log_p, log_sigmoid(op, gate))
    return log_p, chosen


def weighted(op: Builder, weights: Value, y: Value) -> Value:
    """Σ w · y (N,) over all axes but the first; what has the weight 0 is left out, be it −∞."""
    w = as_dtype(op, weights, y)
    zero = op.const(0, like=y)
    kept = op.Where(op.Equal(w, zero), zero, y)
    return op.ReduceSum(op.Mul(w, kept), op.ints(*range(1, rank(y))), keepdims=0)


def overlap(op: Builder, a: Value, b: Value) -> Value:
    """Write the intersection over union (N,) of boxes (N, 4), x1, y1, x2, y2."""
    zero = op.const(0, like=a)
    low, high = [], []
    for v in (a, b):
        corners = op.node("Split", v, outputs=2, axis=1, num_outputs=2)
        low.append(corners[0])
        high.append(corners[1])

    def area(start: Value, end: Value) -> Value:
        sides = op.Sub(end, start)
        kept = op.Where(op.Less(sides, zero), zero, sides)
        width, height = op.node("Split", kept, outputs=2, axis=1, num_outputs=2)
        return op.Reshape(op.Mul(width, height), op.ints(-1))

    start = op.Where(op.Less(low[0], low[1]), low[1], low[0])
    end = op.Where(op.Less(high[0], high[1]), high[0], high[1])
    both = area(start, end)
    union = op.Sub(op.Add(area(low[0], high[0]), area(low[1], high[1])), both)
    return op.Div(both, union)


def as_dtype(op: Builder, value: Value, like: Value) -> Value:
    """Write ``value`` in the dtype of ``like``."""
    assert like.dtype is not None
    return value if value.dtype == like.dtype else op.Cast(value, to=int(like.dtype))


def wide(op: Builder, y: Value) -> Value:
    """Write ``y`` in float32 if it has 16 bits."""
    return op.Cast(y, to=int(ir.DataType.FLOAT)) if y.dtype in HALF_PRECISION else y


def of_class(op: Builder, logits: Value, chosen: Value) -> Value:
    """Write the logits (N, P) of the class ``chosen`` (N,) among ``logits`` (N, K, P)."""
    assert logits.shape is not None
    count = logits.shape[1]
    assert isinstance(count, int)
    classes = op.array(np.arange(count, dtype=np.int64).reshape(1, -1, 1))
    is_chosen = op.Equal(op.Reshape(chosen, op.ints(-1, 1, 1)), classes)
    return op.ReduceSum(op.Where(is_chosen, logits, op.const(0, like=logits)), op.ints(1), keepdims=0)
