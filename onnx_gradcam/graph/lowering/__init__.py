"""Operators in terms of standard ones, by theme; importing this package registers all of them."""

from onnx_gradcam.graph.lowering import (
    activation,
    attention,
    convolution,
    linear,
    loops,
    normalization,
    quantized,
    recurrent,
    sampling,
)

__all__ = [
    "activation",
    "attention",
    "convolution",
    "linear",
    "loops",
    "normalization",
    "quantized",
    "recurrent",
    "sampling",
]
