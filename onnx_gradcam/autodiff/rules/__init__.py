"""VJP rules, by theme; importing this package registers all of them."""

from onnx_gradcam.autodiff.rules import (
    activation,
    convolution,
    elementwise,
    linear,
    movement,
    normalization,
    pooling,
    reduction,
    resize,
)

__all__ = [
    "activation",
    "convolution",
    "elementwise",
    "linear",
    "movement",
    "normalization",
    "pooling",
    "reduction",
    "resize",
]
