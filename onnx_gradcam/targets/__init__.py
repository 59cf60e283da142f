"""What is explained of a model: the forms in which users name it, and the one score per row that is written for it."""

from onnx_gradcam.targets.base import TargetObject
from onnx_gradcam.targets.bound import (
    BoundTarget,
    Context,
    ForwardPass,
    RowTarget,
    class_target,
    family_of,
    fixed_target,
    ranked_target,
)
from onnx_gradcam.targets.boxes import Box
from onnx_gradcam.targets.class_boxes import add_class_boxes
from onnx_gradcam.targets.classes import TOP1, Classes, TopK, class_index
from onnx_gradcam.targets.contrasts import Difference, Finer, LogProbability, Output, Probability
from onnx_gradcam.targets.detected import BACKGROUND
from onnx_gradcam.targets.detections import Layouts
from onnx_gradcam.targets.kinds import CLASS, Kind
from onnx_gradcam.targets.outputs import Custom, Similar, Tokens
from onnx_gradcam.targets.regions import Region
from onnx_gradcam.targets.resolve import Each, Target, bind_targets, branches_of, in_input, one_for_each, resolve
from onnx_gradcam.targets.scoring import class_score, is_exclusive
from onnx_gradcam.targets.suppression import Boxes
from onnx_gradcam.targets.text import help_text, parse
from onnx_gradcam.targets.written import WrittenScore, write_score

__all__ = [
    "BACKGROUND",
    "CLASS",
    "TOP1",
    "BoundTarget",
    "Box",
    "Boxes",
    "Classes",
    "Context",
    "Custom",
    "Difference",
    "Each",
    "Finer",
    "ForwardPass",
    "Kind",
    "Layouts",
    "LogProbability",
    "Output",
    "Probability",
    "Region",
    "RowTarget",
    "Similar",
    "Target",
    "TargetObject",
    "Tokens",
    "TopK",
    "WrittenScore",
    "add_class_boxes",
    "bind_targets",
    "branches_of",
    "class_index",
    "class_score",
    "class_target",
    "family_of",
    "fixed_target",
    "help_text",
    "in_input",
    "is_exclusive",
    "one_for_each",
    "parse",
    "ranked_target",
    "resolve",
    "write_score",
]
