"""Bring a model into the one form that is differentiated, without changing what it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveInitializersFromInputsPass,
    RemoveUnusedNodesPass,
    TopologicalSortPass,
)

from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph.builder import static_dims
from onnx_gradcam.graph.lowering.registry import MICROSOFT
from onnx_gradcam.graph.names import KIND_KEY, claim, kind_in_metadata
from onnx_gradcam.graph.prepare.branches import inline_decided_ifs
from onnx_gradcam.graph.prepare.folding import fold_integers
from onnx_gradcam.graph.prepare.inference import infer, infer_anew
from onnx_gradcam.graph.prepare.sequences import resolve_sequences
from onnx_gradcam.graph.prepare.squashes import join_squashes
from onnx_gradcam.graph.prepare.unfuse import write_out_sums
from onnx_gradcam.graph.prepare.upgrade import raise_opset
from onnx_gradcam.graph.quantization import add_real_forms

NEWEST = onnx.defs.onnx_opset_version()  # the highest ai.onnx opset that the installed onnx knows


def prepare(model: ir.Model) -> ir.Model:
    """Return a copy of a model in the one form that is differentiated.

    Functions are inlined, nodes stand in topological order, constants are initializers and not inputs, the opset is at
    least 18, shapes are inferred, and quantized tensors can be read dequantized. Outputs that are no tensors are cut
    off. Value names are kept.

    Args:
        model: the model; it is left as it is.

    Raises:
        ModelError: onnx-gradcam wrote the model itself, its layout is blocked, or the installed onnx does not know
            its opset.
    """
    _refuse_own(model)
    _refuse_blocked(model)
    copy = _sorted_copy(model)
    InlinePass()(copy)
    _cut_post_processing(copy.graph)
    passes = [
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        RemoveInitializersFromInputsPass(),
        TopologicalSortPass(),
        RemoveUnusedNodesPass(),
    ]
    for step in passes:
        step(copy)
    _name_all(copy.graph)
    _declare_microsoft(copy.graph)
    _free_literal_dims(copy.graph)
    opset = copy.graph.opset_imports.setdefault("", copy.graph.opset_imports.pop("ai.onnx", 1))
    if opset > NEWEST:
        raise ModelError(
            f"the model needs ai.onnx opset {opset}; the installed onnx {onnx.__version__} knows up to {NEWEST}",
            hint=f"a newer onnx (pip install -U onnx), or export it again with an opset between 18 and {NEWEST}",
            opset=opset,
        )
    infer_anew(copy)
    if opset < 18:
        raise_opset(copy)
        infer(copy)
    _fold(copy)
    if resolve_sequences(copy.graph):
        RemoveUnusedNodesPass()(copy)
        infer(copy)
        _fold(copy)
    write_out_sums(copy.graph)
    join_squashes(copy.graph)
    RemoveUnusedNodesPass()(copy)
    for graph in copy.graphs():
        _name_all(graph)
    add_real_forms(copy.graph)
    return copy


def _fold(model: ir.Model) -> None:
    """Make constants of integers and of decisions that do not depend on the inputs, as long as there are any."""
    while fold_integers(model.graph) | inline_decided_ifs(model.graph):
        infer_anew(model)


def _sorted_copy(model: ir.Model) -> ir.Model:
    """Return a copy with its nodes in topological order: some converters append nodes out of order."""
    functions = [
        ir.Function(f.domain, f.name, f.overload, graph=_copy(f.graph), attributes=list(f.attributes.values()))
        for f in model.functions.values()
    ]
    copy = ir.Model(
        _copy(model.graph),
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        functions=functions,
        metadata_props=dict(model.metadata_props),
    )
    TopologicalSortPass()(copy)
    return copy


def _copy(graph: ir.Graph) -> ir.Graph:
    """Return a copy whose nodes stand in the same order, be it a topological one or not."""
    copy = graph.clone(allow_outer_scope_values=True)  # what a node reads before it is made still is the original's
    nodes, copies = (list(ir.traversal.RecursiveGraphIterator(g)) for g in (graph, copy))
    twins = {
        v: w for node, twin in zip(nodes, copies, strict=True) for v, w in zip(node.outputs, twin.outputs, strict=True)
    }
    for node in copies:
        for k, value in enumerate(node.inputs):
            if value in twins:
                node.replace_input_with(k, twins[value])
    return copy


def with_shapes(graph: ir.Graph, shapes: Mapping[str, Sequence[int]]) -> ir.Graph:
    """Return a prepared graph whose inputs have the sizes ``shapes``; the other shapes follow from them.

    It is the graph itself where its inputs have these sizes and every shape is known: nothing is left to infer. Else
    it is a copy.
    """
    if _has_sizes(graph, shapes):
        return graph
    model = ir.Model(graph.clone(), ir_version=10)
    for value in model.graph.inputs:
        value.shape = ir.Shape(shapes[value.name or ""])
    changed = True
    while changed:
        for value in [v for node in model.graph for v in node.outputs]:
            if value.shape is not None and not all(isinstance(d, int) for d in value.shape):
                value.shape = None
        infer(model)
        changed = fold_integers(model.graph) and not _are_known(model.graph)
    return model.graph


def _has_sizes(graph: ir.Graph, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Tell whether the inputs of a graph have these sizes, and all that its nodes make has a shape that is known."""
    return all(static_dims(v) == tuple(shapes[v.name or ""]) for v in graph.inputs) and _are_known(graph)


def _are_known(graph: ir.Graph) -> bool:
    """Tell whether the shapes of all that the nodes of a graph make are known: inference finds nothing more."""
    return all(static_dims(v) is not None for node in graph for v in node.outputs)


def _refuse_own(model: ir.Model) -> None:
    if kind := kind_in_metadata(model):
        raise ModelError(
            f"the model is a {kind} that onnx-gradcam wrote: it holds the gradients of another model already",
            where=f"metadata {KIND_KEY!r}",
            hint="the model that it was made from; `onnx-gradcam verify MODEL` checks the gradients that are in it",
            kind=kind,
        )


def _refuse_blocked(model: ir.Model) -> None:
    for node in model.graph:
        if node.domain == "com.microsoft.nchwc":
            raise ModelError(
                "the model was saved by onnxruntime with a blocked memory layout (com.microsoft.nchwc)",
                where=f"node {node.name!r}",
                hint="save it again at ORT_ENABLE_EXTENDED, or use the original model",
                node=node.name,
                by_design=True,
            )


def _cut_post_processing(graph: ir.Graph) -> None:
    """Replace outputs that are no tensors (ZipMap's sequence of maps) by the tensors that they are made of."""
    kept: list[ir.Value] = []
    for value in graph.outputs:
        node = value.producer()
        foreign = node is not None and node.domain not in ("", "ai.onnx", "com.microsoft")
        if node is not None and foreign and not isinstance(value.type, ir.TensorType):
            kept.extend(v for v in node.inputs if v is not None and v not in kept)
        elif value not in kept:
            kept.append(value)
    graph.outputs[:] = kept


def _name_all(graph: ir.Graph) -> None:
    """Name the nodes without a name after their first output: messages name nodes, and no two may have one name."""
    taken = {node.name for node in graph if node.name}
    for node in graph:
        if not node.name:
            node.name = claim(node.outputs[0].name or node.op_type, taken)


def _declare_microsoft(graph: ir.Graph) -> None:
    """Import the operators of onnxruntime where a model uses them without: it runs them, and shape inference refuses
    to."""
    if any(node.domain == MICROSOFT for node in ir.traversal.RecursiveGraphIterator(graph)):
        graph.opset_imports.setdefault(MICROSOFT, 1)


def _free_literal_dims(graph: ir.Graph) -> None:
    """Free the dimensions that are −1, which Paddle writes where they are not known before the run."""
    for value in [*graph.inputs, *graph.outputs, *(v for n in graph for v in n.outputs)]:
        if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
            dims = [None if isinstance(d, int) and d < 0 else d for d in value.shape]
            value.shape = ir.Shape(dims)
