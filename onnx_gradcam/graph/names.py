"""Every name that this package writes into a graph, and how such a name makes room for one of the model's own.

The names in a model belong to its user. They are never changed, so that messages, results and manifests can use them
as they are. Where the model has one of our names already, ours steps aside (``claim``). What a value is called in the
end stands in a record of whoever wrote it; ``GradientNames`` is that of a gradient graph, and a file that we hand out
carries it in its metadata.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import onnx_ir as ir

from onnx_gradcam.errors import ModelError

# Beginnings of the names of nodes, and of the values that these make.
GRADIENT = "grad"  # the backward pass, and the score that it begins with
DENSE_SCORE = "score"  # one score for each class of a model that has many for each image
BASELINE = "baseline"  # a second forward pass, of other inputs
CHANGED = "changed"  # copies of a value that are fed to the graph behind it
RAISED = "opset18"  # what an operator of an older opset becomes
SUM = "sum"  # a fused operator, written out because others read the sum inside it
FORM = "form"  # what stands for an operator that onnxruntime-training differentiates wrongly
STANDARD = "standard"  # the standard operators for a node, written to learn their shapes
WRITTEN_OUT = "written"  # the standard operators that stand for a fused one
HEADS = "heads"  # copies of the end of a network, each behind other tokens
SURROGATE = "surrogate"  # a quantized network without its rounding
UNROLLED = "unrolled"  # a body that is repeated, written out because it carries a sequence
ASIDE = "ogc"  # where a name of ours goes that the model has itself

# Whole names.
SCORE_OUTPUT = f"{GRADIENT}/score"
CLASS_OUTPUT = f"{GRADIENT}/class_index"
TOTAL_OUTPUT = f"{GRADIENT}/total"  # the score, summed over the batch
TARGET_INDEX = "target_index"
SCALE_INPUT = "grad_scale"

# Metadata of a file that we hand out.
KIND_KEY = "onnx_gradcam.kind"
NAMES_KEY = "onnx_gradcam.names"
GRADIENT_GRAPH = "gradient graph"


def gradient_output(value: str) -> str:
    """Return what the gradient with respect to a value is called."""
    return f"{GRADIENT}/{value}"


def curvature_output(value: str) -> str:
    """Return what the product of the Hessian with a value is called."""
    return f"{GRADIENT}/curvature/{value}"


def target_parameter(name: str) -> str:
    """Return what the graph input for a parameter of a target is called."""
    return f"target/{name}"


def changed_input(value: str) -> str:
    """Return what the graph input for changed copies of a value is called."""
    return f"{CHANGED}/{value}"


def at_baseline(value: str) -> str:
    """Return what a value of the second forward pass is called."""
    return f"{BASELINE}/{value}"


def dense_score(name: str) -> str:
    """Return what a value beside the score of a dense output is called."""
    return f"{DENSE_SCORE}/{name}"


def folded(value: str) -> str:
    """Return what the initializer is called that holds what a value always is."""
    return f"{value}/folded"


def dequantized(value: str) -> str:
    """Return what the real numbers are called that a quantized value stands for."""
    return f"{value}/dequantized"


def replaced(value: str) -> str:
    """Return what a value is called when another one has taken its name."""
    return f"{value}/replaced"


def real(name: str) -> str:
    """Return what a value or a node is called that stands for a quantized one, without its rounding."""
    return f"{name}/real"


def delta(value: str) -> str:
    """Return what the input is called that is added to a value."""
    return f"delta/{value}"


def moved(value: str) -> str:
    """Return what the sum of a value and its ``delta`` is called."""
    return f"moved/{value}"


def held(value: str) -> str:
    """Return what the initializer is called that is read in place of a value."""
    return f"held/{value}"


# --- the model's own names --------------------------------------------------------------------------------------


def names_in(graph: ir.Graph) -> set[str]:
    """Return the names of all values and nodes of a graph and of the bodies in it."""
    taken: set[str | None] = set()
    for part in [graph, *graph.subgraphs()]:
        taken.update(v.name for v in [*part.inputs, *part.initializers.values(), *part.outputs])
        for node in part:
            taken.update([node.name, *(v.name for v in node.outputs)])
    return {name for name in taken if name}


def values_by_name(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return the values of a graph by name: inputs, initializers and what its nodes make, not what bodies hold.

    Two bodies may use the same names, and may use those that the graph around them uses further down.
    """
    values = [*graph.initializers.values(), *graph.inputs, *(v for node in graph for v in node.outputs)]
    return {v.name: v for v in values if v.name}


def claim(name: str, taken: set[str]) -> str:
    """Take ``name``, or one like it that is free, and return it.

    Args:
        name: the name as it should be.
        taken: the names that are in use; what is returned is added to them.

    Returns:
        ``name``; where that is taken ``ogc/<name>``, or ``ogc/<name>_2`` and so on.
    """
    aside = f"{ASIDE}/{name}"
    numbered = (f"{aside}_{number}" for number in itertools.count(2))
    free = next(n for n in itertools.chain([name, aside], numbered) if n not in taken)
    taken.add(free)
    return free


# --- gradient graphs --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GradientNames:
    """What the parts of a gradient graph are called.

    Attributes:
        score: the output that holds the score of each row, (N,).
        class_index: the output that holds the class that each row explains, (N,) int64.
        inputs: the inputs beside the model's own: ``target_index``, the parameters of a target by their own names, and
            ``grad_scale`` where gradients are scaled.
        gradients: the outputs that hold the gradients, by the names of the values.
        curvatures: the same for the products of the Hessian with the values.
    """

    score: str
    class_index: str
    inputs: Mapping[str, str]
    gradients: Mapping[str, str]
    curvatures: Mapping[str, str] = field(default_factory=dict)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of all outputs that the backward pass gives."""
        return (self.score, self.class_index, *self.gradients.values(), *self.curvatures.values())

    def as_metadata(self) -> dict[str, str]:
        """Return the entries of ``metadata_props`` that tell a reader of the file what is called what."""
        return {KIND_KEY: GRADIENT_GRAPH, NAMES_KEY: json.dumps(asdict(self), allow_nan=False)}


def gradient_names(model: ir.Model) -> GradientNames | None:
    """Return what a gradient graph calls its parts, or None where a model is none.

    A file that this package wrote says so in its metadata. One without metadata counts where it follows the convention:
    an input ``target_index``, outputs ``grad/score``, ``grad/class_index`` and a value with its ``grad/<name>``.

    Raises:
        ModelError: the metadata of a file of ours was changed and cannot be read.
    """
    if kind_in_metadata(model) != GRADIENT_GRAPH:
        return _by_convention(model.graph)
    try:
        return GradientNames(**json.loads(model.metadata_props.get(NAMES_KEY, "")))
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"the metadata of the gradient graph cannot be read: {error}",
            where=f"metadata {NAMES_KEY!r}",
            hint="the file as gradient_model or roads wrote it",
        ) from None


def kind_in_metadata(model: ir.Model) -> str:
    """Return which kind of file of ours a model is by its metadata, "" where it is none."""
    return model.metadata_props.get(KIND_KEY, "")


def _by_convention(graph: ir.Graph) -> GradientNames | None:
    outputs = {v.name or "" for v in graph.outputs}
    given = {v.name or "" for v in graph.inputs}
    if TARGET_INDEX not in given or not {SCORE_OUTPUT, CLASS_OUTPUT} <= outputs:
        return None
    value_of = {gradient_output(name): name for name in values_by_name(graph)}
    ordinary = [v.name or "" for v in graph.outputs if v.name not in (SCORE_OUTPUT, CLASS_OUTPUT)]
    gradients = {value_of[output]: output for output in ordinary if output in value_of}
    inputs = {name: name for name in (TARGET_INDEX, SCALE_INPUT) if name in given}
    return GradientNames(SCORE_OUTPUT, CLASS_OUTPUT, inputs, gradients) if gradients else None
