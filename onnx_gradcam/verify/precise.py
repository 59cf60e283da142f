"""A whole graph in float64, node by node without the runtime: it tells rounding to float32 from a wrong gradient."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.engine.program import forward_only
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import operands
from onnx_gradcam.verify.float64 import OWN, Function, NoReference, reference, widened

SECONDS = 30.0  # that one run of a network may take


class Float64Graph:
    """A graph that is run in float64, without the runtime."""

    def __init__(self, model: ir.Model, feeds: Mapping[str, np.ndarray], options: Options) -> None:
        """Prepare every node; one run in float32, with ``feeds``, tells the shapes.

        Raises:
            NoReference: a node cannot be evaluated in float64.
        """
        self._nodes = list(model.graph)
        self._constants = {
            v.name or "": widened(v.const_value.numpy())
            for v in model.graph.initializers.values()
            if v.const_value is not None
        }
        results = [y.name or "" for node in self._nodes for y in node.outputs if _is_tensor(y)]
        session = Session(forward_only(model, results), options)
        found = session.run(results, {name: feeds[name] for name in session.inputs})
        shapes = {name: array.shape for name, array in found.items()}
        self._functions = [_function(node, shapes) for node in self._nodes]

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the values ``names``, floats as float64.

        Raises:
            NoReference: a node cannot be evaluated, or all together take longer than ``SECONDS``.
        """
        known = self._constants | {name: widened(array) for name, array in feeds.items()}
        end = time.monotonic() + SECONDS
        for node, function in zip(self._nodes, self._functions, strict=True):
            arrays = function([None if v is None else known[v.name or ""] for v in operands(node)])
            for value, array in zip(node.outputs, arrays, strict=False):
                known[value.name or ""] = widened(array)
            if time.monotonic() > end:
                raise NoReference(f"one run in float64 takes longer than {SECONDS:g} s")
        return {name: known[name] for name in names}


def _is_tensor(value: ir.Value) -> bool:
    return bool(value.name) and isinstance(value.type, ir.TensorType)


def _function(node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> Function:
    """Return a node as a function of its operands."""
    shape = shapes.get(node.outputs[0].name or "")
    if shape is None:
        raise NoReference(f"{node.op_type} {node.name!r} gives no tensor")
    if node.op_type in OWN and any(y.uses() or y.is_graph_output() for y in node.outputs[1:]):
        raise NoReference(f"the second output of {node.op_type} is read, which float64 does not have")
    if node.op_type == "Constant" and (array := constant(node.outputs[0])) is not None:
        return lambda arrays: [array]
    return reference(node, shape)
