"""Kinds of targets: graph functions from what a model computes to one score per row.

What tells the targets of a kind apart (class, mask, embedding) are inputs of the graph, so that one session serves all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnx_gradcam.errors import TargetError
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.flow import is_float
from onnx_gradcam.graph.names import TARGET_INDEX, target_parameter
from onnx_gradcam.targets import scoring
from onnx_gradcam.targets.written import WrittenScore

Inputs = Mapping[str, Value]
Write = Callable[..., tuple[Value, Value]]

FAR_BELOW = -3e4  # a logit, of any floating-point type, of a class that is left out of a softmax


class Parameter(NamedTuple):
    """A float32 input with one row per score: its own name, and its axes behind that of the rows."""

    name: str
    dims: tuple[int | str, ...]


@dataclass(frozen=True)
class Kind:
    """How a score is written.

    Attributes:
        name: what the kind is called.
        write: ``write(op, score, inputs, *options)`` returns the score (N,) and the class (N,) that it is of, −1 for
            none; ``inputs`` holds ``target_index`` and the ``parameters`` by name.
        parameters: what tells the targets of the kind apart.
        reads: the attributes of ``DenseTensors`` whose values a target has to see before its parameters are known.
        options: further arguments of ``write``.
        at_best_cell: whether, of many scores for each image, it takes that of the most probable cell of the class.
        is_score_entry: whether the score stands in the score tensor and is read there.
        branch: the branch of a detector that the gradient comes from, as in ``DenseScores.branch``.
    """

    name: str
    write: Write
    parameters: tuple[Parameter, ...] = ()
    reads: tuple[str, ...] = ()
    options: tuple[Any, ...] = ()
    at_best_cell: bool = False
    is_score_entry: bool = False
    branch: str = "logits"


def kind_inputs(op: Builder, kind: Kind, batch: int | str) -> dict[str, Value]:
    """Return the graph inputs that a kind needs, by their own names: ``target_index`` int64 (N,), and its parameters.

    They are called ``target_index`` and ``target/<name>``, or what these step aside to in the graph that ``op`` writes.
    """
    values = {TARGET_INDEX: ir.val(op.claim(TARGET_INDEX), dtype=ir.DataType.INT64, shape=[batch])}
    for name, dims in kind.parameters:
        called = op.claim(target_parameter(name))
        values[name] = ir.val(called, dtype=ir.DataType.FLOAT, shape=[batch, *dims])
    return values


# --- the kinds --------------------------------------------------------------------------------------------------


def _class(op: Builder, score: WrittenScore, inputs: Inputs) -> tuple[Value, Value]:
    return scoring.class_score(op, score, inputs[TARGET_INDEX])


def _probability(op: Builder, score: WrittenScore, inputs: Inputs) -> tuple[Value, Value]:
    log_p, chosen = scoring.log_probability(op, score, inputs[TARGET_INDEX])
    return op.Exp(log_p), chosen


def _log_probability(op: Builder, score: WrittenScore, inputs: Inputs) -> tuple[Value, Value]:
    return scoring.log_probability(op, score, inputs[TARGET_INDEX])


def _linear(op: Builder, score: WrittenScore, inputs: Inputs) -> tuple[Value, Value]:
    """Σ w_k · y_k over the classes, of many scores per image at the most probable cell of the chosen class."""
    chosen = scoring.chosen_class(op, score, inputs[TARGET_INDEX])
    return scoring.weighted(op, inputs["weights"], scoring.columns(op, score, chosen)), chosen


def _weighted(op: Builder, score: WrittenScore, inputs: Inputs) -> tuple[Value, Value]:
    """Σ w_k · y_k over w_k > 0, and Σ w_k · s_k · y_k over w_k < 0, s the softmax of the scores of those classes."""
    chosen = scoring.chosen_class(op, score, inputs[TARGET_INDEX])
    y = scoring.columns(op, score, chosen)
    weights = scoring.as_dtype(op, inputs["weights"], y)
    zero = op.const(0, like=y)
    is_other = op.Less(weights, zero)
    shares = op.Exp(scoring.log_softmax(op, op.Where(is_other, y, op.const(FAR_BELOW, like=y))))
    return scoring.weighted(op, op.Where(is_other, op.Mul(weights, shares), weights), y), chosen


def _region(op: Builder, score: WrittenScore, inputs: Inputs) -> tuple[Value, Value]:
    """Σ w_p · y_cp over the cells, c the chosen class."""
    assert score.dense is not None
    chosen = scoring.chosen_class(op, score, inputs[TARGET_INDEX])
    logits = scoring.of_class(op, score.dense.logits, chosen)
    return scoring.weighted(op, inputs["mask"], logits), chosen


def _objectness(op: Builder, score: WrittenScore, inputs: Inputs) -> tuple[Value, Value]:
    """Σ w_p · objectness_p over the cells."""
    assert score.dense is not None
    assert score.dense.objectness is not None
    logits = op.Squeeze(score.dense.objectness, op.ints(1))
    return scoring.weighted(op, inputs["mask"], logits), inputs[TARGET_INDEX]


def _iou(op: Builder, score: WrittenScore, inputs: Inputs, first: str, last: str) -> tuple[Value, Value]:
    """Write the intersection over union of the predicted box with a given one.

    The box is matrix · functions(r) + origin, r the numbers of the cell that ``mask`` picks (``detections.BoxForm``).
    """
    assert score.dense is not None
    assert score.dense.boxes is not None
    raw = score.dense.boxes
    mask = op.Unsqueeze(scoring.as_dtype(op, inputs["mask"], raw), op.ints(1))
    zero = op.const(0, like=raw)
    picked = op.ReduceSum(op.Where(op.Equal(mask, zero), zero, raw), op.ints(2), keepdims=0)
    numbers = op.Unsqueeze(_apply_functions(op, picked, first, last), op.ints(1))
    matrix, origin, box = (scoring.as_dtype(op, inputs[name], raw) for name in ("matrix", "origin", "box"))
    corners = op.Add(op.ReduceSum(op.Mul(matrix, numbers), op.ints(2), keepdims=0), origin)
    return scoring.overlap(op, corners, box), inputs[TARGET_INDEX]


def _apply_functions(op: Builder, r: Value, first: str, last: str) -> Value:
    """functions(r) (N, 4) of the numbers r (N, 4), or (N, 4·m) for distributions."""
    if first == "Expected":
        assert r.shape is not None
        columns = r.shape[1]
        assert isinstance(columns, int)
        p = op.Exp(scoring.log_softmax(op, op.Reshape(r, op.ints(-1, columns // 4))))
        steps = op.const(np.arange(columns // 4), like=r)
        return op.Reshape(op.ReduceSum(op.Mul(p, steps), op.ints(1), keepdims=0), op.ints(-1, 4))
    a, b = op.node("Split", r, outputs=2, axis=1, num_outputs=2)
    return op.Concat(getattr(op, first)(a), getattr(op, last)(b), axis=1)


def _tokens(op: Builder, score: WrittenScore, inputs: Inputs) -> tuple[Value, Value]:
    """Σ w_kt · log p_kt over tokens k and steps t."""
    assert score.dense is not None
    y = score.dense.logits
    log_p = scoring.log_softmax(op, y) if scoring.is_exclusive(score) else scoring.log_sigmoid(op, y)
    return scoring.weighted(op, inputs["tokens"], log_p), _none(op, inputs)


def _token_logits(op: Builder, score: WrittenScore, inputs: Inputs) -> tuple[Value, Value]:
    """Σ w_kt · y_kt over tokens k and steps t."""
    assert score.dense is not None
    return scoring.weighted(op, inputs["tokens"], score.dense.logits), _none(op, inputs)


def _similarity(op: Builder, score: WrittenScore, inputs: Inputs) -> tuple[Value, Value]:
    """cos(e, q) = Σ e_k · q_k / ‖e‖, where ‖q‖ = 1.   A zero e is similar to nothing."""
    e = scoring.columns(op, score, inputs[TARGET_INDEX])
    least = op.const(1e-30, like=e)
    square = op.ReduceSum(op.Mul(e, e), op.ints(1), keepdims=0)
    length = op.Sqrt(op.Where(op.Less(square, least), least, square))
    return op.Div(scoring.weighted(op, inputs["embedding"], e), length), _none(op, inputs)


def _custom(op: Builder, score: WrittenScore, inputs: Inputs, function: Callable[..., Value]) -> tuple[Value, Value]:
    """Write what the user's function makes of the outputs."""
    name = getattr(function, "__name__", "the function")
    value = function(op, {v.name or "": v for v in op.graph.outputs})
    if not isinstance(value, ir.Value) or not is_float(value) or value.shape is None or len(value.shape) != 1:
        result = f"{value.dtype} {value.shape}" if isinstance(value, ir.Value) else type(value).__name__
        raise TargetError(
            f"{name} made {result}, not one score per row",
            hint="f(op, outputs) returns a floating-point value of shape (N,): "
            "op.ReduceSum(op.Mul(y, y), op.ints(1), keepdims=0) for an output y (N, K)",
            target=name,
        )
    return value, _none(op, inputs)


def _none(op: Builder, inputs: Inputs) -> Value:
    """Write −1 for each row: it is of no class."""
    return op.Sub(op.Mul(inputs[TARGET_INDEX], op.ints(0)), op.ints(1))


DETECTION = ("logits", "objectness", "boxes", "sides", "grids")
MASK = Parameter("mask", ("cells",))

CLASS = Kind("class", _class, at_best_cell=True, is_score_entry=True)
PROBABILITY = Kind("probability", _probability, at_best_cell=True)
LOG_PROBABILITY = Kind("log-probability", _log_probability, at_best_cell=True)
WEIGHTED = Kind("weighted", _weighted, (Parameter("weights", ("classes",)),), at_best_cell=True)
LINEAR = Kind("linear", _linear, (Parameter("weights", ("classes",)),), at_best_cell=True)
CONCEPT = Kind("concept", _class)  # of rows that are found in an activation: nothing is written for them
REGION = Kind("region", _region, (MASK,), ("logits", "sides"))
CELL = Kind("cell", _region, (MASK,), DETECTION)
OBJECTNESS = Kind("objectness", _objectness, (MASK,), DETECTION, branch="objectness")
TOKENS = Kind("tokens", _tokens, (Parameter("tokens", ("classes", "steps")),), ("logits",))
TOKEN_LOGITS = Kind("token-logits", _token_logits, TOKENS.parameters, TOKENS.reads)
SIMILARITY = Kind("similarity", _similarity, (Parameter("embedding", ("features",)),))


def iou(first: str, last: str) -> Kind:
    """Return the kind for boxes of a form with these functions."""
    parameters = (MASK, Parameter("matrix", (4, 4)), Parameter("origin", (4,)), Parameter("box", (4,)))
    return Kind("iou", _iou, parameters, DETECTION, (first, last), branch="boxes")


def custom(function: Callable[..., Value]) -> Kind:
    """Return the kind of a user's function."""
    return Kind("custom", _custom, options=(function,))
