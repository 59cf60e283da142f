"""One node in float64, without the runtime: what its VJP rules are held against.

Most operators run on onnx's reference evaluator. Not those where it rounds to float32 (Erf, Gelu, GroupNormalization),
is wrong (LRN counts images where it means channels; grouped ConvTranspose; GridSample at the border; Loop and
Scan), incomplete (LSTM, GRU, RNN, Pad by a negative amount, GatherElements by a smaller index) or slow (14 s for a
ConvTranspose of 64 channels of 113×113).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from onnx_gradcam.graph.flow import bodies_of, captured
from onnx_gradcam.graph.names import claim, names_in
from onnx_gradcam.verify import sampling, windows
from onnx_gradcam.verify.doubles import widen_node
from onnx_gradcam.verify.loops import repeated
from onnx_gradcam.verify.recurrent import RECURRENT_STEPS, recurrent
from onnx_gradcam.verify.resizing import resize
from onnx_gradcam.verify.windows import Attributes

OWN_DOMAINS = ("", "ai.onnx")
Arrays = Sequence[np.ndarray | None]
Function = Callable[[Arrays], list[np.ndarray]]


class NoReference(Exception):
    """The node cannot be evaluated in float64."""


def in_float64(node: ir.Node, shape: tuple[int, ...]) -> Function:
    """Return a node as a function of its inputs, floats as float64; ``shape``: that of its first output.

    The function raises ``NoReference`` for what the reference evaluator cannot run.
    """
    attributes = {a.name: a.value for a in node.attributes.values()}
    if node.op_type in RECURRENT_STEPS:
        return lambda arrays: recurrent(node.op_type, attributes, arrays)
    if node.op_type in ("Loop", "Scan"):
        return _named(repeated(node, [Erf]))
    own = OWN.get(node.op_type)
    if own is None or attributes.get("antialias", 0):
        return _on_reference(node)
    return lambda arrays: [own(shape, attributes, *(a for a in arrays if a is not None))]


def reference(node: ir.Node, shape: tuple[int, ...]) -> Function:
    """Return a node as ``in_float64`` does.

    Raises:
        NoReference: it is of a domain that the reference evaluator does not know.
    """
    if node.domain not in OWN_DOMAINS:
        raise NoReference(f"onnx's reference evaluator does not know {node.domain}::{node.op_type}")
    return in_float64(node, shape)


def widened(array: np.ndarray) -> np.ndarray:
    """Return floats as float64, everything else as it is."""
    return array if array.dtype.kind in "iubU" else array.astype(np.float64)


# --- operators that are written here ------------------------------------------------------------------------


def _erf(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x))


def _gelu(shape: tuple[int, ...], attributes: Attributes, x: np.ndarray) -> np.ndarray:
    if attributes.get("approximate") == "tanh":
        return np.asarray(x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(x / 2 * (1 + _erf(x / math.sqrt(2))))


def _lrn(shape: tuple[int, ...], attributes: Attributes, x: np.ndarray) -> np.ndarray:
    """x / (bias + α/size · Σ x²)^β, summed over ``size`` neighbouring channels, of an even number one more above."""
    size = attributes["size"]
    around = [(0, 0), ((size - 1) // 2, size // 2), *[(0, 0)] * (x.ndim - 2)]
    padded = np.pad(x * x, around)
    energy = sum(padded[:, k : k + x.shape[1]] for k in range(size))
    scale = attributes.get("bias", 1.0) + attributes.get("alpha", 1e-4) / size * energy
    return np.asarray(x / scale ** attributes.get("beta", 0.75))


def _group_normalization(
    shape: tuple[int, ...], attributes: Attributes, x: np.ndarray, scale: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """Normalise by groups; scale and bias are per group before opset 21, per channel since."""
    parts = x.reshape(len(x), attributes["num_groups"], -1)
    centred = parts - parts.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    standard = (centred / np.sqrt(variance + attributes.get("epsilon", 1e-5))).reshape(x.shape)
    each = [np.repeat(v, x.shape[1] // len(v)).reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias)]
    return np.asarray(standard * each[0] + each[1])


def _global_lp_pool(shape: tuple[int, ...], attributes: Attributes, x: np.ndarray) -> np.ndarray:
    p = attributes.get("p", 2)
    return np.asarray((np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p))


def _gather_elements(shape: tuple[int, ...], attributes: Attributes, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    axis = attributes.get("axis", 0) % x.ndim
    within = tuple(slice(None) if k == axis else slice(n) for k, n in enumerate(index.shape))
    return np.asarray(np.take_along_axis(x[within], index, axis))


def _pad(
    shape: tuple[int, ...], attributes: Attributes, x: np.ndarray, pads: np.ndarray, *more: np.ndarray
) -> np.ndarray:
    """Negative amounts take away before the others add; after them may come the fill (a float) and the axes."""
    fill = next((a.item() for a in more if a.dtype.kind == "f"), 0.0)
    axes = next((a for a in more if a.dtype.kind == "i"), np.arange(x.ndim))
    added, kept = [(0, 0)] * x.ndim, [slice(None)] * x.ndim
    for axis, before, after in zip(axes, *pads.reshape(2, -1), strict=True):
        added[axis] = (max(before, 0), max(after, 0))
        kept[axis] = slice(max(-before, 0), min(after, 0) or None)
    mode = attributes.get("mode", "constant")
    value = {"constant_values": fill} if mode == "constant" else {}
    return np.asarray(np.pad(x[tuple(kept)], added, mode=mode, **value))


OWN: dict[str, Callable[..., np.ndarray]] = {
    "AffineGrid": sampling.affine_grid,
    "AveragePool": windows.average_pool,
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "DeformConv": sampling.deform_conv,
    "Erf": lambda shape, attributes, x: _erf(x),
    "GatherElements": _gather_elements,
    "Gelu": _gelu,
    "GlobalLpPool": _global_lp_pool,
    "GridSample": sampling.grid_sample,
    "GroupNormalization": _group_normalization,
    "LRN": _lrn,
    "LpPool": windows.lp_pool,
    "MaxPool": windows.max_pool,
    "Pad": _pad,
    "MaxRoiPool": sampling.max_roi_pool,
    "MaxUnpool": sampling.max_unpool,
    "Resize": resize,
    "RoiAlign": sampling.roi_align,
}


# --- all others ---------------------------------------------------------------------------------------------


class Erf(OpRun):
    """For the operators that are defined as functions of an Erf."""

    op_domain = ""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (_erf(x),)


def _on_reference(node: ir.Node) -> Function:
    assert node.graph is not None
    outer = [v.name or "" for v in captured(node)]
    taken = set(outer).union(*(names_in(body) for body in bodies_of(node)))
    inputs = [claim(f"x{i}", taken) if v is not None else "" for i, v in enumerate(node.inputs)]
    given = [*inputs, *outer]
    made = [claim(f"y{i}", taken) if v.name else "" for i, v in enumerate(node.outputs)]
    alone = onnx.helper.make_node(node.op_type, inputs, made)
    alone.attribute.extend(ir.to_proto(node).attribute)
    widen_node(alone)
    graph = onnx.helper.make_graph([alone], "node", _untyped(given), _untyped(made))
    opset = onnx.helper.make_opsetid("", node.graph.opset_imports[""])
    evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[opset]), new_ops=[Erf])

    def run(arrays: Arrays) -> list[np.ndarray]:
        fed = {name: array for name, array in zip(given, arrays, strict=True) if array is not None}
        results = iter(evaluator.run(None, fed))
        return [np.asarray(next(results)) if name else np.empty(0) for name in made]

    return _named(run)


def _named(function: Function) -> Function:
    """Return ``function`` with what the reference evaluator raises as ``NoReference``."""

    def run(arrays: Arrays) -> list[np.ndarray]:
        try:
            return function(arrays)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise NoReference(f"onnx's reference evaluator cannot run it: {error}") from error

    return run


def _untyped(names: Sequence[str]) -> list[onnx.ValueInfoProto]:
    return [onnx.ValueInfoProto(name=name) for name in names if name]
