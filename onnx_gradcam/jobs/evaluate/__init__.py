"""Whether the maps of a model may be believed: metrics over labelled photos, with intervals and chance."""

from onnx_gradcam.jobs.evaluate.evaluate import evaluate
from onnx_gradcam.jobs.evaluate.evaluation import EvaluationResult
from onnx_gradcam.jobs.evaluate.records import EvaluatedRow, MetricPart, MetricResult

__all__ = ["EvaluatedRow", "EvaluationResult", "MetricPart", "MetricResult", "evaluate"]
