"""Is it right on this model? Forward pass and gradient, checked numerically."""

from onnx_gradcam.verify.check import verify
from onnx_gradcam.verify.report import Check, NodeCheck, Report, Scan

__all__ = ["Check", "NodeCheck", "Report", "Scan", "verify"]
