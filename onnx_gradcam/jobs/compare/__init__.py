"""Does another build of a model see what its reference sees?"""

from onnx_gradcam.jobs.compare.compare import compare
from onnx_gradcam.jobs.compare.comparison import Comparison
from onnx_gradcam.jobs.compare.pairs import Pair, Side
from onnx_gradcam.jobs.compare.requirements import Finding, Requirement
from onnx_gradcam.jobs.compare.worst import WorstPair

__all__ = ["Comparison", "Finding", "Pair", "Requirement", "Side", "WorstPair", "compare"]
