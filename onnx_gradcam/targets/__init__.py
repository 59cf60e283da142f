"""What is explained: model outputs → one score per row, written as graph; and the forms in which users name it."""

from onnx_gradcam.targets.boxes import Box
from onnx_gradcam.targets.classes import TOP1, Classes, TopK, class_index
from onnx_gradcam.targets.contrasts import Difference, Finer, LogProbability, Output, Probability
from onnx_gradcam.targets.goals import Aim, Context, Goal, View, class_goal, fixed
from onnx_gradcam.targets.kinds import CLASS, Kind
from onnx_gradcam.targets.outputs import Custom, Similar, Tokens
from onnx_gradcam.targets.regions import Region
from onnx_gradcam.targets.resolve import Each, Target, branch, goals, in_input, resolve
from onnx_gradcam.targets.scoring import class_score
from onnx_gradcam.targets.text import help_text, parse

__all__ = [
    "CLASS",
    "TOP1",
    "Aim",
    "Box",
    "Classes",
    "Context",
    "Custom",
    "Difference",
    "Each",
    "Finer",
    "Goal",
    "Kind",
    "LogProbability",
    "Output",
    "Probability",
    "Region",
    "Similar",
    "Target",
    "Tokens",
    "TopK",
    "View",
    "branch",
    "class_goal",
    "class_index",
    "class_score",
    "fixed",
    "goals",
    "help_text",
    "in_input",
    "parse",
    "resolve",
]
