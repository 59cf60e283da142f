"""The slope of the score along a direction, carried forwards through the network node by node in float64.

    ẏ = (f(x + hẋ) − f(x − hẋ)) / 2h   at each node f, from the moved value to the score

Each f is what its VJP rules are held against (``verify.float64``): it needs neither the runtime nor a rule. x is what
the runtime gave, so no step crosses a kink of another node, and rounding to float32 adds up nowhere. Which nodes are
on the way is read from the graph, not from the rules: a path that the gradient lacks is missed by it alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.engine.fidelity import relative_difference
from onnx_gradcam.engine.program import forward_only
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.graph.flow import is_float, operands
from onnx_gradcam.verify.alone import array_of
from onnx_gradcam.verify.float64 import OWN_DOMAINS, NoReference, reference, widened
from onnx_gradcam.verify.points import finite_difference, scale_of
from onnx_gradcam.verify.precise import Float64Graph
from onnx_gradcam.verify.probe import Probe, moved_nodes
from onnx_gradcam.verify.surrogate import NoSurrogate, surrogate

STEP = 1e-7  # length of the longest move of an element, as a share of the input's scale
AGREEMENT = 1e-3  # between a node in float64 and on the runtime, as in ``verify.nodes``
SAMPLE = 10_000  # elements of a value that tell its size
SECONDS = 30.0  # that one direction may take

Tangents = dict[str, np.ndarray]


def slope_along(at: Probe, base: np.ndarray, v: np.ndarray, exact: bool = False) -> float:
    """Return d/dt of the score, summed over the batch, at base + t·v.

    Args:
        at: the network.
        base: by how much the value is moved before.
        v: the direction.
        exact: whether the values on the way are computed in float64, too; else they are the runtime's.

    Raises:
        NoReference: a node on the way cannot be evaluated in float64, or the network is too large.
    """
    model = _in_standard_operators(at.model)
    nodes = moved_nodes(model.graph, at.delta)
    known = _values(model, nodes, {**at.feeds, at.delta: base}, at.options, exact)
    tangents: Tangents = {at.delta: v}
    end = time.monotonic() + SECONDS
    for node in nodes:
        with np.errstate(all="ignore"):  # what is infinite or no number is so on the runtime, too: both are compared
            _carry(node, known, tangents)
        if time.monotonic() > end:
            raise NoReference(f"float64 takes longer than {SECONDS:g} s for one direction")
    score = tangents.get(at.outputs[0])
    return 0.0 if score is None else float(np.sum(score))


def gradient_in_float64(at: Probe, base: np.ndarray) -> np.ndarray:
    """Return the gradient with the value moved by ``base``, as its nodes give it without rounding to float32.

    Raises:
        NoReference: a node cannot be evaluated in float64, or the network is too large.
    """
    output, model = at.outputs[1], _in_standard_operators(at.gradient_model)
    feeds = {**at.feeds, at.delta: base}
    return Float64Graph(model, feeds, at.options).run([output], feeds)[output]


def _in_standard_operators(model: ir.Model) -> ir.Model:
    """Return a model without fused operators, which have no reference, where it has any."""
    if all(node.domain in OWN_DOMAINS for node in model.graph):
        return model
    try:
        return surrogate(model)
    except NoSurrogate as reason:
        raise NoReference(str(reason)) from reason


def _values(
    model: ir.Model, nodes: Sequence[ir.Node], feeds: Mapping[str, np.ndarray], options: Options, exact: bool
) -> dict[str, np.ndarray]:
    """Return what the nodes read and give, from one run."""
    given = [v for node in nodes for v in operands(node) if v is not None and v.const_value is None]
    made = [v for node in nodes for v in node.outputs if v.name]
    tensors = [v.name or "" for v in (*given, *made) if isinstance(v.type, ir.TensorType)]
    names = [name for name in dict.fromkeys(tensors) if name not in feeds]
    part = forward_only(model, names)
    runnable = Float64Graph(part, feeds, options) if exact else Session(part, options)
    return {**feeds, **runnable.run(names, {v.name or "": feeds[v.name or ""] for v in part.graph.inputs})}


def _carry(node: ir.Node, known: Mapping[str, np.ndarray], tangents: Tangents) -> None:
    """Add the tangents of what ``node`` gives to ``tangents``; one that is missing is zero."""
    read = operands(node)
    moves = {i: tangents[v.name or ""] for i, v in enumerate(read) if v is not None and v.name in tangents}
    if not any(np.any(move) for move in moves.values()):
        return
    floats = [(k, y.name or "") for k, y in enumerate(node.outputs) if y.name and is_float(y)]
    if not floats:
        return
    if any(name not in known for _, name in floats):
        raise NoReference(f"{node.op_type} {node.name!r} gives a sequence, whose parts are not compared")
    arrays = [None if v is None else widened(_array(v, known)) for v in read]
    h = min(STEP * _size(arrays[i], move) / largest for i, move in moves.items() if (largest := np.abs(move).max()) > 0)
    function = reference(node, known[floats[0][1]].shape)
    plus, minus = (
        function([a if i not in moves or a is None else a + sign * h * moves[i] for i, a in enumerate(arrays)])
        for sign in (1, -1)
    )
    for k, name in floats:
        if k >= len(plus):
            raise NoReference(f"{node.op_type} {node.name!r} has one output in float64")
        apart = relative_difference(known[name], (plus[k] + minus[k]) / 2)
        if not apart <= AGREEMENT:
            raise NoReference(f"{node.op_type} {node.name!r} in float64 differs from the runtime's by {apart:.1e}")
        if _is_rounded(plus[k], minus[k]):
            raise NoReference(f"the reference of {node.op_type} {node.name!r} rounds to float32")
        tangents[name] = finite_difference(plus[k], minus[k]) / (2 * h)


def _is_rounded(plus: np.ndarray, minus: np.ndarray) -> bool:
    """Tell whether all that moves are numbers of float32, which has no room for a step."""
    moving = plus[plus != minus]
    return bool(moving.size) and bool(np.all(moving == moving.astype(np.float32)))


def _array(value: ir.Value, known: Mapping[str, np.ndarray]) -> np.ndarray:
    name = value.name or ""
    return known[name] if name in known else array_of(value, known)


def _size(a: np.ndarray | None, move: np.ndarray) -> float:
    """Return the median magnitude of what moves, of a sample: numbers that stand for −∞ are no measure."""
    if a is None:
        return 1.0
    moving = np.abs(a[move != 0])
    return float(np.median(moving[:: max(1, moving.size // SAMPLE)])) or scale_of(moving)
