"""Does another build of a model see what its reference sees?"""

from onnx_gradcam.audit.compare import compare
from onnx_gradcam.audit.comparison import Comparison, Pair, Side
from onnx_gradcam.audit.requirements import Finding, Requirement

__all__ = ["Comparison", "Finding", "Pair", "Requirement", "Side", "compare"]
