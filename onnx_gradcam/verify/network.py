"""The whole network: the gradient of the score against central differences of it, through the runtime.

Directions v = G∘m + a little noise, m a random half mask: isotropic directions drown in rounding long before they are
free of kinks. A kink within a step is an error of the order of the step, so the slope is trusted where steps of
several lengths agree with each other: the plateau.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_gradcam.gradient import INDEX
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.score import Score
from onnx_gradcam.runtime import Options, Session
from onnx_gradcam.targets import class_score
from onnx_gradcam.verify.report import Check, Scan, Status

LIMIT = 2e-3
STEPS = tuple(2.0**-k for k in range(2, 17))  # ‖hv‖ as a share of ‖x‖
DIRECTIONS = 3
ISOTROPIC = 0.1  # share of the noise in a direction: what G lacks shows only there
AGREEMENT = 1e-3  # between the slopes of a plateau
LENGTH = 3  # steps, at least, on a plateau
RESOLUTION = 64 * 2.0**-24  # share of the score that a change must exceed to be more than rounding

Slope = Callable[[np.ndarray], tuple[float, float]]


def movable(prepared: ir.Model, score: Score, names: Sequence[str]) -> ir.Model:
    """The forward pass to the score (N,), with an input ``delta/<name>`` that is added to each value of ``names``."""
    model = prepared.clone()
    graph = model.graph
    values = ir.convenience.create_value_mapping(graph)
    score = replace(score, value=values[score.value.name or ""])
    for name in names:
        _add_delta(graph, values[name])
    op = Builder(graph, "verify")
    index = ir.val(INDEX, dtype=ir.DataType.INT64, shape=["batch"])
    value, _ = class_score(op, score, index)
    graph.inputs.append(index)
    value.name = "verify/score"
    graph.outputs[:] = [value]
    RemoveUnusedNodesPass()(model)
    return model


def _add_delta(graph: ir.Graph, value: ir.Value) -> None:
    readers = list(value.uses())
    delta = ir.val(f"delta/{value.name}", dtype=value.dtype, shape=value.shape)
    moved = ir.val(f"moved/{value.name}", dtype=value.dtype, shape=value.shape)
    add = ir.node("Add", [value, delta], outputs=[moved], name=moved.name)
    for node, i in readers:
        node.replace_input_with(i, moved)
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], add)
    else:
        graph.insert_after(producer, add)
    graph.inputs.append(delta)


def scan(run: Slope, x: np.ndarray, gradient: np.ndarray, rng: np.random.Generator) -> Scan:
    """The slope along one random direction; ``run``: what is added to x → the score (summed) there."""
    v = _direction(gradient.astype(np.float64), rng)
    length = float(np.linalg.norm(x)) or float(np.sqrt(x.size))
    expected = float(np.vdot(gradient, v))
    slopes, resolved = [], []
    for step in STEPS:
        plus, minus = (run((sign * step * length * v).astype(x.dtype)) for sign in (1, -1))
        slopes.append((plus - minus) / (2 * step * length))
        change = max(abs(plus - minus), 2 * step * length * abs(expected))
        resolved.append(change > RESOLUTION * max(abs(plus), abs(minus)))
    found = plateau(slopes, resolved, expected)
    if found is None:
        return Scan(expected, STEPS, tuple(slopes), None, None)
    slope = float(np.median(slopes[found]))
    error = abs(expected - slope) / max(abs(expected), abs(slope))
    steps = STEPS[found]
    return Scan(expected, STEPS, tuple(slopes), (steps[-1], steps[0]), error)


def _direction(gradient: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """G∘m and noise, of unit length."""
    along = _unit(gradient * rng.integers(0, 2, gradient.shape))
    return _unit(along + ISOTROPIC * _unit(rng.standard_normal(gradient.shape)))


def _unit(v: np.ndarray) -> np.ndarray:
    return v / (np.linalg.norm(v) or 1)


def plateau(slopes: Sequence[float], resolved: Sequence[bool], expected: float) -> slice | None:
    """The shortest steps (they come last) of which at least LENGTH in a row agree, all of them more than rounding."""
    for stop in range(len(slopes), LENGTH - 1, -1):
        start = stop
        while start > 0 and resolved[start - 1] and _agree(slopes[start - 1 : stop], expected):
            start -= 1
        if stop - start >= LENGTH:
            return slice(start, stop)
    return None


def _agree(slopes: Sequence[float], expected: float) -> bool:
    return max(slopes) - min(slopes) <= AGREEMENT * max(abs(expected), *map(abs, slopes))
