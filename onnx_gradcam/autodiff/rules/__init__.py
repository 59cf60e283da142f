"""VJP rules, by theme; importing this package registers all of them."""

from onnx_gradcam.autodiff.rules import activation, elementwise, linear, normalization, reduction

__all__ = ["activation", "elementwise", "linear", "normalization", "reduction"]
