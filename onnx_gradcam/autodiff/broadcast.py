"""Undo broadcasting: the transpose of Expand."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_gradcam.graph.builder import Builder, Value, rank, same_dim


def sum_to(op: Builder, g: Value, like: Value, full: Value) -> Value:
    """Sum the cotangent ``g`` of ``full`` over the axes along which ``like`` was broadcast to ``full``.

    This works for static and for dynamic shapes.

    Args:
        op: writes the nodes.
        g: the cotangent; it may be compact, with size-1 axes that broadcast to ``full``.
        like: the operand that was broadcast.
        full: the result of broadcasting.

    Returns:
        The cotangent of ``like``, with its rank. It may be compact along axes that were not summed.

    Raises:
        ModelError: a rank is not known; it names the value.
    """
    lead = rank(full) - rank(like)
    short, long = list(like.shape or ()), list(full.shape or ())
    pairs = [(1, d) for d in long[:lead]] + list(zip(short, long[lead:], strict=True))
    if any(not isinstance(a, int) and not same_dim(a, b) and b != 1 for a, b in pairs):
        return _sum_to_dynamic(op, g, like, full)
    if axes := [k for k, (a, b) in enumerate(pairs) if a == 1 and b != 1]:
        g = op.ReduceSum(fill(op, g, full, axes), op.ints(*axes), keepdims=1)
    return op.Squeeze(g, op.ints(*range(lead))) if lead else g


def _sum_to_dynamic(op: Builder, g: Value, like: Value, full: Value) -> Value:
    """Write ``sum_to`` with axes that are found at run time: those where the two shapes differ."""
    small, large = op.shape_of(like), op.shape_of(full)
    if lead := rank(full) - rank(like):
        small = op.Concat(op.ints(*[1] * lead), small, axis=0)
    axes = op.Squeeze(op.NonZero(op.Not(op.Equal(small, large))), op.ints(0))
    g = op.ReduceSum(fill(op, g, full, range(rank(full))), axes, keepdims=1, noop_with_empty_axes=1)
    g.shape = ir.Shape([*[1] * lead, *(like.shape or ())])  # which inference cannot tell
    summed = op.Reshape(g, op.shape_of(like))
    summed.shape = like.shape
    return summed


def fill(op: Builder, g: Value, full: Value, axes: Sequence[int]) -> Value:
    """Write ``g`` with the size of ``full`` along ``axes``: a size that is not known now may be 1 in the run."""
    if g is full or (
        g.shape is not None
        and full.shape is not None
        and len(g.shape) == len(full.shape)
        and all(same_dim(g.shape[k], full.shape[k]) for k in axes)
    ):
        return g
    return op.fill(g, full)
