"""Values with one number, or one for each class, for each image: the score before a final Softmax or Sigmoid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.anatomy.axes import Dim
from onnx_gradcam.graph.flow import carries, is_float
from onnx_gradcam.graph.operators import AxisEffect, operators
from onnx_gradcam.graph.prepare.site import INSERTED
from onnx_gradcam.graph.quantization import quantized_form, real_form

Batches = Set[Dim | None]
BATCH_AXIS = "onnx_gradcam.batch_axis"
"""Key in the ``meta`` of a value: along which axis its images lie, where a run has shown that it is not the first."""
SQUASHES = operators(AxisEffect.SQUASHED) | {"Sigmoid", "QLinearSigmoid"}
# What is walked back over without a word; a Q/DQ pair, too: saturation is never applied to the score.
PASSED_OVER = operators(AxisEffect.COPIED, AxisEffect.REQUANTIZED, AxisEffect.RESHAPED, AxisEffect.TRANSPOSED)


@dataclass(frozen=True)
class Vector:
    """A value with one number, or one for each class, for each image.

    Attributes:
        value: the value, before the squashing operator.
        class_axis: the axis of the classes; None for a single number for each image.
        activation: the squashing operator behind it, "" for none.
        count: the number of classes; 2 for a single logit with a Sigmoid, 1 for another single number.
        output: the name of the graph output that the value leads to.
    """

    value: ir.Value
    class_axis: int | None
    activation: str
    count: int
    output: str


def leads_to(value: ir.Value) -> tuple[str, str]:
    """Return the squashing operator behind ``value``, and the graph output that it ends in; "" where there is none."""
    for node in [*value.consumers(), *quantized_form(value).consumers()]:
        if _passes(node) and node.inputs[0] in (value, quantized_form(value)) and node.outputs[0] is not value:
            activation, output = leads_to(node.outputs[0])
            if output:
                return node.op_type.removeprefix("QLinear") if node.op_type in SQUASHES else activation, output
    return "", (value.name or "") if value.is_graph_output() else ""


def _passes(node: ir.Node) -> bool:
    return node.domain in ("", "com.microsoft") and node.op_type in SQUASHES | PASSED_OVER


def walk_back(output: ir.Value, batches: Batches) -> Vector | None:
    """Return the score before a trailing Softmax, LogSoftmax or Sigmoid and the reshapes and casts around it."""
    name = output.name or ""
    trail = list(closing_nodes(output))
    squashing = next((node for node in trail if node.op_type in SQUASHES), None)
    if squashing is None:
        return _first(output, trail, "", name, batches)
    before = squashing.inputs[0]
    assert before is not None
    if not _is_over_classes(squashing, before):
        return None
    return _first(before, trail[trail.index(squashing) + 1 :], squashing.op_type.removeprefix("QLinear"), name, batches)


def closing_nodes(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes that made ``value``, back to the first one that computes something."""
    while (node := value.producer()) is not None and _passes(node):
        before = node.inputs[0]
        if before is None or not carries(before):
            return
        yield node
        value = before


def _first(value: ir.Value, trail: Sequence[ir.Node], activation: str, output: str, batches: Batches) -> Vector | None:
    """Return the score for ``value``, or for what it was made of where its batch axis is gone or an adapter made it."""
    score = describe(value, activation, output, batches)
    for node in trail:
        if not (_is_inserted(value) or (score is None and _is_vector(value))) or node.op_type in SQUASHES:
            break
        before = node.inputs[0]
        assert before is not None
        value, score = before, describe(before, activation, output, batches) or score
    return score


def _is_inserted(value: ir.Value) -> bool:
    """Tell whether raising the opset made it: the deployed file does not have it."""
    return INSERTED in value.meta


def _is_vector(value: ir.Value) -> bool:
    return value.shape is not None and sum(d != 1 for d in value.shape) <= 1


def _is_over_classes(node: ir.Node, value: ir.Value) -> bool:
    """Tell whether ``node`` normalises the only axis of ``value`` with several entries, beside that of the batch."""
    if node.op_type.endswith("Sigmoid") or value.shape is None:
        return True
    wide = [k for k, d in enumerate(value.shape) if k > 0 and d != 1]
    axis = node.attributes.get_int("axis", -1) % len(value.shape)
    return not wide or wide == [axis] or len(value.shape) == 1


def describe(value: ir.Value, activation: str, output: str, batches: Batches) -> Vector | None:
    """Return the score for ``value``, or None where it is not one score per class and image."""
    value = real_form(value)
    dims = [] if value.shape is None else list(value.shape)
    if not dims or not is_float(value) or isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
        return None
    if value.meta.get(BATCH_AXIS, 0) != 0:
        return None
    if all(isinstance(d, int) for d in (dims[0], *batches)) and dims[0] not in batches:
        return None
    wide = [k for k, d in enumerate(dims) if k > 0 and d != 1]
    if not wide:
        return Vector(value, None, activation, 2 if activation == "Sigmoid" else 1, output)
    count = dims[wide[0]]
    if len(wide) > 1 or not isinstance(count, int):
        return None
    return Vector(value, wide[0], activation, count, output)


def batch_axis(value: ir.Value, dims: Sequence[Dim], others: Sequence[int], batches: Batches) -> int | None:
    """Return which of the axes ``others`` is that of the images, None where none can be.

    It is the one that a run has shown, or one as long as the batch of the inputs. A dynamic one comes only after that:
    the steps of a sequence may stand before the images.
    """
    shown = [value.meta[BATCH_AXIS]] if BATCH_AXIS in value.meta else []
    equal = [k for k in others if dims[k] in batches]
    return next(iter([*shown, *equal, *(k for k in others if not isinstance(dims[k], int))]), None)
