"""Convolutions and pools of com.microsoft: fused with what follows them, or with channels last."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_gradcam.graph.attributes import Convolution, Pool
from onnx_gradcam.graph.builder import Builder, Value, ints_of
from onnx_gradcam.graph.lowering.activation import activate
from onnx_gradcam.graph.lowering.quantized import to_channels_first, to_channels_last
from onnx_gradcam.graph.lowering.registry import MICROSOFT, Unlowered, lowering
from onnx_gradcam.graph.lowering.table import dequantize


@lowering("FusedConv", domain=MICROSOFT)
def fused_conv(
    op: Builder,
    X: Value,
    W: Value,
    B: Value | None = None,
    Z: Value | None = None,
    *,
    at: Convolution,
    activation: str = "",
    activation_params: Sequence[float] = (),
) -> Value:
    """y = f(Conv(X, W, B) + Z), f an activation."""
    y = op.Conv(X, W, B, **vars(at))
    return activate(op, y if Z is None else op.Add(y, Z), activation, activation_params)


@lowering("NhwcFusedConv", domain=MICROSOFT)
def nhwc_fused_conv(
    op: Builder,
    X: Value,
    W: Value,
    B: Value | None = None,
    Z: Value | None = None,
    *,
    at: Convolution,
    activation: str = "",
    activation_params: Sequence[float] = (),
) -> Value:
    """y = FusedConv with channels last; its weights are as in Conv."""
    z = None if Z is None else to_channels_first(op, Z)
    x = to_channels_first(op, X)
    y = fused_conv(op, x, W, B, z, at=at, activation=activation, activation_params=activation_params)
    return to_channels_last(op, y)


@lowering("NhwcConv", domain=MICROSOFT)
def nhwc_conv(op: Builder, X: Value, W: Value, B: Value | None = None, *, at: Convolution) -> Value:
    """y = Conv with channels last, in the weights, too."""
    return to_channels_last(op, op.Conv(to_channels_first(op, X), to_channels_first(op, W), B, **vars(at)))


@lowering("NhwcMaxPool", domain=MICROSOFT)
def nhwc_max_pool(op: Builder, x: Value, *, at: Pool) -> Value:
    """y = MaxPool with channels last, of quantized or of real numbers."""
    return to_channels_last(op, op.MaxPool(to_channels_first(op, dequantize(op, x)), **vars(at)))


@lowering("ConvTransposeWithDynamicPads", domain=MICROSOFT)
def conv_transpose_with_dynamic_pads(
    op: Builder,
    X: Value,
    W: Value,
    Pads: Value | None = None,
    B: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """y = ConvTranspose with pads that are an input, which must be constant."""
    pads = None if Pads is None else ints_of(Pads)
    if Pads is not None and pads is None:
        raise Unlowered("no VJP rule for pads that are known in the run only,")
    return op.ConvTranspose(
        X,
        W,
        B,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        output_padding=output_padding,
        pads=pads,
        strides=strides,
    )


@lowering("GridSample", domain=MICROSOFT)
def grid_sample(
    op: Builder,
    X: Value,
    Grid: Value,
    *,
    align_corners: int = 0,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> Value:
    """y = GridSample(X, Grid); two of its modes have other names from opset 20 on."""
    renamed = {"bilinear": "linear", "bicubic": "cubic"} if op.opset >= 20 else {}
    return op.GridSample(X, Grid, align_corners=align_corners, mode=renamed.get(mode, mode), padding_mode=padding_mode)


@lowering("Trilu", domain=MICROSOFT)
def trilu(op: Builder, X: Value, k: Value | None = None, *, upper: int = 1) -> Value:
    """y = Trilu(X, k)."""
    return op.Trilu(X, k, upper=upper)


@lowering("Pad", domain=MICROSOFT)
def pad(op: Builder, data: Value, pads: Value, value: Value | None = None, *, mode: str = "constant") -> Value:
    """y = Pad(data, pads, value); the amounts may come as one row."""
    known = ints_of(pads)
    amounts = op.Reshape(pads, op.ints(-1)) if known is None else op.ints(*known)
    return op.Pad(data, amounts, None if value is None else op.Reshape(value, op.ints(1)), mode=mode)


@lowering("GatherND", domain=MICROSOFT)
def gather_nd(op: Builder, data: Value, indices: Value) -> Value:
    """y = GatherND(data, indices)."""
    return op.GatherND(data, op.Cast(indices, to=ir.DataType.INT64))


@lowering("ExpandDims", domain=MICROSOFT)
def expand_dims(op: Builder, X: Value, axis: Value) -> Value:
    """y = Unsqueeze(X, axis)."""
    axes = ints_of(axis)
    if axes is None:
        raise Unlowered("no VJP rule for an axis that is known in the run only,")
    return op.Unsqueeze(X, op.ints(*axes))
