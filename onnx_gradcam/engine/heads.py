"""The head of a network of tokens once more behind every block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.errors import MethodError
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.flow import between, steps_of
from onnx_gradcam.graph.lowering.registry import Unlowered
from onnx_gradcam.graph.lowering.replay import Term, replay, required
from onnx_gradcam.graph.names import HEADS, values_by_name


@dataclass(frozen=True, eq=False)
class HeadedModel:
    """A model that computes its score behind every block.

    Attributes:
        model: a copy of the model, with more nodes.
        scores: the names of the score tensors, of the first block to the last.
    """

    model: ir.Model
    scores: tuple[str, ...]


def with_heads(model: ir.Model, score: str, behind: Sequence[str], token_axis: int, is_mean: bool) -> HeadedModel:
    """Return a copy of a model with what lies behind its last block written behind each of its blocks.

    Args:
        model: the model.
        score: the name of its score tensor, which depends on the tokens behind the last block alone.
        behind: the names of the tokens behind each block.
        token_axis: the axis along which they lie.
        is_mean: whether a head reads the mean of its tokens in the place of each of them.

    Raises:
        MethodError: the head cannot be written once more.
    """
    copy = model.clone()
    values = values_by_name(copy.graph)
    nodes = list(copy.graph)
    end, logits = values[behind[-1]], values[score]
    path = between(steps_of(nodes), [end], logits)
    head = [node for node in nodes if end not in node.outputs and not path.isdisjoint(node.outputs)]
    op = Builder(copy.graph, HEADS)
    scores = []
    for name in behind:
        known: dict[Value, Term] = {end: _mean(op, values[name], token_axis) if is_mean else values[name]}
        try:
            replay(op, head, known)
            own = op.Identity(required(known[logits]))
        except Unlowered as error:
            raise MethodError(
                f"the head of this network cannot be written behind every block: {error}",
                where=f"between {end.name!r} and {score!r}",
                hint="'gradient-rollout', 'attention-rollout', 'gradcam'",
                method="legrad",
            ) from None
        own.type, own.shape = logits.type, logits.shape
        scores.append(own.name or "")
    return HeadedModel(copy, tuple(scores))


def _mean(op: Builder, tokens: Value, axis: int) -> Value:
    return op.fill(op.ReduceMean(tokens, op.ints(axis), keepdims=1), tokens)
