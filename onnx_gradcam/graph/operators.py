"""One table of what operators do to the elements of what they read: they keep, move, squash, make or change them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


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
    REDUCED = auto()  # an axis gives way to one number for all of it
    POOLED = auto()  # windows along the spatial axes, each channel by itself
    CONVOLVED = auto()  # windows along the spatial axes, and new channels
    REGROUPED = auto()  # channels become places, or places channels
    TRANSPOSED = auto()  # the axes change their order
    RESHAPED = auto()  # axes are joined or taken apart, the elements stay in their order
    REPEATED = auto()  # elements are copied along axes
    PICKED = auto()  # elements are taken from anywhere
    OVERWRITTEN = auto()  # some elements give way to those of another input
    CONTRACTED = auto()  # the last axis gives way to new features: a linear layer
    MULTIPLIED = auto()  # axes of several inputs are multiplied and summed, as an equation says
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
        AxisEffect.REDUCED: "QLinearReduceMean ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean "
        "ReduceMin ReduceProd ReduceSum ReduceSumSquare",
        AxisEffect.POOLED: "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool NhwcMaxPool "
        "QLinearAveragePool QLinearGlobalAveragePool",
        AxisEffect.CONVOLVED: "Conv ConvInteger ConvTranspose ConvTransposeWithDynamicPads DeformConv FusedConv "
        "NhwcConv NhwcFusedConv QLinearConv",
        AxisEffect.REGROUPED: "DepthToSpace SpaceToDepth",
        AxisEffect.TRANSPOSED: "Transpose",
        AxisEffect.RESHAPED: "Flatten Reshape Squeeze Unsqueeze",
        AxisEffect.REPEATED: "Expand Tile",
        AxisEffect.PICKED: "GatherElements GatherND",
        AxisEffect.OVERWRITTEN: "ScatterND",
        AxisEffect.CONTRACTED: "FusedMatMul Gemm MatMul MatMulInteger QGemm QLinearMatMul",
        AxisEffect.MULTIPLIED: "Einsum",
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
CUTS = operators(AxisEffect.CUT) | {"Slice"}
# Every element stays in its place along every axis, though one axis may be joined or cut.
IN_PLACE = operators(AxisEffect.COPIED, AxisEffect.REQUANTIZED, AxisEffect.POINTWISE, AxisEffect.JOINED, AxisEffect.CUT)
# Elements are moved, joined or taken; none is computed.
MOVES = operators(
    AxisEffect.JOINED,
    AxisEffect.CUT,
    AxisEffect.SELECTED,
    AxisEffect.REGROUPED,
    AxisEffect.TRANSPOSED,
    AxisEffect.RESHAPED,
    AxisEffect.REPEATED,
    AxisEffect.PICKED,
)
# Every element stays what and where it is, but for rounding.
STORES = operators(AxisEffect.COPIED, AxisEffect.REQUANTIZED)
