"""A model whose values can be moved, with its score and its gradients there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.graph.names import GradientNames, claim, delta, held, moved, names_in, values_by_name

SAMPLES = 6  # of the score, to see how much rounding there is in it
UNITS = 64  # units in the last place, by which values are moved for it: far less than a step


class Runnable(Protocol):
    """A graph that can be run: a session of the runtime, or the graph in float64."""

    def run(self, names: Sequence[str], feeds: Mapping[str, Any], /) -> Mapping[str, Any]:
        """Return the values ``names``."""


@dataclass(frozen=True)
class Probe:
    """A model whose values can be moved, with the graphs that give its score and its gradients there.

    Attributes:
        gradient: gives the gradients.
        forward: gives the score alone.
        feeds: what both are fed where nothing is moved.
        values: the values that can be moved, by name.
        names: what the score and the gradients are called.
        deltas: the inputs that are added to the values, by the names of these.
        models: the models of ``gradient`` and ``forward``.
        options: how the runtime opens these.
    """

    gradient: Runnable
    forward: Runnable
    feeds: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]
    names: GradientNames
    deltas: Mapping[str, str]
    models: tuple[ir.Model, ir.Model]
    options: Options

    @classmethod
    def of(
        cls,
        whole: ir.Model,
        names: GradientNames,
        options: Options,
        feeds: Mapping[str, np.ndarray],
        values: Mapping[str, np.ndarray],
        constants: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> Probe:
        """Open the two sessions of a gradient graph, whoever wrote it.

        Args:
            whole: the gradient graph; it has the gradient of each of ``values``.
            names: what is called what in it.
            options: how sessions are opened.
            feeds: arrays for all inputs of the graph.
            values: the values that can be moved, by name, as they are where nothing is moved.
            constants: values that stay what they are, by name.
        """
        model = whole.clone()
        known = values_by_name(model.graph)
        taken = names_in(model.graph)
        deltas = {name: _add_delta(model.graph, known[name], taken) for name in values}
        for name, array in constants.items():
            _hold(model.graph, known[name], array, taken)
        forward = model.clone()
        forward.graph.outputs[:] = [v for v in forward.graph.outputs if v.name == names.score]
        RemoveUnusedNodesPass()(forward)
        at_rest = {deltas[name]: np.zeros_like(array) for name, array in values.items()}
        sessions = Session(model, options), Session(forward, options)
        return cls(*sessions, {**feeds, **at_rest}, values, names, deltas, (model, forward), options)

    def gradient_at(self, name: str, delta: np.ndarray) -> np.ndarray:
        """Return ∂score/∂value, float64, with the value moved by ``delta``."""
        output = self.names.gradients[name]
        gradient = self.gradient.run([output], {**self.feeds, self.deltas[name]: delta})[output]
        return np.asarray(gradient, np.float64)

    def score_at(self, name: str, delta: np.ndarray) -> float:
        """Return the score, summed over the batch."""
        score = self.names.score
        results = self.forward.run([score], {**self.feeds, self.deltas[name]: delta})
        return float(np.sum(results[score], dtype=np.float64))

    def place(self, name: str, delta: np.ndarray) -> np.ndarray:
        """Return the value moved by ``delta``, float64, as the value's own precision has added it."""
        return np.asarray(self.values[name] + delta, np.float64)

    def rounding(self, name: str, base: np.ndarray, gradient: np.ndarray, rng: np.random.Generator) -> float:
        """Return the standard deviation of the score's rounding around ``base``: what the gradient leaves unexplained.

        The moves are of several units in the last place: channels with the same weights round alike, and moved by one
        unit the score may seem exact.
        """
        start = self.place(name, base)
        ulp = float(np.finfo(base.dtype).eps) / 2
        small = start * UNITS * ulp
        moves = [(base + small * rng.standard_normal(base.shape)).astype(base.dtype) for _ in range(SAMPLES)]
        left = [self.score_at(name, m) - float(np.vdot(gradient, self.place(name, m) - start)) for m in moves]
        return max(float(np.std(left)), ulp * abs(left[0]))


def _add_delta(graph: ir.Graph, value: ir.Value, taken: set[str]) -> str:
    """Let every reader of a value read its sum with a new input instead; return what that input is called."""
    added = ir.val(claim(delta(value.name or ""), taken), dtype=value.dtype, shape=value.shape)
    total = ir.val(claim(moved(value.name or ""), taken), dtype=value.dtype, shape=value.shape)
    _read_instead(value, total)
    producer = value.producer()
    add = ir.node("Add", [value, added], outputs=[total], name=total.name)
    if producer is None:
        graph.insert_before(graph[0], add)
    else:
        graph.insert_after(producer, add)
    graph.inputs.append(added)
    return added.name or ""


def _hold(graph: ir.Graph, value: ir.Value, array: np.ndarray, taken: set[str]) -> None:
    """Let every reader of a value read ``array`` instead."""
    name = claim(held(value.name or ""), taken)
    constant = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(constant)
    _read_instead(value, constant)


def _read_instead(value: ir.Value, other: ir.Value) -> None:
    """Let every node, those of the gradient included, read another value; outputs of the graph stay."""
    for node, i in list(value.uses()):
        node.replace_input_with(i, other)
