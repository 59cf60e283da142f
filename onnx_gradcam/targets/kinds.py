"""Kinds of targets: graph functions from what a model computes to one score per row.

What tells the targets of a kind apart (class, mask, embedding) are inputs of the graph, so that one session serves all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import onnx_ir as ir

from onnx_gradcam.errors import TargetError
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.flow import is_float
from onnx_gradcam.graph.score import Score
from onnx_gradcam.targets import scoring

INDEX = "target_index"
PREFIX = "target/"  # of the names of all other parameters

Given = Mapping[str, Value]
Write = Callable[..., tuple[Value, Value]]


class Parameter(NamedTuple):
    """A float32 input with one row per score: its name without the prefix, and its axes behind that of the rows."""

    name: str
    dims: tuple[int | str, ...]


@dataclass(frozen=True)
class Kind:
    """How a score is written.

    ``write(op, score, given, *options)`` returns the score (N,) and the class (N,) that it is of, −1 for none;
    ``given`` holds ``target_index`` and the ``parameters`` by name. ``reads``: attributes of ``Dense`` whose values a
    target has to see before its parameters are known. ``at_best_cell``: whether, of many scores per image, it takes
    that of the most probable cell of the class.
    """

    name: str
    write: Write
    parameters: tuple[Parameter, ...] = ()
    reads: tuple[str, ...] = ()
    options: tuple[Any, ...] = ()
    at_best_cell: bool = False


def inputs(kind: Kind, batch: int | str) -> dict[str, Value]:
    """The graph inputs that a kind adds, by name: ``target_index`` int64 (N,), and its parameters."""
    found = {INDEX: ir.val(INDEX, dtype=ir.DataType.INT64, shape=[batch])}
    for name, dims in kind.parameters:
        found[name] = ir.val(f"{PREFIX}{name}", dtype=ir.DataType.FLOAT, shape=[batch, *dims])
    return found


def is_parameter(name: str | None) -> bool:
    """Whether a graph input of this name is one that a kind added."""
    return name is not None and (name == INDEX or name.startswith(PREFIX))


# --- the kinds --------------------------------------------------------------------------------------------------


def _class(op: Builder, score: Score, given: Given) -> tuple[Value, Value]:
    return scoring.class_score(op, score, given[INDEX])


def _probability(op: Builder, score: Score, given: Given) -> tuple[Value, Value]:
    found, chosen = scoring.log_probability(op, score, given[INDEX])
    return op.Exp(found), chosen


def _log_probability(op: Builder, score: Score, given: Given) -> tuple[Value, Value]:
    return scoring.log_probability(op, score, given[INDEX])


def _linear(op: Builder, score: Score, given: Given) -> tuple[Value, Value]:
    """Σ w_k · y_k over the classes, of many scores per image at the most probable cell of the chosen class."""
    chosen = scoring.chosen_class(op, score, given[INDEX])
    return scoring.weighted(op, given["weights"], scoring.columns(op, score, chosen)), chosen


def _region(op: Builder, score: Score, given: Given) -> tuple[Value, Value]:
    """Σ w_p · y_cp over the cells, c the chosen class."""
    assert score.dense is not None
    chosen = scoring.chosen_class(op, score, given[INDEX])
    logits = scoring.of_class(op, score.dense.logits, chosen)
    return scoring.weighted(op, given["mask"], logits), chosen


def _objectness(op: Builder, score: Score, given: Given) -> tuple[Value, Value]:
    """Σ w_p · objectness_p over the cells."""
    assert score.dense is not None
    assert score.dense.objectness is not None
    logits = op.Squeeze(score.dense.objectness, op.ints(1))
    return scoring.weighted(op, given["mask"], logits), given[INDEX]


def _tokens(op: Builder, score: Score, given: Given) -> tuple[Value, Value]:
    """Σ w_kt · log p_kt over tokens k and steps t."""
    assert score.dense is not None
    y = score.dense.logits
    log_p = scoring.log_softmax(op, y) if scoring.is_exclusive(score) else scoring.log_sigmoid(op, y)
    return scoring.weighted(op, given["tokens"], log_p), _none(op, given)


def _similarity(op: Builder, score: Score, given: Given) -> tuple[Value, Value]:
    """cos(e, q) = Σ e_k · q_k / ‖e‖, where ‖q‖ = 1.   A zero e is similar to nothing."""
    e = scoring.columns(op, score, given[INDEX])
    least = op.const(1e-30, like=e)
    square = op.ReduceSum(op.Mul(e, e), op.ints(1), keepdims=0)
    length = op.Sqrt(op.Where(op.Less(square, least), least, square))
    return op.Div(scoring.weighted(op, given["embedding"], e), length), _none(op, given)


def _custom(op: Builder, score: Score, given: Given, function: Callable[..., Value]) -> tuple[Value, Value]:
    """What the user's function makes of the outputs."""
    name = getattr(function, "__name__", "the function")
    value = function(op, {v.name or "": v for v in op.graph.outputs})
    if not isinstance(value, ir.Value) or not is_float(value) or value.shape is None or len(value.shape) != 1:
        made = f"{value.dtype} {value.shape}" if isinstance(value, ir.Value) else type(value).__name__
        raise TargetError(
            f"{name} made {made}, not one score per row",
            hint="f(op, outputs) returns a floating-point value of shape (N,): "
            "op.ReduceSum(op.Mul(y, y), op.ints(1), keepdims=0) for an output y (N, K)",
            target=name,
        )
    return value, _none(op, given)


def _none(op: Builder, given: Given) -> Value:
    """−1 for each row: of no class."""
    return op.Sub(op.Mul(given[INDEX], op.ints(0)), op.ints(1))


CLASS = Kind("class", _class, at_best_cell=True)
PROBABILITY = Kind("probability", _probability, at_best_cell=True)
LOG_PROBABILITY = Kind("log-probability", _log_probability, at_best_cell=True)
LINEAR = Kind("linear", _linear, (Parameter("weights", ("classes",)),), at_best_cell=True)
REGION = Kind("region", _region, (Parameter("mask", ("cells",)),), ("logits", "sides"))
OBJECTNESS = Kind("objectness", _objectness, (Parameter("mask", ("cells",)),), ("logits", "objectness", "sides"))
TOKENS = Kind("tokens", _tokens, (Parameter("tokens", ("classes", "steps")),), ("logits",))
SIMILARITY = Kind("similarity", _similarity, (Parameter("embedding", ("features",)),))


def custom(function: Callable[..., Value]) -> Kind:
    """The kind of a user's function."""
    return Kind("custom", _custom, options=(function,))
