"""The confident mistakes of a classifier, and what speaks for and against the predicted and the true class."""

from onnx_gradcam.jobs.failures.failures import failures
from onnx_gradcam.jobs.failures.result import Failure, FailureReport

__all__ = ["Failure", "FailureReport", "failures"]
