"""Convolutions and pools of com.microsoft: fused with what follows them, or with channels last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx_gradcam.graph.builder import Builder, Value, ints_of
from onnx_gradcam.graph.lowering.activation import activated
from onnx_gradcam.graph.lowering.quantized import channels_first, to_channels_last
from onnx_gradcam.graph.lowering.table import MICROSOFT, Unlowered, lowering, real


@lowering("FusedConv", domain=MICROSOFT)
def fused_conv(
    op: Builder,
    X: Value,
    W: Value,
    B: Value | None = None,
    Z: Value | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Conv, plus Z, and an activation."""
    y = op.Conv(
        X,
        W,
        B,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return activated(op, y if Z is None else op.Add(y, Z), activation, activation_params)


@lowering("NhwcFusedConv", domain=MICROSOFT)
def nhwc_fused_conv(
    op: Builder, X: Value, W: Value, B: Value | None = None, Z: Value | None = None, **attributes: Any
) -> Value:
    """FusedConv of channels last; its weights are as in Conv."""
    z = None if Z is None else channels_first(op, Z)
    return to_channels_last(op, fused_conv(op, channels_first(op, X), W, B, z, **attributes))


@lowering("NhwcConv", domain=MICROSOFT)
def nhwc_conv(op: Builder, X: Value, W: Value, B: Value | None = None, **attributes: Any) -> Value:
    """Conv of channels last, in the weights, too."""
    return to_channels_last(op, op.Conv(channels_first(op, X), channels_first(op, W), B, **attributes))


@lowering("NhwcMaxPool", domain=MICROSOFT)
def nhwc_max_pool(op: Builder, x: Value, **attributes: Any) -> Value:
    """MaxPool of channels last, of quantized or of real numbers."""
    return to_channels_last(op, op.MaxPool(channels_first(op, real(op, x)), **attributes))


@lowering("ConvTransposeWithDynamicPads", domain=MICROSOFT)
def conv_transpose_with_dynamic_pads(
    op: Builder, X: Value, W: Value, Pads: Value | None = None, B: Value | None = None, **attributes: Any
) -> Value:
    """ConvTranspose whose pads are an input, which must be constant."""
    pads = None if Pads is None else ints_of(Pads)
    if Pads is not None and pads is None:
        raise Unlowered("no VJP rule for pads that are known in the run only,")
    return op.ConvTranspose(X, W, B, pads=pads, **attributes)


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
    """GridSample; two of its modes have other names from opset 20 on."""
    renamed = {"bilinear": "linear", "bicubic": "cubic"} if op.opset >= 20 else {}
    return op.GridSample(X, Grid, align_corners=align_corners, mode=renamed.get(mode, mode), padding_mode=padding_mode)


@lowering("Trilu", domain=MICROSOFT)
def trilu(op: Builder, X: Value, k: Value | None = None, *, upper: int = 1) -> Value:
    """Trilu."""
    return op.Trilu(X, k, upper=upper)


@lowering("Pad", domain=MICROSOFT)
def pad(op: Builder, data: Value, pads: Value, value: Value | None = None, *, mode: str = "constant") -> Value:
    """Pad; the amounts may come as one row."""
    known = ints_of(pads)
    amounts = op.Reshape(pads, op.ints(-1)) if known is None else op.ints(*known)
    return op.Pad(data, amounts, None if value is None else op.Reshape(value, op.ints(1)), mode=mode)


@lowering("GatherND", domain=MICROSOFT)
def gather_nd(op: Builder, data: Value, indices: Value) -> Value:
    """GatherND."""
    return op.GatherND(data, op.Cast(indices, to=7))


@lowering("ExpandDims", domain=MICROSOFT)
def expand_dims(op: Builder, X: Value, axis: Value) -> Value:
    """Unsqueeze."""
    axes = ints_of(axis)
    if axes is None:
        raise Unlowered("no VJP rule for an axis that is known in the run only,")
    return op.Unsqueeze(X, op.ints(*axes))
