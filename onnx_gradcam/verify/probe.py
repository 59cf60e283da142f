"""A model one value of which can be moved, with its score and its gradient there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_gradcam.engine.program import forward_only
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.graph.flow import operands
from onnx_gradcam.graph.names import GradientNames, claim, delta, held, moved, names_in, values_by_name

SAMPLES = 6  # of the score, to see how much rounding there is in it
UNITS = 64  # units in the last place, by which values are moved for it: far less than a step


class Runnable(Protocol):
    """A graph that can be run."""

    def run(self, names: Sequence[str], feeds: Mapping[str, Any], /) -> Mapping[str, Any]:
        """Return the values ``names``."""


@dataclass(frozen=True)
class Probe:
    """A model one value of which can be moved, with the graphs that give its score and its gradient there.

    Attributes:
        name: the value that can be moved.
        value: what it holds where it is not moved.
        gradient: gives the gradient.
        forward: gives the score: the nodes that depend on the value, all others being held.
        outputs: what the score and the gradient are called.
        feeds: what both are fed.
        delta: the input that is added to the value.
        model: the model of ``forward``.
        gradient_model: the model of ``gradient``.
        options: how the runtime opens these.
    """

    name: str
    value: np.ndarray
    gradient: Runnable
    forward: Runnable
    outputs: tuple[str, str]
    feeds: Mapping[str, np.ndarray]
    delta: str
    model: ir.Model
    gradient_model: ir.Model
    options: Options

    @classmethod
    def of(
        cls,
        whole: ir.Model,
        names: GradientNames,
        options: Options,
        feeds: Mapping[str, np.ndarray],
        name: str,
        value: np.ndarray,
        constants: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> Probe:
        """Open the two sessions of a gradient graph, whoever wrote it.

        Args:
            whole: the gradient graph; it has the gradient of the value.
            names: what is called what in it.
            options: how sessions are opened.
            feeds: arrays for all inputs of the graph.
            name: the value that can be moved.
            value: what it holds where it is not moved.
            constants: values that stay what they are, by name.
        """
        outputs = names.score, names.gradients[name]
        model = whole.clone()
        known, taken = values_by_name(model.graph), names_in(model.graph)
        added = _add_delta(model.graph, known[name], taken)
        for held_name, array in constants.items():
            _hold(model.graph, known[held_name], array, taken)
        at_rest = {**feeds, added: np.zeros_like(value)}
        forward = forward_only(model, [names.score])
        _hold_others(forward, added, at_rest, options)
        backward = forward_only(model, [names.gradients[name]])
        sessions = Session(backward, options), Session(forward, options)
        return cls(name, value, *sessions, outputs, feeds, added, forward, backward, options)

    def gradient_at(self, delta: np.ndarray) -> np.ndarray:
        """Return ∂score/∂value, float64, with the value moved by ``delta``."""
        output = self.outputs[1]
        return np.asarray(self.gradient.run([output], {**self.feeds, self.delta: delta})[output], np.float64)

    def score_at(self, delta: np.ndarray) -> float:
        """Return the score, summed over the batch."""
        score = self.outputs[0]
        results = self.forward.run([score], {**self.feeds, self.delta: delta})
        return float(np.sum(results[score], dtype=np.float64))

    def place(self, delta: np.ndarray) -> np.ndarray:
        """Return the value moved by ``delta``, float64, as the value's own precision has added it."""
        return np.asarray(self.value + delta, np.float64)

    def rounding(self, base: np.ndarray, gradient: np.ndarray, rng: np.random.Generator) -> float:
        """Return the standard deviation of the score's rounding around ``base``: what the gradient leaves unexplained.

        The moves are of several units in the last place: channels with the same weights round alike, and moved by one
        unit the score may seem exact.
        """
        start = self.place(base)
        ulp = float(np.finfo(base.dtype).eps) / 2
        small = start * UNITS * ulp
        moves = [(base + small * rng.standard_normal(base.shape)).astype(base.dtype) for _ in range(SAMPLES)]
        left = [self.score_at(m) - float(np.vdot(gradient, self.place(m) - start)) for m in moves]
        return max(float(np.std(left)), ulp * abs(left[0]))


def moved_nodes(graph: ir.Graph, source: str) -> list[ir.Node]:
    """Return the nodes that read the input ``source``, or what such nodes give, in the graph's order.

    Every reader counts, whatever its rules say of gradients.
    """
    reached = {v for v in graph.inputs if v.name == source}
    found = []
    for node in graph:
        if any(v in reached for v in operands(node)):
            reached.update(node.outputs)
            found.append(node)
    return found


def _hold_others(model: ir.Model, source: str, feeds: Mapping[str, np.ndarray], options: Options) -> None:
    """Hold what the nodes that depend on the input ``source`` read of others: only the former are run again."""
    graph = model.graph
    nodes = moved_nodes(graph, source)
    made = {v for node in nodes for v in node.outputs}
    read = dict.fromkeys(v for node in nodes for v in operands(node) if v is not None and v not in made)
    others = [v for v in read if v.producer() is not None and isinstance(v.type, ir.TensorType)]
    if not others:
        return
    names = [v.name or "" for v in others]
    session = Session(forward_only(model, names), options)
    known = session.run(names, {name: feeds[name] for name in session.inputs})
    taken = names_in(graph)
    for value in others:
        _hold(graph, value, known[value.name or ""], taken)
    RemoveUnusedNodesPass()(model)


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
