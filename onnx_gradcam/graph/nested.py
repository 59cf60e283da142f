"""Nodes with bodies, written with the Builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.builder import Builder, Value

Step = Callable[..., Sequence[Value]]

BEFORE_FIRST = int(np.iinfo(np.int64).min)  # where a Slice with step −1 ends


def scan(
    op: Builder, step: Step, states: Sequence[Value], slices: Sequence[Value], *, backwards: bool = False
) -> tuple[Value, ...]:
    """Run ``step(inner, *states, *slices) → (*states, *results)`` for each place along the first axis of ``slices``.

    Returns the last states, then the results, stacked along the first axis. ``backwards`` begins at the last place.
    They are turned around here: not every runtime has Scan's own directions.
    """
    inner = op.inside("Scan")
    body = inner.graph
    for k, value in enumerate([*states, *slices]):
        body.inputs.append(_like(value, f"{body.name}/in_{k}", drop=0 if k < len(states) else 1))
    made: list[Value] = []
    for value in step(inner, *body.inputs):
        made.append(inner.Identity(value) if value in made or value.producer() is None else value)
    body.outputs.extend(made)
    given = [_turned(op, v) for v in slices] if backwards else slices
    outputs = op.node("Scan", *states, *given, outputs=len(made), body=body, num_scan_inputs=len(slices))
    length = None if slices[0].shape is None else slices[0].shape[0]
    for k, (output, result) in enumerate(zip(outputs, made, strict=True)):
        output.type, output.shape = result.type, result.shape
        if k >= len(states) and result.shape is not None:
            output.shape = ir.Shape([length, *result.shape])
    stacked = outputs[len(states) :]
    return (*outputs[: len(states)], *([_turned(op, v) for v in stacked] if backwards else stacked))


def choose(
    op: Builder,
    condition: Value,
    then_branch: ir.Graph,
    else_branch: ir.Graph,
    step: Callable[[Builder], Value],
    like: Value,
) -> Value:
    """Return an If whose branches are copies of the two given ones and return ``step(inner)``, of the kind of ``like``.

    ``step`` may add nodes to those of the copy, and read the copy's outputs.
    """
    bodies = {}
    for name, branch in (("then_branch", then_branch), ("else_branch", else_branch)):
        inner = op.inside(name, branch.clone(allow_outer_scope_values=True))
        result = inner.Identity(step(inner))
        result.type, result.shape = like.type, like.shape
        inner.graph.outputs[:] = [result]
        bodies[name] = inner.graph
    (output,) = op.node("If", condition, outputs=1, **bodies)
    output.type, output.shape = like.type, like.shape
    return output


def _like(value: Value, name: str, drop: int) -> Value:
    """Return a value of the same dtype and shape, but for the first ``drop`` axes."""
    shape = None if value.shape is None else ir.Shape(value.shape[drop:])
    return ir.Value(name=name, type=value.type, shape=shape)


def _turned(op: Builder, x: Value) -> Value:
    """Return x with its first axis in reverse order."""
    return op.Slice(x, op.ints(-1), op.ints(BEFORE_FIRST), op.ints(0), op.ints(-1))
