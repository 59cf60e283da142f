"""Normalisations of onnxruntime: simplified, with a skip connection, of groups."""

from __future__ import annotations

from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.lowering.activation import silu
from onnx_gradcam.graph.lowering.quantized import to_channels_first, to_channels_last
from onnx_gradcam.graph.lowering.registry import MICROSOFT, lowering

EPSILON = 1e-5  # float32, where the attribute is left out
SKIP_EPSILON = 1e-12


@lowering("SimplifiedLayerNormalization")
def simplified_layer_normalization(
    op: Builder, X: Value, scale: Value, *, axis: int = -1, epsilon: float = EPSILON, stash_type: int = 1
) -> tuple[Value, ...]:
    """y = x / √(mean(x²) + ε) · s, the mean over the axes from ``axis`` on."""
    axes = list(range(axis % rank(X), rank(X)))
    square = op.ReduceMean(op.Mul(X, X), op.ints(*axes), keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(op.Add(square, op.const(epsilon, like=X))))
    return op.Mul(op.Mul(X, inverse), op.Cast(scale, to=X.dtype) if scale.dtype != X.dtype else scale), inverse


@lowering("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(
    op: Builder,
    input: Value,
    skip: Value,
    gamma: Value,
    beta: Value | None = None,
    bias: Value | None = None,
    *,
    epsilon: float = SKIP_EPSILON,
) -> tuple[Value | None, ...]:
    """y = LayerNormalization(input + skip + bias); the last output is that sum."""
    total = _sum(op, input, skip, bias)
    return op.LayerNormalization(total, gamma, beta, axis=-1, epsilon=epsilon), None, None, total


@lowering("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(
    op: Builder, input: Value, skip: Value, gamma: Value, bias: Value | None = None, *, epsilon: float = SKIP_EPSILON
) -> tuple[Value | None, ...]:
    """y = SimplifiedLayerNormalization(input + skip + bias); the last output is that sum."""
    total = _sum(op, input, skip, bias)
    return simplified_layer_normalization(op, total, gamma, epsilon=epsilon)[0], None, None, total


def _sum(op: Builder, input: Value, skip: Value, bias: Value | None) -> Value:
    total = op.Add(input, skip)
    return total if bias is None else op.Add(total, bias)


@lowering("GroupNorm", domain=MICROSOFT)
def group_norm(
    op: Builder,
    X: Value,
    gamma: Value,
    beta: Value,
    *,
    activation: int,
    groups: int,
    epsilon: float = EPSILON,
    channels_last: int = 1,
) -> Value:
    """y = x̂ · γ + β, and SiLU of it on request; x̂ = x standardized over each group of channels."""
    x = to_channels_first(op, X) if channels_last else X
    rows = op.Reshape(x, op.ints(0, groups, -1))
    kind = op.const([1] * groups, like=X), op.const([0] * groups, like=X)
    normal = op.Reshape(op.InstanceNormalization(rows, *kind, epsilon=epsilon), op.shape_of(x))
    shape = op.ints(-1, *[1] * (rank(X) - 2))
    scale, shift = (op.Reshape(op.Cast(v, to=X.dtype), shape) for v in (gamma, beta))
    y = op.Add(op.Mul(normal, scale), shift)
    y = silu(op, y) if activation else y
    return to_channels_last(op, y) if channels_last else y


@lowering("SkipGroupNorm", domain=MICROSOFT)
def skip_group_norm(
    op: Builder,
    X: Value,
    gamma: Value,
    beta: Value,
    skip: Value,
    bias: Value | None = None,
    *,
    activation: int,
    groups: int,
    epsilon: float = EPSILON,
    channels_last: int = 1,
) -> tuple[Value, ...]:
    """y = GroupNorm(X + skip + bias); the last output is that sum."""
    if rank(skip) == 2:  # one number for each image and channel
        skip = op.Unsqueeze(skip, op.ints(*(range(1, rank(X) - 1) if channels_last else range(2, rank(X)))))
    if bias is not None and not channels_last:
        bias = op.Unsqueeze(bias, op.ints(*range(1, rank(X) - 1)))
    total = _sum(op, X, skip, bias)
    y = group_norm(
        op, total, gamma, beta, activation=activation, groups=groups, epsilon=epsilon, channels_last=channels_last
    )
    return y, total
