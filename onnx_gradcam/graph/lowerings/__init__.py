"""Operators in terms of standard ones, by theme; importing this package registers all of them."""

from onnx_gradcam.graph.lowerings import quantized

__all__ = ["quantized"]
