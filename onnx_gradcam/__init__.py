"""Explain any exported ONNX CNN on the runtime that serves it.

>>> from importlib.resources import files
>>> import onnx_gradcam as ogc
>>> demo = files("onnx_gradcam.models")
>>> explainer = ogc.Explainer(demo / "shapes-resnet.onnx")
>>> explanation = explainer.explain_image(demo / "images" / "star-and-heart.png", target="heart")
>>> explanation.heatmap.shape
(1, 360, 480)
"""

from onnx_gradcam import roads
from onnx_gradcam.engine.session import Options
from onnx_gradcam.errors import (
    ForwardMismatch,
    InputError,
    LayerError,
    MethodError,
    MetricError,
    ModelError,
    NoGradientPath,
    NotFinite,
    OnnxGradcamError,
    OutputError,
    PreprocessError,
    ProviderError,
    RequirementError,
    ScoreError,
    TargetError,
    UnknownOperator,
    UnsupportedGradient,
)
from onnx_gradcam.explain.concepts import concepts
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.network import Network
from onnx_gradcam.explain.opening import Opening
from onnx_gradcam.explain.sentences import explain_caption, explain_question
from onnx_gradcam.explain.tiles import explain_tiles
from onnx_gradcam.explain.volume import explain_volume
from onnx_gradcam.jobs.attack import AttackResult, attack
from onnx_gradcam.jobs.compare import Comparison, Finding, Pair, Requirement, Side, WorstPair, compare
from onnx_gradcam.jobs.evaluate import EvaluatedRow, EvaluationResult, MetricPart, MetricResult, evaluate
from onnx_gradcam.jobs.failures import Failure, FailureReport, failures
from onnx_gradcam.jobs.inspect import HeadInfo, LayerInfo, heads, layers
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.metrics import EvidenceShare, evidence_share
from onnx_gradcam.metrics.interval import Mean
from onnx_gradcam.photos.function import UserFunction
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.photos.preprocess.choice import Choice, InputSpec, Preprocess
from onnx_gradcam.photos.tiles import Tiles, Tiling
from onnx_gradcam.photos.volume import VolumeSpace
from onnx_gradcam.results.caption import Caption
from onnx_gradcam.results.contact import contact_sheet
from onnx_gradcam.results.contrast import both, contrast
from onnx_gradcam.results.doubts import Doubt
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.files import MapFile, Sheet
from onnx_gradcam.results.frame import Frame
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.results.picture.style import Style
from onnx_gradcam.results.provenance import Provenance
from onnx_gradcam.results.records import Completeness, Rectifiers, Words
from onnx_gradcam.results.side_by_side import SideBySide
from onnx_gradcam.results.tokens import with_words
from onnx_gradcam.roads.engines import gradient_model
from onnx_gradcam.targets import (
    Box,
    Boxes,
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
    TargetObject,
    Tokens,
    TopK,
)
from onnx_gradcam.verify import Check, NodeCheck, Report, Scan, Timing, verify

__version__ = "0.1.0"

__all__ = [
    "AttackResult",
    "Box",
    "Boxes",
    "Caption",
    "Check",
    "Choice",
    "Classes",
    "Comparison",
    "Completeness",
    "Custom",
    "Difference",
    "Doubt",
    "Each",
    "EvaluatedRow",
    "EvaluationResult",
    "EvidenceShare",
    "Explainer",
    "Explanation",
    "Failure",
    "FailureReport",
    "Finding",
    "Finer",
    "ForwardMismatch",
    "Frame",
    "Geometry",
    "HeadInfo",
    "InputError",
    "InputSpec",
    "LayerError",
    "LayerInfo",
    "LayerResult",
    "LogProbability",
    "MapFile",
    "Mean",
    "MethodError",
    "MetricError",
    "MetricPart",
    "MetricResult",
    "ModelError",
    "Network",
    "NoGradientPath",
    "NodeCheck",
    "NotFinite",
    "OnnxGradcamError",
    "Opening",
    "Options",
    "Output",
    "OutputError",
    "Pair",
    "Preprocess",
    "PreprocessError",
    "Probability",
    "Provenance",
    "ProviderError",
    "Recipe",
    "Rectifiers",
    "Region",
    "Report",
    "Requirement",
    "RequirementError",
    "Scan",
    "ScoreError",
    "Sheet",
    "Side",
    "SideBySide",
    "Similar",
    "Style",
    "TargetError",
    "TargetObject",
    "Tiles",
    "Tiling",
    "Timing",
    "Tokens",
    "TopK",
    "UnknownOperator",
    "UnsupportedGradient",
    "UserFunction",
    "VolumeSpace",
    "Words",
    "WorstPair",
    "attack",
    "both",
    "compare",
    "concepts",
    "contact_sheet",
    "contrast",
    "evaluate",
    "evidence_share",
    "explain_caption",
    "explain_question",
    "explain_tiles",
    "explain_volume",
    "failures",
    "gradient_model",
    "heads",
    "layers",
    "roads",
    "verify",
    "with_words",
]
