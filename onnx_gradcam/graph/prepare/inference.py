"""Shape inference, with what onnx's own gets wrong or leaves out."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common.shape_inference import infer_shapes

from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph import lowering as lowerings  # noqa: F401 (importing the lowerings registers them)
from onnx_gradcam.graph.constants import TWINS, constant, forget
from onnx_gradcam.graph.lowering.registry import Unlowered
from onnx_gradcam.graph.lowering.table import is_lowered
from onnx_gradcam.graph.lowering.trial import trial
from onnx_gradcam.graph.operators import AxisEffect, operators
from onnx_gradcam.graph.prepare.carried import carry_ranks, contain
from onnx_gradcam.graph.prepare.pools import make_explicit
from onnx_gradcam.graph.prepare.quiet import forgiving_inference

# What they make has the shape of what they read first.
SAME_SHAPE = operators(AxisEffect.COPIED, AxisEffect.REQUANTIZED, AxisEffect.SQUASHED) | {"Sigmoid", "QLinearSigmoid"}

INFERRED = re.compile(r"unk__\d+")  # what shape inference calls a size that it does not know


def infer(model: ir.Model) -> None:
    """Infer shapes; forgiving first, because declared shapes of deployed models are often slightly wrong."""
    _name_batch(model.graph)
    for node in model.graph:
        for value in node.outputs:
            forget(value)
    declared = {v: v.shape for v in model.graph.outputs}
    with forgiving_inference():
        _infer_once(model)
        while _type_the_unknown(model.graph) | _correct(model.graph) | carry_ranks(model.graph):
            _infer_once(model)
    _forget_zeros(model.graph)
    for value in model.graph.outputs:
        value.shape = declared[value] if value.shape is None else value.shape
    _fill_from_behind(model.graph)


def _fill_from_behind(graph: ir.Graph) -> None:
    """Give to what a Softmax, a Cast and their like read the sizes that are known behind them, but for the batch.

    A Reshape to a computed shape leaves the number of classes open; a declared output tells it.
    """
    for node in reversed(list(graph)):
        source, value = node.inputs[0] if node.inputs else None, node.outputs[0] if node.outputs else None
        if node.op_type not in SAME_SHAPE or source is None or value is None or value.shape is None:
            continue
        if source.shape is not None and len(source.shape) != len(value.shape):
            continue
        before = [None] * len(value.shape) if source.shape is None else list(source.shape)
        sizes = [
            b if isinstance(b, int) or not k or not isinstance(d, int) else d
            for k, (b, d) in enumerate(zip(before, value.shape, strict=True))
        ]
        if sizes != before:
            source.shape = ir.Shape(sizes)


def infer_anew(model: ir.Model) -> None:
    """Infer shapes as if the model declared none but those of its inputs; what it declares fills the gaps that stay.

    Exporters that trace an example write its sizes, and tools that change a model leave the old ones.
    """
    values = [v for node in model.graph for v in node.outputs if v.shape is not None]
    declared = {v: v.shape for v in values}
    for value in values:
        value.shape = None
    infer(model)
    inputs = {d.value for v in model.graph.inputs for d in v.shape or () if not isinstance(d, int)}
    filled = [value for value, shape in declared.items() if _fill(value, _said(shape, inputs), inputs)]
    if filled:
        infer(model)


def _said(declared: ir.Shape | None, inputs: Set[str | None]) -> ir.Shape | None:
    """Return a declared shape without the names that an earlier inference gave to what it did not know.

    They say nothing that is not found again; beside new names of the same form they would make two sizes one.
    """
    if declared is None:
        return None
    dims = [d if isinstance(d, int) else d.value for d in declared]
    return ir.Shape([None if isinstance(d, str) and INFERRED.fullmatch(d) and d not in inputs else d for d in dims])


def _fill(value: ir.Value, declared: ir.Shape | None, inputs: Set[str | None]) -> bool:
    """Take what is declared where inference finds nothing; tell whether that is anything.

    A dimension that has the name of an input's is known: it is the same for every run. No dimensions at all are no
    knowledge: converters write () of what they do not know.
    """
    found = value.shape
    if not declared or (found is not None and len(found) != len(declared)):
        return False
    pairs = zip(list(found) if found is not None else [ir.SymbolicDim(None)] * len(declared), declared, strict=True)
    dims = [d if _is_known(d, inputs) or not (isinstance(old, int) or old.value) else old for d, old in pairs]
    if found is not None and dims == list(found):
        return False
    value.shape = ir.Shape(dims)
    return any(isinstance(d, int) or d.value for d in dims)


def _is_known(dim: int | ir.SymbolicDim, inputs: Set[str | None]) -> bool:
    return isinstance(dim, int) or dim.value in inputs - {None}


def _infer_once(model: ir.Model) -> None:
    infer_shapes(model, check_type=False, strict_mode=False, data_prop=True)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        contain(node)


def _correct(graph: ir.Graph) -> bool:
    """Forget the shapes of all that follows a node which has another shape than was found or declared."""
    pools = [node for node in ir.traversal.RecursiveGraphIterator(graph) if make_explicit(node)]
    spectra = {node: shape for node in graph if (shape := _spectrum_shape(node)) is not None}
    reached = {v for node in [*pools, *spectra] for v in node.outputs}
    for node in graph:
        if reached.intersection(node.inputs):
            reached.update(node.outputs)
    for value in reached:
        value.shape = None
    for node, shape in spectra.items():
        node.outputs[0].shape = shape
    return bool(pools or spectra)


def _forget_zeros(graph: ir.Graph) -> None:
    """Forget lengths of 0 that onnx infers where an Attention multiplies or adds lengths that are not known."""
    reached: set[ir.Value] = set()
    for node in graph:
        if node.op_type == "Attention" or reached.intersection(node.inputs):
            for value in node.outputs:
                if value.shape is not None and 0 in value.shape:
                    value.shape = ir.Shape([None if d == 0 else d for d in value.shape])
                    reached.add(value)


def _spectrum_shape(node: ir.Node) -> ir.Shape | None:
    """Return the shape of an STFT where onnx gives none, or that of the whole spectrum for a half; None where it is
    right."""
    if node.op_type != "STFT" or node.domain not in ("", "ai.onnx") or node.inputs[0] is None:
        return None
    signal, _, window, length = [*node.inputs, None, None][:4]
    known, found = constant(length), node.outputs[0].shape
    size: Any = window.shape[0] if window is not None and window.shape is not None else None
    size = size if known is None else int(known)
    half = node.attributes.get_int("onesided", 1)
    places = size // 2 + 1 if half and isinstance(size, int) else None if half else size
    if found is not None and len(found) == 4 and found[2] == places:
        return None
    batch = None if signal is None or signal.shape is None else signal.shape[0]
    return ir.Shape([batch, found[1] if found is not None and len(found) == 4 else None, places, 2])


def _type_the_unknown(graph: ir.Graph) -> bool:
    """Give types and shapes to what onnx infers nothing of."""
    changed = False
    for node in graph:
        unknown = [v for v in node.outputs if v.name and v.shape is None]
        for value, like in zip(node.outputs, _returned(node) if unknown else (), strict=False):
            if value in unknown and like is not None and like.shape is not None:
                value.type, value.shape = like.type, like.shape
                changed = True
    return changed


def _returned(node: ir.Node) -> Sequence[ir.Value | None]:
    """Return what is like the outputs of ``node``: its input, for GroupNormalization and com.microsoft's QuantizeLinear
    (but for the dtype); what the standard operators return that compute the same."""
    if node.op_type == "GroupNormalization":
        return node.inputs[:1]
    if (node.domain, node.op_type) in TWINS and len(node.inputs) == 3:
        x, scale, zero_point = node.inputs
        typed = zero_point if node.op_type == "QuantizeLinear" else scale
        return [] if x is None or typed is None else [ir.val("", type=typed.type, shape=x.shape)]
    try:
        return trial(node) if is_lowered(node) else ()
    except (Unlowered, ModelError):
        return ()  # the walk names the node, if it comes by


def _name_batch(graph: ir.Graph) -> None:
    """Name a first dimension of the inputs that has no name, so that shape inference can follow it."""
    for value in graph.inputs:
        if value.shape is not None:
            dims = list(value.shape)
            for axis, dim in enumerate(dims):
                if not isinstance(dim, int) and not dim.value:
                    dims[axis] = ir.SymbolicDim("batch" if axis == 0 else f"{value.name}_{axis}")
            value.shape = ir.Shape(dims)
