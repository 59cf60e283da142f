"""Which values are on the grid of a convolution, and which of their axes are what."""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set

import onnx_ir as ir

from onnx_gradcam.graph.builder import ints_of
from onnx_gradcam.graph.flow import results

CHANNELS_LAST = frozenset(("NhwcConv", "NhwcFusedConv", "NhwcMaxPool"))
CONVOLUTIONS = frozenset(
    "Conv ConvTranspose ConvTransposeWithDynamicPads QLinearConv ConvInteger FusedConv NhwcConv NhwcFusedConv "
    "DeformConv".split()
)
# Operators that keep every spatial position where it is (pointwise over the grid).
KEEPING = frozenset(
    "Abs Add BatchNormalization Cast Celu Clip Concat DequantizeLinear Div Dropout Elu Erf Exp Gelu "
    "GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LRN LayerNormalization LeakyRelu Log "
    "LpNormalization Max Min Mish Mul Neg PRelu Pow QuantizeLinear Reciprocal Relu Selu Sigmoid Softplus Softsign "
    "Split Sqrt Sub Sum Swish Tanh ThresholdedRelu Where DynamicQuantizeLinear QLinearAdd QLinearMul QLinearConcat "
    "QLinearLeakyRelu QLinearSigmoid QLinearWhere BiasAdd BiasGelu FastGelu GroupNorm QuickGelu SkipGroupNorm "
    "SkipLayerNormalization".split()
)
POOLS = frozenset(
    "MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool QLinearAveragePool "
    "QLinearGlobalAveragePool NhwcMaxPool".split()
)

# Operators that leave every axis where it is, whatever becomes of its length.
IN_AXES = KEEPING | POOLS | frozenset("CastLike Gather Mean Mod Pad QLinearMul Resize Round Slice Upsample".split())


def input_axes(nodes: Sequence[ir.Node], value: ir.Value) -> tuple[int, ...] | None:
    """For each of (N, C, *space) the axis of the graph input ``value`` that holds it, by the first convolution.

    None where only reshapes, or nothing, lead to one.
    """
    if value.shape is None:
        return None
    held: dict[ir.Value, tuple[int | None, ...]] = {value: tuple(range(len(value.shape)))}  # axis → that of the input
    for node in nodes:
        source = next((v for v in node.inputs if v in held), None)
        if source is None:
            continue
        axes = held[source]
        if node.op_type in CONVOLUTIONS:
            found = [axes[k] for k in convolved_axes(node, len(axes))]
            return tuple(k for k in found if k is not None)
        if node.op_type == "Transpose":
            order = node.attributes.get_ints("perm", None) or list(reversed(range(len(axes))))
            held[node.outputs[0]] = tuple(axes[k] for k in order)
        elif node.op_type == "Unsqueeze" and (added := _axes_of(node, node.outputs[0])) is not None:
            old = iter(axes)
            held[node.outputs[0]] = tuple(None if k in added else next(old) for k in range(len(axes) + len(added)))
        elif node.op_type in IN_AXES:
            held.update({v: axes for v in node.outputs if v.shape is not None and len(v.shape) == len(axes)})
    return None


def grids(
    nodes: Sequence[ir.Node], begin: Set[str] = CONVOLUTIONS, without: Collection[ir.Node] = ()
) -> dict[ir.Value, tuple[int, ...]]:
    """The values on a convolution's grid, with their axes in the order (N, C, *space).

    An operator of ``begin`` begins a grid, if it is not one of ``without``; operators of ``KEEPING``, Transpose and
    pointwise MatMul carry it on, and so do those between a Reshape and the one that undoes it (a group norm as
    exporters write it).
    """
    found: dict[ir.Value, tuple[int, ...]] = {}
    reshaped: dict[ir.Value, ir.Value] = {}  # → the value on the grid that holds the same elements in the same order
    for node in nodes:
        value = node.outputs[0]
        if value.shape is None:
            continue
        source = node.inputs[0] if node.inputs else None
        if node.op_type in begin and node not in without:
            found[value] = convolved_axes(node, len(value.shape))
        elif node.op_type == "Transpose" and source in found:
            order = node.attributes.get_ints("perm", None) or list(reversed(range(len(value.shape))))
            found[value] = tuple(order.index(k) for k in found[source])
        elif node.op_type == "Squeeze" and source in found and (gone := _axes_of(node, source)) == _lifted(source):
            kept = [k for k in range(len(found[source])) if k not in (gone or ())]
            found[value] = tuple(kept.index(k) for k in found[source] if k in kept)
        elif node.op_type in KEEPING or _is_pointwise_matmul(node, found):
            same = [v for v in node.inputs if v in found and v is not None and _keeps(node, v, found[v])]
            if same:
                found.update(dict.fromkeys(results(node), found[same[0]]))
        origin = reshaped.get(source, source) if source is not None else None
        if value in found or origin not in found or origin is None:
            continue
        if node.op_type == "Reshape" and _same_shape(value, origin):
            found[value] = found[origin]
        elif node.op_type == "Reshape" or (source in reshaped and node.op_type in KEEPING):
            reshaped[value] = origin
    return found


def convolved_axes(node: ir.Node, rank: int) -> tuple[int, ...]:
    """(N, C, *space) among the axes of what a convolution reads and makes."""
    last = node.op_type in CHANNELS_LAST or node.attributes.get_int("channels_last", 0) == 1
    return (0, rank - 1, *range(1, rank - 1)) if last else tuple(range(rank))


def _axes_of(node: ir.Node, value: ir.Value) -> set[int] | None:
    """The axes of ``value`` that a Squeeze takes away or an Unsqueeze adds, where they are constant."""
    axes = ints_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if axes is None or value.shape is None else {k % len(value.shape) for k in axes}


def _lifted(value: ir.Value) -> set[int]:
    """The axes that an Unsqueeze added for the convolution that made ``value``, as exporters do for one of 1-D."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.op_type in CONVOLUTIONS else None
    before = source.producer() if source is not None else None
    if source is None or before is None or before.op_type != "Unsqueeze":
        return set()
    return _axes_of(before, source) or set()


def _is_pointwise_matmul(node: ir.Node, found: dict[ir.Value, tuple[int, ...]]) -> bool:
    """x · W with channels last and a plain weight matrix: a 1×1 convolution."""
    if node.op_type != "MatMul" or node.inputs[0] not in found or node.inputs[0] is None:
        return False
    weight = node.inputs[1]
    axes = found[node.inputs[0]]
    return weight is not None and weight.shape is not None and len(weight.shape) == 2 and axes[1] == len(axes) - 1


def _keeps(node: ir.Node, source: ir.Value, axes: tuple[int, ...]) -> bool:
    """Whether what ``node`` makes has the grid of ``source``: a gate is broadcast to it, a Concat may enlarge it."""
    value = node.outputs[0]
    assert source.shape is not None
    if value.shape is None or len(source.shape) != len(value.shape):
        return False
    if node.op_type in ("Concat", "QLinearConcat") and node.attributes["axis"].as_int() % len(value.shape) in axes[2:]:
        return False
    return all(_may_equal(source.shape[k], value.shape[k]) for k in axes[2:])


def _same_shape(a: ir.Value, b: ir.Value) -> bool:
    assert a.shape is not None
    assert b.shape is not None
    return len(a.shape) == len(b.shape) and all(map(_may_equal, a.shape, b.shape))


def _may_equal(a: int | ir.SymbolicDim, b: int | ir.SymbolicDim) -> bool:
    """Whether two sizes are equal; one that is not known before the run equals all but 1."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return a != 1 and b != 1
