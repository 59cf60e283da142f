"""Other roads to a gradient graph than our own rules on a deployed file, each with a framework of its own."""

from onnx_gradcam.roads import torch

__all__ = ["torch"]
