"""Does another build of a model see what its reference sees?"""

from onnx_gradcam.jobs.compare.compare import compare
from onnx_gradcam.jobs.compare.comparison import Comparison, Pair, Side
from onnx_gradcam.jobs.compare.requirements import Finding, Requirement

__all__ = ["Comparison", "Finding", "Pair", "Requirement", "Side", "compare"]
