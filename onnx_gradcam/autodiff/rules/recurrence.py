"""Carry cotangents back through time, for any recurrent cell that is written as one step.

    x_t = X_t·Wᵀ + b_W     r_t = h_{t−1}·Rᵀ + b_R     (h_t, c_t) = step(x_t, r_t, h_{t−1}, c_{t−1})

Only the step is differentiated place by place, in one Scan from the last place to the first. x_t, r_t and X̄ are single
matrix products over all t, because h_t is an output of the deployed node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.autodiff.registry import PullBack
from onnx_gradcam.autodiff.rules.axes import END, dims, vector
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.nested import scan


@dataclass(frozen=True)
class Cell:
    """The equations and the weights of one direction of a recurrent node.

    ``step`` writes one step: ``step(op, x + r, c) → (h, c)``, without c where the cell has no memory. The step of a
    ``gated`` cell takes x and r apart, and h: ``step(op, x, r, h) → (h,)``. W is (G·H, I), R (≤ G·H, H); the biases
    are vectors. ``inside`` are weights that the step reads itself.
    """

    step: Callable[..., Sequence[Value]]
    W: Value
    R: Value
    bias_w: Value | None
    bias_r: Value | None
    gated: bool = False
    inside: Sequence[Value] = ()


@dataclass(frozen=True)
class Pass:
    """What one direction reads and returns, time first: x (T, N, I), h (T, N, H), initial states (N, H).

    A pass that is ``backwards`` goes from the last place to the first. ``mask`` (T, N, 1) is 1 before the end of each
    sequence, None where all have the full length. ``g_h`` (T, N, H) is the cotangent of h, ``g_states`` are the
    cotangents of the last states; None stands for zeros.
    """

    x: Value
    h: Value
    initial: Sequence[Value | None]
    zero: Value
    mask: Value | None
    backwards: bool
    g_h: Value | None
    g_states: Sequence[Value | None]


@dataclass(frozen=True)
class Pulled:
    """The cotangents of what a pass reads.

    ``x`` and ``r`` (T, N, ≤ G·H) are those of the two products of all places; the others are those of the initial
    states and of the weights that the step reads, which are there on request.
    """

    x: Value
    r: Value
    initial: Sequence[Value]
    inside: Sequence[Value]


def pull_through_time(op: Builder, pull_back: PullBack, cell: Cell, run: Pass, *, weights: bool = False) -> Pulled:
    """Write backpropagation through time.

    Args:
        op: writes the nodes.
        pull_back: differentiates the nodes of a step.
        cell: the equations and the weights.
        run: the tensors.
        weights: whether the cotangents of the weights are asked for.
    """
    inside = cell.inside if weights else ()
    operands = _operands(op, cell, run)
    g_states = [_drop_empty(op, run, run.zero if g is None else g) for g in run.g_states]
    extras = [v for v in (_mask(op, run.g_h, run.mask), run.mask) if v is not None]

    def back(inner: Builder, *values: Value) -> list[Value]:
        states, totals = list(values[: len(g_states)]), values[len(g_states) : len(g_states) + len(inside)]
        slices = values[len(g_states) + len(inside) :]
        inputs, others = slices[: len(operands)], list(slices[len(operands) :])
        if run.g_h is not None:
            states[0] = inner.Add(states[0], others.pop(0))
        mask = others.pop() if others else None
        live = [g if mask is None else inner.Mul(g, mask) for g in states]
        before = len(inner.graph)
        results = cell.step(inner, *inputs)
        nodes = list(inner.graph)[before:]
        g_x, *shares = pull_back(inner, nodes, dict(zip(results, live, strict=True)), [*inputs, *inside])
        of_weights = [shares.pop() for _ in inside][::-1]
        g_r = shares.pop(0) if cell.gated else g_x
        into = inner.MatMul(g_r, cell.R)
        shares = [inner.Add(into, shares[0])] if cell.gated else [into, *shares]
        if mask is not None:
            ended = inner.Sub(inner.const(1, like=mask), mask)
            shares = [inner.Add(s, inner.Mul(g, ended)) for s, g in zip(shares, states, strict=True)]
        sums = [inner.Add(total, g) for total, g in zip(totals, of_weights, strict=True)]
        return [*shares, *sums, g_x, *([g_r] if weights and cell.gated else [])]

    start = [*g_states, *(op.fill(op.const(0, like=w), w) for w in inside)]
    results = scan(op, back, start, [*operands, *extras], backwards=not run.backwards)
    first, sums = results[: len(g_states)], results[len(g_states) : len(start)]
    g_x, *g_r = results[len(start) :]
    return Pulled(g_x, g_r[0] if g_r else g_x, first, sums)


def through_input(op: Builder, cell: Cell, pulled: Pulled) -> Value:
    """Write the cotangent of x (T, N, I)."""
    return op.MatMul(pulled.x, cell.W)


def through_weights(op: Builder, run: Pass, pulled: Pulled) -> dict[str, Value]:
    """Write the cotangents of the two matrices, W and R, and of the two biases."""
    before = _before(op, run)
    return {
        "W": _outer(op, pulled.x, run.x),
        "R": _outer(op, pulled.r, before),
        "bias_w": op.ReduceSum(pulled.x, op.ints(0, 1), keepdims=0),
        "bias_r": op.ReduceSum(pulled.r, op.ints(0, 1), keepdims=0),
    }


def _outer(op: Builder, g: Value, x: Value) -> Value:
    """Write Σ g ⊗ x over all places and sequences."""
    rows, columns = (op.Reshape(v, vector(op, [-1, dims(v)[2]])) for v in (g, x))
    return op.MatMul(op.Transpose(rows, perm=[1, 0]), columns)


def _operands(op: Builder, cell: Cell, run: Pass) -> list[Value]:
    """Write what the step takes, for all t."""
    before = _before(op, run)
    x = _affine(op, run.x, cell.W, cell.bias_w)
    r = _affine(op, before, cell.R, cell.bias_r)
    if cell.gated:
        return [x, r, before]
    both = op.Add(x, r)
    return [both, _memory(op, cell, run, both)] if len(run.g_states) > 1 else [both]


def _affine(op: Builder, x: Value, matrix: Value, bias: Value | None) -> Value:
    """Write x · matrixᵀ + bias."""
    product = op.MatMul(x, op.Transpose(matrix, perm=[1, 0]))
    return product if bias is None else op.Add(product, bias)


def _before(op: Builder, run: Pass) -> Value:
    """Write h_{t−1} for all t: h moved on by one place, with the initial state in front."""
    h, start = run.h, op.Unsqueeze(run.initial[0] or run.zero, op.ints(0))
    if run.initial[0] is not None and run.mask is not None:  # backwards, a sequence begins at its own last place
        h = op.Add(h, op.Mul(start, op.Sub(op.const(1, like=h), run.mask)))
    if run.backwards:
        shifted = op.Concat(op.Slice(h, op.ints(1), op.ints(END), op.ints(0)), start, axis=0)
    else:
        shifted = op.Concat(start, op.Slice(h, op.ints(0), op.ints(-1), op.ints(0)), axis=0)
    shifted.shape = run.h.shape
    return shifted


def _memory(op: Builder, cell: Cell, run: Pass, pre: Value) -> Value:
    """Write c_{t−1} for all t: the node does not return it, so its memory is run again."""

    def forward(inner: Builder, c: Value, x: Value, *mask: Value) -> list[Value]:
        _, new = cell.step(inner, x, c)
        if mask:
            new = inner.Add(c, inner.Mul(mask[0], inner.Sub(new, c)))
        return [new, c]

    start = run.initial[1] or run.zero
    slices = [pre] if run.mask is None else [pre, run.mask]
    return scan(op, forward, [start], slices, backwards=run.backwards)[1]


def _mask(op: Builder, g: Value | None, mask: Value | None) -> Value | None:
    """Write ``g`` with zeros behind the end of each sequence."""
    return g if g is None or mask is None else op.Mul(g, mask)


def _drop_empty(op: Builder, run: Pass, g: Value) -> Value:
    """Write ``g`` with zeros for sequences of length 0, whose last states are zeros, whatever they were before."""
    return g if run.mask is None else op.Mul(g, op.Gather(run.mask, op.array(np.array(0, np.int64)), axis=0))
