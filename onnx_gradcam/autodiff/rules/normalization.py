"""Rules of normalisations. They recompute statistics, which few runtimes output, in float32 for 16-bit models."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from onnx_gradcam.autodiff.precision import narrowed, widened
from onnx_gradcam.autodiff.registry import Refused, vjp
from onnx_gradcam.autodiff.rules.axes import END, pad
from onnx_gradcam.autodiff.rules.elementwise import nonzero, sign
from onnx_gradcam.graph.builder import Builder, Value, rank

TAKEN_APART = frozenset("GroupNormalization LayerNormalization MeanVarianceNormalization".split())
"""Normalisations that stay out of the tables of relevance and of multipliers: their bodies divide, and have rules."""


def _per_channel(op: Builder, v: Value, x: Value) -> Value:
    """Write a vector over the channels (C,) as (C, 1, …), so that it broadcasts along axis 1 of x."""
    return op.Unsqueeze(v, op.ints(*range(1, rank(x) - 1))) if rank(x) > 2 else v


def _mean(op: Builder, x: Value, axes: Sequence[int]) -> Value:
    """Write the mean over ``axes``, which keep the length 1."""
    return op.ReduceMean(x, op.ints(*axes), keepdims=1)


def _centre(op: Builder, x: Value, axes: Sequence[int]) -> tuple[Value, Value]:
    """Write x minus its mean, and its variance."""
    centred = op.Sub(x, _mean(op, x, axes))
    return centred, _mean(op, op.Mul(centred, centred), axes)


def _deviation(op: Builder, variance: Value, epsilon: float) -> Value:
    """Write √(v + ε); 1 where that is 0, so that what is not read of a constant row has the gradient 0."""
    deviation = op.Sqrt(op.Add(variance, op.const(epsilon, like=variance)))
    return deviation if epsilon else nonzero(op, deviation)


def _standardize_back(op: Builder, g: Value, x: Value, axes: Sequence[int], epsilon: float) -> Value:
    """Write x̄ for x̂ = (x − mean x) / √(var x + ε) over ``axes``; ``g`` is the cotangent of x̂."""
    centred, variance = _centre(op, x, axes)
    inverse = op.Reciprocal(_deviation(op, variance, epsilon))
    return _standardize_back_by(op, g, op.Mul(centred, inverse), inverse, axes)


def _standardize_back_by(op: Builder, g: Value, x_hat: Value, inverse: Value, axes: Sequence[int]) -> Value:
    """Write x̄ = r · (g − mean g − x̂ · mean(g · x̂)) with r = 1/σ."""
    along = op.Mul(x_hat, _mean(op, op.Mul(g, x_hat), axes))
    return op.Mul(op.Sub(op.Sub(g, _mean(op, g, axes)), along), inverse)


@vjp("BatchNormalization", wrt=0, broadcasts=True)
def batch_normalization(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    scale: Value,
    b: Value,
    input_mean: Value,
    input_var: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Value:
    """y = (x − μ) · s/√(v + ε) + b with constant μ, v:  x̄ = g · s/√(v + ε)."""
    _refuse_training(training_mode)
    deviation = _deviation(op, widened(op, input_var), epsilon)
    factor = op.Div(narrowed(op, scale, like=deviation), deviation)
    return op.Mul(g, _per_channel(op, narrowed(op, factor, like=x), x))


@vjp("BatchNormalization", wrt=1)
def batch_normalization_scale(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    scale: Value,
    b: Value,
    input_mean: Value,
    input_var: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Value:
    """s̄ = Σ g · (x − μ)/√(v + ε), summed over the batch and space."""
    _refuse_training(training_mode)
    deviation = _deviation(op, widened(op, input_var), epsilon)
    sums = _channel_sums(op, g, _centred_by(op, x, input_mean))
    return narrowed(op, op.Div(sums, narrowed(op, deviation, like=sums)), like=scale)


@vjp("BatchNormalization", wrt=2)
def batch_normalization_bias(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    scale: Value,
    b: Value,
    input_mean: Value,
    input_var: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Value:
    """b̄ = Σ g, summed over the batch and space."""
    _refuse_training(training_mode)
    return narrowed(op, _channel_sums(op, g), like=b)


@vjp("BatchNormalization", wrt=3)
def batch_normalization_mean(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    scale: Value,
    b: Value,
    input_mean: Value,
    input_var: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Value:
    """μ̄ = −s/√(v + ε) · Σ g, summed over the batch and space."""
    _refuse_training(training_mode)
    sums, deviation = _channel_sums(op, g), _deviation(op, widened(op, input_var), epsilon)
    factor = op.Div(narrowed(op, scale, like=sums), narrowed(op, deviation, like=sums))
    return narrowed(op, op.Neg(op.Mul(sums, factor)), like=input_mean)


@vjp("BatchNormalization", wrt=4)
def batch_normalization_variance(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    scale: Value,
    b: Value,
    input_mean: Value,
    input_var: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Value:
    """v̄ = −½ · s/√(v + ε)³ · Σ g · (x − μ), summed over the batch and space."""
    _refuse_training(training_mode)
    sums = _channel_sums(op, g, _centred_by(op, x, input_mean))
    deviation = narrowed(op, _deviation(op, widened(op, input_var), epsilon), like=sums)
    cube = op.Mul(op.Mul(deviation, deviation), deviation)
    factor = op.Div(op.Mul(narrowed(op, scale, like=sums), op.const(-0.5, like=sums)), cube)
    return narrowed(op, op.Mul(sums, factor), like=input_var)


def _refuse_training(training_mode: int) -> None:
    if training_mode:
        raise Refused("training_mode=1")


def _centred_by(op: Builder, x: Value, mean: Value) -> Value:
    """Write x − μ with one μ for each channel."""
    wide = widened(op, x)
    return op.Sub(wide, _per_channel(op, narrowed(op, widened(op, mean), like=wide), x))


def _channel_sums(op: Builder, g: Value, factor: Value | None = None) -> Value:
    """Write Σ g · factor over all axes but that of the channels, (C,)."""
    wide = widened(op, g)
    product = wide if factor is None else op.Mul(wide, factor)
    return op.ReduceSum(product, op.ints(*(k for k in range(rank(g)) if k != 1)), keepdims=0)


@vjp("LayerNormalization", wrt=0)
def layer_normalization(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    scale: Value,
    b: Value | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Value:
    """y = x̂ · s + b, x̂ = x standardized over the axes from ``axis`` on:  the cotangent of x̂ is g · s."""
    axes = range(axis % rank(x), rank(x))
    scaled = op.Mul(widened(op, g), widened(op, scale))
    return narrowed(op, _standardize_back(op, scaled, widened(op, x), axes, epsilon), like=x)


@vjp("InstanceNormalization", wrt=0)
def instance_normalization(
    op: Builder, g: Value, y: Value, input: Value, scale: Value, b: Value, *, epsilon: float = 1e-5
) -> Value:
    """y = x̂ · s + b, x̂ = x standardized over space:  the cotangent of x̂ is g · s."""
    scaled = op.Mul(widened(op, g), _per_channel(op, widened(op, scale), input))
    axes = range(2, rank(input))
    return narrowed(op, _standardize_back(op, scaled, widened(op, input), axes, epsilon), like=input)


@vjp("InstanceNormalization", wrt=1)
def instance_normalization_scale(
    op: Builder, g: Value, y: Value, input: Value, scale: Value, b: Value, *, epsilon: float = 1e-5
) -> Value:
    """s̄ = Σ g · x̂, summed over the batch and space."""
    centred, variance = _centre(op, widened(op, input), range(2, rank(input)))
    x_hat = op.Div(centred, _deviation(op, variance, epsilon))
    return narrowed(op, _channel_sums(op, g, x_hat), like=scale)


@vjp("InstanceNormalization", wrt=2)
def instance_normalization_bias(
    op: Builder, g: Value, y: Value, input: Value, scale: Value, b: Value, *, epsilon: float = 1e-5
) -> Value:
    """b̄ = Σ g, summed over the batch and space."""
    return narrowed(op, _channel_sums(op, g), like=b)


@vjp("GroupNormalization", wrt=0)
def group_normalization(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    scale: Value,
    bias: Value,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Value:
    """y = x̂ · s + b, x̂ = x standardized over each group of channels:  the cotangent of x̂ is g · s.

    s has one element for each group before opset 21, for each channel since.
    """
    grouped = op.ints(0, num_groups, -1)
    g, scale = widened(op, g), widened(op, scale)
    if op.opset < 21:
        scaled = op.Mul(op.Reshape(g, grouped), op.Unsqueeze(scale, op.ints(1)))
    else:
        scaled = op.Reshape(op.Mul(g, _per_channel(op, scale, x)), grouped)
    pulled = _standardize_back(op, scaled, op.Reshape(widened(op, x), grouped), [2], epsilon)
    return narrowed(op, op.Reshape(pulled, op.shape_of(x)), like=x)


@vjp("MeanVarianceNormalization", wrt=0)
def mean_variance_normalization(op: Builder, g: Value, y: Value, x: Value, *, axes: Sequence[int] = (0, 2, 3)) -> Value:
    """y = (x − mean x) / (σ + 10⁻⁹):  as standardized by r = 1/(σ + 10⁻⁹), which is right to 10⁻⁹/σ."""
    _, variance = _centre(op, widened(op, x), axes)
    inverse = op.Reciprocal(op.Add(op.Sqrt(variance), op.const(1e-9, like=variance)))
    return narrowed(op, _standardize_back_by(op, widened(op, g), widened(op, y), inverse, axes), like=x)


@vjp("LpNormalization", wrt=0)
def lp_normalization(op: Builder, g: Value, y: Value, input: Value, *, axis: int = -1, p: int = 2) -> Value:
    """y = x/‖x‖:  x̄ = (g − d · Σ g·y) / ‖x‖ with d = y for p = 2, sign(x) for p = 1; 0 where ‖x‖ is 0."""
    x, wide_y, axes = widened(op, input), widened(op, y), op.ints(axis)
    g = widened(op, g)
    if p == 2:
        norm = op.Sqrt(op.ReduceSum(op.Mul(x, x), axes, keepdims=1))
        slope = wide_y
    else:
        norm = op.ReduceSum(op.Abs(x), axes, keepdims=1)
        slope = sign(op, x)
    divisor = nonzero(op, norm)
    inverse = op.Div(op.Div(norm, divisor), divisor)
    along = op.Mul(slope, op.ReduceSum(op.Mul(g, wide_y), axes, keepdims=1))
    return narrowed(op, op.Mul(op.Sub(g, along), inverse), like=input)


@vjp("LRN", wrt=0)
def lrn(
    op: Builder,
    g: Value,
    y: Value,
    x: Value,
    *,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    bias: float = 1.0,
) -> Value:
    """y = x · D^−β, D = k + α/n Σ x² over n channels:  x̄ = g · D^−β − 2αβ/n · x · Σᵀ (g · x · D^−β−1).

    Σᵀ runs over the channels whose window contains this one: for an even n the window is not symmetric.
    """
    before = (size - 1) // 2
    after = size - 1 - before
    wide, g = widened(op, x), widened(op, g)
    energy = _channel_sum(op, op.Mul(wide, wide), before, after)
    base = op.Add(op.Mul(energy, op.const(alpha / size, like=wide)), op.const(bias, like=wide))
    base = base if bias else nonzero(op, base)
    direct = op.Mul(g, op.Pow(base, op.const(-beta, like=wide)))
    spread = _channel_sum(op, op.Div(op.Mul(direct, wide), base), after, before)
    indirect = op.Mul(op.Mul(wide, spread), op.const(2 * alpha * beta / size, like=wide))
    return narrowed(op, op.Sub(direct, indirect), like=x)


def _channel_sum(op: Builder, x: Value, before: int, after: int) -> Value:
    """Write Σ x[c − before … c + after] over the channels, zeros outside.

    Shifted slices were faster than an average pool over channels and than a convolution with a band matrix, and they do
    not need the number of channels.
    """
    width = before + after
    padded = pad(op, x, {1: (before, after)})
    shifted = [op.Slice(padded, op.ints(k), op.ints(k - width or END), op.ints(1)) for k in range(width + 1)]
    return functools.reduce(op.Add, shifted)
