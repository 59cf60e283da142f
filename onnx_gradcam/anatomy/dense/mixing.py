"""How far a value lies before the cells that are explained: by how many spatial kernels on the way."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from onnx_gradcam.anatomy.dense.heads import PICKING
from onnx_gradcam.anatomy.dense.scales import scales
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
    stages, axes = mixing_stages(nodes, sinks, of_image), len(layer.dims) - 2
    last = [n for n in nodes if n.inputs and n.inputs[0] is not None and any(stages.get(v) == 0 for v in n.outputs)]
    kernels = {n: _reach(n) for n in last if stages.get(layer.value, 0) and _stages(n, of_image) == 1}
    resizes = {n: [1 + INTERPOLATED.get(n.attributes.get_string("mode", ""), 0)] * axes for n in last if _resizes(n)}
    coarseness = _coarser_by(nodes, layer, [*kernels, *resizes])

    def in_cells(reach: Mapping[ir.Node, list[int]], axis: int) -> int:
        """Return how many places of the layer the longest reach along an axis covers, beyond the first."""
        return max((math.ceil((own[axis] - 1) / coarseness.get(node, 1.0)) for node, own in reach.items()), default=0)

    return [1 + in_cells(kernels, axis) + in_cells(resizes, axis) for axis in range(axes)]


def _coarser_by(nodes: Sequence[ir.Node], layer: Layer, readers: Sequence[ir.Node]) -> dict[ir.Node, float]:
    """Return by how much the cells of a layer are longer than those that each of ``readers`` reads."""
    read = {node: v for node in readers if (v := node.inputs[0]) is not None and v.producer() is not None}
    values = {v: list(v.shape[2:]) for v in read.values() if v.shape is not None}
    assert layer.value.shape is not None
    coarse = scales(nodes, {**values, layer.value: [layer.value.shape[k] for k in layer.axes[2:]]})
    axes = len(layer.dims) - 2
    return {n: (coarse[layer.value] / coarse[v]) ** (1 / axes) if v in coarse else 1.0 for n, v in read.items()}


def _reach(node: ir.Node) -> list[int]:
    """Return over how many places a convolution or pooling reaches, with the gaps of its dilation."""
    kernel = _kernel(node)
    dilations = list(node.attributes.get_ints("dilations", ())) or [1] * len(kernel)
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]


def _resizes(node: ir.Node) -> bool:
    """Tell whether a node interpolates between places: a mean over all of them is one, and has none beside it."""
    source = node.inputs[0]
    is_one = source is not None and source.shape is not None and all(d == 1 for d in source.shape[2:])
    return node.op_type in ("Resize", "Upsample") and not is_one


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
