"""VJP rules, by theme; importing this package registers all of them."""

from onnx_gradcam.autodiff.rules import (
    activation,
    contraction,
    convolution,
    cumulative,
    elementwise,
    indexing,
    linear,
    movement,
    normalization,
    pooling,
    quantized,
    recurrent,
    reduction,
    resize,
    sampling,
    scatter,
)

__all__ = [
    "activation",
    "contraction",
    "convolution",
    "cumulative",
    "elementwise",
    "indexing",
    "linear",
    "movement",
    "normalization",
    "pooling",
    "quantized",
    "recurrent",
    "reduction",
    "resize",
    "sampling",
    "scatter",
]
