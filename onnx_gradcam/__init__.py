"""Explain any exported ONNX CNN on the runtime that serves it.

>>> import onnx_gradcam as ogc
>>> explainer = ogc.Explainer("resnet50.onnx")                    # doctest: +SKIP
>>> explainer.explain_image("cat.jpg", target="tabby").save("out")  # doctest: +SKIP
"""

from onnx_gradcam import roads
from onnx_gradcam.audit import Comparison, compare
from onnx_gradcam.engines import gradient_model
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
from onnx_gradcam.explain import Explainer
from onnx_gradcam.explanation import Explanation, LayerResult
from onnx_gradcam.overview import layers
from onnx_gradcam.preprocess import Preprocess
from onnx_gradcam.side_by_side import SideBySide, both, contrast
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
