"""Other roads to a gradient graph than our own rules on a deployed file; each needs a package of its own."""

from onnx_gradcam.roads import ort_training, torch

__all__ = ["ort_training", "torch"]
