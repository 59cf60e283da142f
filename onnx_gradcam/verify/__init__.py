"""Is it right on this model? Forward pass and gradient, checked numerically."""

from onnx_gradcam.verify.check import verify
from onnx_gradcam.verify.report import Check, NodeCheck, Report, Scan, Timing

__all__ = ["Check", "NodeCheck", "Report", "Scan", "Timing", "verify"]
