"""A model whose values can be moved, with its score and its gradients there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_gradcam.engine.program import SCORE
from onnx_gradcam.engine.session import Options, Session

ULP = 2.0**-24  # of float32, as a share of the number
SAMPLES = 6  # of the score, to see how much rounding there is in it
UNITS = 64  # in the last place, by which values are moved for it: far less than a step


@dataclass(frozen=True)
class Probe:
    """A model with values that can be moved: ``delta/<name>`` is added to each of ``values`` {name: array}.

    ``gradient`` gives the gradients there, ``forward`` the score alone.
    """

    gradient: Session
    forward: Session
    feeds: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        whole: ir.Model,
        options: Options,
        feeds: Mapping[str, np.ndarray],
        values: Mapping[str, np.ndarray],
        held: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> Probe:
        """Open the two sessions of the gradient graph ``whole``, whoever wrote it; it has ``grad/<name>`` for values.

        ``feeds`` hold ``target_index`` too; ``held`` {name: array}: values that stay what they are.
        """
        model = whole.clone()
        known = ir.convenience.create_value_mapping(model.graph)
        for name in values:
            _add_delta(model.graph, known[name])
        for name, array in held.items():
            _hold(model.graph, known[name], array)
        forward = model.clone()
        forward.graph.outputs[:] = [v for v in forward.graph.outputs if v.name == SCORE]
        RemoveUnusedNodesPass()(forward)
        at_rest = {f"delta/{name}": np.zeros_like(array) for name, array in values.items()}
        return cls(Session(model, options), Session(forward, options), {**feeds, **at_rest}, values)

    def gradient_at(self, name: str, delta: np.ndarray) -> np.ndarray:
        """∂score/∂value, float64, with the value moved by ``delta``."""
        output = f"grad/{name}"
        found = self.gradient.run([output], {**self.feeds, f"delta/{name}": delta})[output]
        return np.asarray(found, np.float64)

    def score_at(self, name: str, delta: np.ndarray) -> float:
        """The score, summed over the batch."""
        return float(np.sum(self.forward.run([SCORE], {**self.feeds, f"delta/{name}": delta})[SCORE], dtype=np.float64))

    def place(self, name: str, delta: np.ndarray) -> np.ndarray:
        """Where the value is when moved by ``delta``, float64: as float32 has added it."""
        return np.asarray(self.values[name] + delta, np.float64)

    def rounding(self, name: str, base: np.ndarray, gradient: np.ndarray, rng: np.random.Generator) -> float:
        """The standard deviation of the score's rounding around ``base``: what its gradient leaves of small moves.

        The moves are of several units in the last place: channels with the same weights round alike, and moved by one
        unit the score may seem exact.
        """
        start = self.place(name, base)
        small = start * UNITS * ULP
        moves = [(base + small * rng.standard_normal(base.shape)).astype(base.dtype) for _ in range(SAMPLES)]
        left = [self.score_at(name, m) - float(np.vdot(gradient, self.place(name, m) - start)) for m in moves]
        return max(float(np.std(left)), ULP * abs(left[0]))


def _add_delta(graph: ir.Graph, value: ir.Value) -> None:
    """Every reader of ``value`` reads ``moved/<name>`` = value + ``delta/<name>`` instead."""
    delta = ir.val(f"delta/{value.name}", dtype=value.dtype, shape=value.shape)
    moved = ir.val(f"moved/{value.name}", dtype=value.dtype, shape=value.shape)
    _read_instead(value, moved)
    producer = value.producer()
    add = ir.node("Add", [value, delta], outputs=[moved], name=moved.name)
    if producer is None:
        graph.insert_before(graph[0], add)
    else:
        graph.insert_after(producer, add)
    graph.inputs.append(delta)


def _hold(graph: ir.Graph, value: ir.Value, array: np.ndarray) -> None:
    """Every reader of ``value`` reads ``array`` instead."""
    name = f"held/{value.name}"
    held = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(held)
    _read_instead(value, held)


def _read_instead(value: ir.Value, other: ir.Value) -> None:
    """In every node, those of the gradient included; not as an output of the graph."""
    for node, i in list(value.uses()):
        node.replace_input_with(i, other)
