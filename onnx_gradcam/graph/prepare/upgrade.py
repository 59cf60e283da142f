"""Raise a model of an older ai.onnx opset to 18, without changing what it computes."""

from __future__ import annotations

import contextlib

import onnx_ir as ir
from onnx_ir.passes.common.shape_inference import infer_shapes

from onnx_gradcam.graph.names import names_in
from onnx_gradcam.graph.prepare.adapters import ADAPTERS
from onnx_gradcam.graph.prepare.quiet import forgiving_inference
from onnx_gradcam.graph.prepare.site import OPSET, Site

IR_VERSION = 8  # that of opset 18's time; from 4 on, initializers need not be inputs


def raise_opset(model: ir.Model) -> None:
    """Raise ``model`` to ai.onnx opset 18 in place; one of opset 18 or newer stays as it is.

    Graph inputs, outputs and all value names stay; new names begin with ``opset18/``. Nodes of other domains,
    and operators that ONNX does not know, are left as they are. Model-local functions must have been inlined.
    Raises ``ModelError``, which names the node, for a form that opset 18 cannot express.
    """
    opset = model.graph.opset_imports.get("", OPSET)
    if opset >= OPSET:
        return
    graphs = list(model.graphs())
    values = [v for graph in graphs for node in graph for v in node.outputs]
    unknown = [v for v in values if v.shape is None]
    if unknown or any(v.dtype is None for v in values):
        _infer(model)
    taken = names_in(model.graph)
    for graph in graphs:
        for node in list(graph):
            if node.domain in ("", "ai.onnx"):
                _raise_node(Site(node, opset, taken))
        graph.opset_imports[""] = OPSET
    for value in unknown:
        value.shape = None  # it served the adapters; with the shapes that are found next, more of it will be known
    model.ir_version = max(model.ir_version or 0, IR_VERSION)


def _raise_node(site: Site) -> None:
    if site.opset < 6:
        site.attr("consumed_inputs", None)  # a hint for in-place runtimes, on many operators of the time
    until, adapter = ADAPTERS.get(site.node.op_type, (0, None))
    if adapter is not None and site.opset < until:
        adapter(site)


def _infer(model: ir.Model) -> None:
    """Find the dtypes and ranks that some adapters ask for; what stays unknown they do without, or refuse.

    Of a Reshape to a computed shape the length of that shape tells the rank.
    """
    for node in model.graph:
        if node.op_type == "Reshape" and node.outputs[0].shape is None:
            node.outputs[0].shape = _of_length(node.inputs[-1])
    # An error of map types (ZipMap), which onnx_ir cannot hold, leaves the shapes as they are.
    with forgiving_inference(), contextlib.suppress(ir.serde.SerdeError):
        infer_shapes(model, check_type=False, strict_mode=False, data_prop=True)


def _of_length(shape: ir.Value | None) -> ir.Shape | None:
    """Return as many open dimensions as a computed shape has numbers; None where that is not known."""
    count = shape.shape[0] if shape is not None and shape.shape is not None and len(shape.shape) == 1 else None
    return ir.Shape([None] * count) if isinstance(count, int) else None
