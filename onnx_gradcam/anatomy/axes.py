"""One table of how output axes come from input axes, operator by operator; all finders share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto

import onnx_ir as ir

from onnx_gradcam.graph.builder import ints_of, rank

Dim = int | ir.SymbolicDim


class AxisEffect(Enum):
    """The effect of an operator on the axes and the elements of its first input."""

    COPIED = auto()  # every element stays where it is, as it is
    REQUANTIZED = auto()  # the same, rounded to the integers that stand for real numbers, or back
    POINTWISE = auto()  # an element is computed from the one in its place and, at most, the statistics of others
    SQUASHED = auto()  # the elements along one axis are weighed against each other, each in its place
    JOINED = auto()  # one axis grows: inputs lie behind one another
    CUT = auto()  # one axis shrinks: outputs lie behind one another
    SELECTED = auto()  # some elements along an axis are taken
    RESIZED = auto()  # every axis stays, with another number of places
    PADDED = auto()  # every axis stays, with places added at its ends
    POOLED = auto()  # windows along the spatial axes, each channel by itself
    CONVOLVED = auto()  # windows along the spatial axes, and new channels
    REGROUPED = auto()  # channels become places, or places channels
    TRANSPOSED = auto()  # the axes change their order
    RESHAPED = auto()  # axes are joined or taken apart, the elements stay in their order
    REPEATED = auto()  # elements are copied along axes
    PICKED = auto()  # elements are taken from anywhere
    CONTRACTED = auto()  # the last axis gives way to new features: a linear layer
    MIXED = auto()  # every element depends on elements in other places


# Each operator stands here once.
OPERATORS: Mapping[AxisEffect, frozenset[str]] = {
    effect: frozenset(op_types.split())
    for effect, op_types in {
        AxisEffect.COPIED: "Cast Dropout Identity",
        AxisEffect.REQUANTIZED: "DequantizeLinear QuantizeLinear",
        AxisEffect.POINTWISE: "Abs Add BatchNormalization BiasAdd BiasGelu CastLike Celu Clip Div "
        "DynamicQuantizeLinear Elu Erf Exp FastGelu Gelu GroupNorm GroupNormalization HardSigmoid HardSwish "
        "InstanceNormalization LRN LayerNormalization LeakyRelu Log LpNormalization Max Mean Min Mish Mod Mul Neg "
        "PRelu Pow QLinearAdd QLinearLeakyRelu QLinearMul QLinearSigmoid QLinearWhere QuickGelu RMSNormalization "
        "Reciprocal Relu Round Selu Sigmoid SimplifiedLayerNormalization SkipGroupNorm SkipLayerNormalization Softplus "
        "Softsign Sqrt Sub Sum Swish Tanh ThresholdedRelu Where",
        AxisEffect.SQUASHED: "LogSoftmax QLinearSoftmax Softmax",
        AxisEffect.JOINED: "Concat QLinearConcat",
        AxisEffect.CUT: "Split",
        AxisEffect.SELECTED: "Gather Slice",
        AxisEffect.RESIZED: "Resize Upsample",
        AxisEffect.PADDED: "Pad",
        AxisEffect.POOLED: "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool NhwcMaxPool "
        "QLinearAveragePool QLinearGlobalAveragePool",
        AxisEffect.CONVOLVED: "Conv ConvInteger ConvTranspose ConvTransposeWithDynamicPads DeformConv FusedConv "
        "NhwcConv NhwcFusedConv QLinearConv",
        AxisEffect.REGROUPED: "DepthToSpace SpaceToDepth",
        AxisEffect.TRANSPOSED: "Transpose",
        AxisEffect.RESHAPED: "Flatten Reshape Squeeze Unsqueeze",
        AxisEffect.REPEATED: "Expand Tile",
        AxisEffect.PICKED: "GatherElements GatherND",
        AxisEffect.CONTRACTED: "FusedMatMul Gemm MatMul MatMulInteger QGemm QLinearMatMul",
        AxisEffect.MIXED: "Attention DFT GRU GroupQueryAttention LSTM MultiHeadAttention QAttention RNN Scan",
    }.items()
}
CHANNELS_LAST = frozenset(("NhwcConv", "NhwcFusedConv", "NhwcMaxPool"))
QUANTIZED_WEIGHT: Mapping[str, int] = {"QLinearMatMul": 3, "QGemm": 3}  # position among the inputs; of others 1


def operators(*effects: AxisEffect) -> frozenset[str]:
    """Return the operators that have one of these effects."""
    return frozenset[str]().union(*(OPERATORS[effect] for effect in effects))


# Groups that several finders use.
CONVOLUTIONS = operators(AxisEffect.CONVOLVED)
POOLINGS = operators(AxisEffect.POOLED)
RESHAPES = operators(AxisEffect.RESHAPED)
PRODUCTS = operators(AxisEffect.CONTRACTED)
REORDERS = operators(AxisEffect.RESHAPED, AxisEffect.TRANSPOSED)
COPIES = operators(AxisEffect.COPIED)
JOINS = operators(AxisEffect.JOINED)
# Every element stays in its place along every axis, though one axis may be joined or cut.
IN_PLACE = operators(AxisEffect.COPIED, AxisEffect.REQUANTIZED, AxisEffect.POINTWISE, AxisEffect.JOINED, AxisEffect.CUT)


def permutation(node: ir.Node, count: int) -> list[int]:
    """Return for each of the ``count`` output axes of a Transpose the input axis that it is."""
    return list(node.attributes.get_ints("perm", None) or reversed(range(count)))


def listed_axes(node: ir.Node, value: ir.Value) -> set[int] | None:
    """Return the axes of ``value`` that a Squeeze removes or an Unsqueeze adds; None where they are not constant."""
    axes = ints_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if axes is None or value.shape is None else {k % len(value.shape) for k in axes}


def convolution_axes(node: ir.Node, count: int) -> tuple[int, ...]:
    """Return the ``count`` axes of what a convolution or pooling reads and makes, as (N, C, *space)."""
    last = node.op_type in CHANNELS_LAST or node.attributes.get_int("channels_last", 0) == 1
    return (0, count - 1, *range(1, count - 1)) if last else tuple(range(count))


def joined_axis(node: ir.Node) -> int:
    """Return the axis along which a Concat joins, counted from the first."""
    return node.attributes["axis"].as_int() % rank(node.outputs[0])


def axis_after(node: ir.Node, axis: int) -> int | None:
    """Return where a Transpose or a reshape puts ``axis`` of its input, or the minor part of it; None: not known."""
    source, value = node.inputs[0], node.outputs[0]
    assert source is not None
    if source.shape is None or value.shape is None:
        return None
    if node.op_type == "Transpose":
        return permutation(node, len(source.shape)).index(axis)
    return reshaped_axis(list(source.shape), list(value.shape), axis)


def axis_before(node: ir.Node, source: ir.Value, axis: int) -> int | None:
    """Return the axis of ``source``, an input of ``node``, that ``axis`` of its output comes from; None: not known."""
    value = node.outputs[0]
    if source.shape is None or value.shape is None:
        return None
    if node.op_type in REORDERS:
        candidates = [k for k in range(len(source.shape)) if axis_after(node, k) == axis]
        return candidates[0] if len(candidates) == 1 else None
    return axis if len(source.shape) == len(value.shape) else None


def reshaped_axis(before: Sequence[Dim], after: Sequence[Dim], axis: int) -> int | None:
    """Return the axis of the dimensions ``after`` a reshape that ``axis`` of those ``before`` becomes.

    Where the reshape takes the axis apart, it is the minor part: exporters write anchors × classes. None: not known.
    """
    count = before[axis]
    if before[: axis + 1] == after[: axis + 1] and same_product(before[axis + 1 :], after[axis + 1 :]):
        return axis
    for k, dim in enumerate(after):
        if len(before) == 2 and dim != count:
            continue  # features of the whole image: which part is classes is not known
        whole = isinstance(dim, int) and isinstance(count, int) and dim > 0 and count % dim == 0
        if whole and same_product(before[axis + 1 :], after[k + 1 :]) and (dim != 1 or count == 1):
            return k
    same = all(a == b for a, b in zip(before[1 : axis + 1], after[1 : axis + 1], strict=False))
    return axis if axis < len(after) and isinstance(count, int) and after[axis] == count and same else None


def same_product(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    """Tell whether the products of two lists of dimensions are known to be equal."""
    product_a, product_b = _product(a), _product(b)
    return product_a is not None and product_a == product_b


def _product(dims: Sequence[Dim]) -> tuple[int, list[str]] | None:
    """Return the product of the known dimensions and the names of the others; None where one has no name."""
    number, names = 1, []
    for dim in dims:
        if isinstance(dim, int):
            number *= dim
        elif dim.value is None:
            return None
        else:
            names.append(dim.value)
    return number, sorted(names)
