"""Rules of control flow."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_gradcam.autodiff.registry import EACH, PullBack, vjp
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.flow import captured, downstream
from onnx_gradcam.graph.nested import choose


@vjp("If", wrt=EACH, multi=True, nested=True)
def branches(
    op: Builder,
    gs: tuple[Value | None, ...],
    ys: tuple[Value, ...],
    cond: Value,
    *,
    then_branch: ir.Graph,
    else_branch: ir.Graph,
    i: int,
    pull_back: PullBack,
) -> Value:
    """y = then(v) or else(v), v read from outside:  v̄ = v̄ of the branch that runs, in an If of its own.

    A branch that does not read v gives zeros.
    """
    node = ys[0].producer()
    assert node is not None
    value = captured(node)[i - len(node.inputs)]

    def pull(inner: Builder) -> Value:
        nodes, seeds = list(inner.graph), _seeds(inner, gs)
        reached = downstream(nodes, [value])
        if reached.isdisjoint(seeds):
            return inner.fill(inner.const(0, like=value), value)
        (gradient,) = pull_back(inner, nodes, seeds, [value])
        return gradient

    return choose(op, cond, then_branch, else_branch, pull, like=value)


def _seeds(inner: Builder, gs: Sequence[Value | None]) -> dict[Value, Value]:
    """Return the cotangents of what the branch returns; for a value that it returns twice their sum."""
    seeds: dict[Value, Value] = {}
    for result, g in zip(inner.graph.outputs, gs, strict=True):
        if g is not None:
            seeds[result] = inner.Add(seeds[result], g) if result in seeds else g
    return seeds
