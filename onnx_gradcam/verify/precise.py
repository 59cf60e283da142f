"""A whole graph in float64, node by node: it decides where rounding to float32 hides the slope of a score.

Each node is the function that its VJP rules are held against (``verify.float64``). That is slow, so it is for small
networks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_gradcam.engine.program import forward_only
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import operands
from onnx_gradcam.verify.float64 import OWN, Function, NoReference, in_float64, widened
from onnx_gradcam.verify.probe import Probe

SECONDS = 0.5  # that one run of a network may take: a check takes some hundred runs


def in_double_precision(at: Probe) -> Probe:
    """Return a probe of the same graphs in float64, without the runtime.

    Raises:
        NoReference: a node cannot be evaluated in float64, or the network is too large.
    """
    made = [at.names.score, *(output for name, output in at.names.gradients.items() if name in at.values)]
    gradient, forward = (
        Float64Graph(forward_only(model, names), at.feeds, at.options)
        for model, names in zip(at.models, (made, [at.names.score]), strict=True)
    )
    feeds, values = ({name: widened(a) for name, a in arrays.items()} for arrays in (at.feeds, at.values))
    return replace(at, gradient=gradient, forward=forward, feeds=feeds, values=values)


class Float64Graph:
    """A graph that is run in float64, without the runtime."""

    def __init__(self, model: ir.Model, feeds: Mapping[str, np.ndarray], options: Options) -> None:
        """Prepare every node; one run in float32, with ``feeds``, tells the shapes.

        Raises:
            NoReference: a node cannot be evaluated in float64, or the network is too large.
        """
        self._nodes = list(model.graph)
        self._constants = {
            v.name or "": widened(v.const_value.numpy())
            for v in model.graph.initializers.values()
            if v.const_value is not None
        }
        results = [y.name or "" for node in self._nodes for y in node.outputs if _is_tensor(y)]
        session = Session(forward_only(model, results), options)
        shapes = {name: array.shape for name, array in session.run(results, feeds).items()}
        self._functions = [_function(node, shapes) for node in self._nodes]
        start = time.perf_counter()
        self.run([v.name or "" for v in model.graph.outputs], feeds)
        if (seconds := time.perf_counter() - start) > SECONDS:
            raise NoReference(f"one run in float64 takes {seconds:.1f} s, more than {SECONDS:g} s")

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the values ``names``, floats as float64.

        Raises:
            NoReference: a node cannot be evaluated.
        """
        known = self._constants | {name: widened(array) for name, array in feeds.items()}
        for node, function in zip(self._nodes, self._functions, strict=True):
            arrays = function([None if v is None else known[v.name or ""] for v in operands(node)])
            for value, array in zip(node.outputs, arrays, strict=False):
                known[value.name or ""] = widened(array)
        return {name: known[name] for name in names}


def _is_tensor(value: ir.Value) -> bool:
    return bool(value.name) and isinstance(value.type, ir.TensorType)


def _function(node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> Function:
    """Return a node as a function of its operands."""
    shape = shapes.get(node.outputs[0].name or "")
    if shape is None or node.domain not in ("", "ai.onnx"):
        raise NoReference(f"onnx's reference evaluator does not know {node.domain}::{node.op_type}")
    if node.op_type in OWN and any(y.uses() or y.is_graph_output() for y in node.outputs[1:]):
        raise NoReference(f"the second output of {node.op_type} is read, which float64 does not have")
    if node.op_type == "Constant" and (array := constant(node.outputs[0])) is not None:
        return lambda arrays: [array]
    return in_float64(node, shape)
