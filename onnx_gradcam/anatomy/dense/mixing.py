"""How far a value lies before the cells that are explained: by how many spatial kernels on the way."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir

from onnx_gradcam.anatomy.dense.heads import PICKING
from onnx_gradcam.anatomy.layer import Layer
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.flow import carriers
from onnx_gradcam.graph.operators import (
    CONVOLUTIONS,
    IN_PLACE,
    POOLINGS,
    PRODUCTS,
    QUANTIZED_WEIGHT,
    AxisEffect,
    operators,
)

# Operators by which a cell of a map depends on the cells about it, and on no others.
LOCAL = CONVOLUTIONS | IN_PLACE | PICKING | {"Resize", "Upsample", "DepthToSpace", "SpaceToDepth", "Softmax"}
SUMMED = operators(AxisEffect.REDUCED)
INTERPOLATED = {"linear": 1, "cubic": 3}
"""The mode of a resize → how many more places an interpolated value depends on along each axis."""
BEYOND_THE_LAST = 2
"""The stages behind a value whose map covers more than the last kernel before a cell."""


def mixing_stages(nodes: Sequence[ir.Node], sinks: Collection[Value], of_image: Collection[Value]) -> dict[Value, int]:
    """Return how many mixing stages lie between each value and ``sinks``, on the way with most of them.

    A stage is a convolution or pooling with a spatial kernel above 1. What mixes all places (attention, a recurrent
    layer) counts for ``BEYOND_THE_LAST``; a mean over all places for none, since it says nothing of any. ``of_image``
    are the values that depend on the image: a product of one of them with weights, or with a text, mixes no places.
    """
    stages = dict.fromkeys(sinks, 0)
    for node in reversed(nodes):
        behind = [stages[v] for v in node.outputs if v in stages]
        if behind:
            count = max(behind) + _stages(node, of_image)
            stages.update({v: max(count, stages.get(v, 0)) for _, v in carriers(node)})
    return stages


def last_kernel(
    nodes: Sequence[ir.Node], levels: Sequence[Collection[Value]], of_image: Collection[Value], layer: Layer
) -> tuple[int, ...]:
    """Return over how many places of a layer the last mixing stage before a cell reaches, along each spatial axis.

    Of several levels and of parallel stages it is the largest. ``levels``: for each the values that it is made of;
    ``nodes`` and ``of_image``: see ``mixing_stages``.
    """
    own = levels if layer.level is None else levels[layer.level : layer.level + 1]
    each = [_kernel_before(nodes, sinks, of_image, layer) for sinks in own]
    return tuple(max(along) for along in zip(*each, strict=True))


def _kernel_before(
    nodes: Sequence[ir.Node], sinks: Collection[Value], of_image: Collection[Value], layer: Layer
) -> list[int]:
    """Return the same for one level: what is interpolated reaches further; 1 where no stage lies behind the layer."""
    stages = mixing_stages(nodes, sinks, of_image)
    last = [n for n in nodes if any(stages.get(v) == 0 for v in n.outputs)]
    reach = [1] * (len(layer.dims) - 2)
    for node in last if stages.get(layer.value, 0) else ():
        if _stages(node, of_image) == 1:
            kernel = _kernel(node)
            dilations = list(node.attributes.get_ints("dilations", ())) or [1] * len(kernel)
            along = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
            reach = [max(pair) for pair in zip(reach, along, strict=False)]
    modes = [node.attributes.get_string("mode", "") for node in last if node.op_type in ("Resize", "Upsample")]
    further = max((INTERPOLATED.get(mode, 0) for mode in modes), default=0)
    return [k + further for k in reach]


def _stages(node: ir.Node, of_image: Collection[Value]) -> int:
    if node.op_type in CONVOLUTIONS | POOLINGS:
        return int(any(k > 1 for k in _kernel(node)) and not _covers_all(node))
    is_local = node.op_type in LOCAL | SUMMED or (node.op_type in PRODUCTS and _weight(node) not in of_image)
    return 0 if is_local else BEYOND_THE_LAST


def _covers_all(node: ir.Node) -> bool:
    """Tell whether a pooling has one window that holds all places."""
    shape = node.outputs[0].shape
    places = () if shape is None else shape[2:]
    return node.op_type in POOLINGS and all(d == 1 for d in places)


def _weight(node: ir.Node) -> Value | None:
    """Return what stands in the place of the weights of a product."""
    return node.inputs[QUANTIZED_WEIGHT.get(node.op_type, 1)]


def _kernel(node: ir.Node) -> list[int]:
    """Return over how many places a convolution or pooling reaches along each axis; [] for one over all of them.

    A transposed convolution whose kernel is no longer than its stride reaches over one.
    """
    kernel = list(node.attributes.get_ints("kernel_shape", ())) or _weight_extents(node)
    if "Transpose" in node.op_type:
        strides = list(node.attributes.get_ints("strides", ())) or [1] * len(kernel)
        return [1 if k <= s else k for k, s in zip(kernel, strides, strict=True)]
    return kernel


def _weight_extents(node: ir.Node) -> list[int]:
    weight = node.inputs[3 if node.op_type == "QLinearConv" else 1] if node.op_type in CONVOLUTIONS else None
    if weight is None or weight.shape is None:
        return []
    return [d for d in weight.shape[2:] if isinstance(d, int)]
