"""Explain any exported ONNX CNN on the runtime that serves it.

>>> import onnx_gradcam as ogc
>>> explainer = ogc.Explainer("resnet50.onnx")                    # doctest: +SKIP
>>> explainer.explain_image("cat.jpg", target="tabby").save("out")  # doctest: +SKIP
"""

from onnx_gradcam import roads
from onnx_gradcam.errors import (
    ForwardMismatch,
    InputError,
    LayerError,
    MethodError,
    ModelError,
    NoGradientPath,
    OnnxGradcamError,
    OutputError,
    PreprocessError,
    ProviderError,
    RequirementError,
    ScoreError,
    TargetError,
    UnsupportedGradient,
)
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.jobs.compare import Comparison, compare
from onnx_gradcam.jobs.inspect import layers
from onnx_gradcam.photos.preprocess.choice import Preprocess
from onnx_gradcam.results.contrast import SideBySide, both, contrast
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.roads.engines import gradient_model
from onnx_gradcam.targets import (
    Box,
    Classes,
    Custom,
    Difference,
    Each,
    Finer,
    LogProbability,
    Output,
    Probability,
    Region,
    Similar,
    Tokens,
    TopK,
)
from onnx_gradcam.verify import verify

__version__ = "0.1.0"

__all__ = [
    "Box",
    "Classes",
    "Comparison",
    "Custom",
    "Difference",
    "Each",
    "Explainer",
    "Explanation",
    "Finer",
    "ForwardMismatch",
    "InputError",
    "LayerError",
    "LayerResult",
    "LogProbability",
    "MethodError",
    "ModelError",
    "NoGradientPath",
    "OnnxGradcamError",
    "Output",
    "OutputError",
    "Preprocess",
    "PreprocessError",
    "Probability",
    "ProviderError",
    "Region",
    "RequirementError",
    "ScoreError",
    "SideBySide",
    "Similar",
    "TargetError",
    "Tokens",
    "TopK",
    "UnsupportedGradient",
    "both",
    "compare",
    "contrast",
    "gradient_model",
    "layers",
    "roads",
    "verify",
]
