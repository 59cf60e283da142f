"""A box that a detector gives for an image, and what it gives about the same place for changed copies of the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.errors import MethodError
from onnx_gradcam.targets import detections
from onnx_gradcam.targets.bound import Array, Context, ForwardPass, RowTarget
from onnx_gradcam.targets.detected import BACKGROUND, find_layout, of_classes, sigmoid
from onnx_gradcam.targets.detections import BoxLayout
from onnx_gradcam.targets.suppression import WHY_NO_BOX


@dataclass(frozen=True, eq=False)
class Proposal:
    """A box of a detector, with what goes with it.

    Attributes:
        box: (4,) x1, y1, x2, y2 in pixels of the input.
        classes: (K,) the probabilities of the classes alone; 0 for a background.
        is_background: (K,) bool.
        layout: how the model gives its boxes.
    """

    box: Array
    classes: Array
    is_background: Array
    layout: BoxLayout


@dataclass(frozen=True, eq=False)
class Rivals:
    """The boxes of a changed copy that overlap one box, P of them.

    Attributes:
        overlap: (P,) the intersection over union with it.
        classes: (K, P) the probabilities of the classes alone; 0 for a background.
        objectness: (P,); where the detector has none, the highest probability of a class.
    """

    overlap: Array
    classes: Array
    objectness: Array


def proposal_of(context: Context, forward: ForwardPass, image: int, row: RowTarget) -> Proposal:
    """Return the box that a row is about, as the detector gives it for the image.

    Raises:
        MethodError: the row is about no box, or the boxes are not known.
    """
    layout = find_layout(context, forward, image)
    if layout is None:
        raise MethodError(
            "method 'd-rise' compares boxes: "
            + (WHY_NO_BOX if "boxes" in forward.dense else "this model has none beside its scores"),
            where=f"score {context.score.name!r}",
            hint="'rise', which explains the score itself",
            method="d-rise",
        )
    cell = row.cell_number
    if row.of_best_cell:
        cell = int(forward.dense["cell_number"][image, row.class_index, 0])
    if cell is None:
        raise MethodError(
            f"method 'd-rise' explains a box, and {row.text or 'this target'!r} is about none",
            hint="a class, --target boxes, cell:K or point:X,Y; or 'rise', which explains the score itself",
            method="d-rise",
        )
    is_background = np.asarray(forward.ranking[image] <= BACKGROUND)
    box = boxes_of(context, layout, forward.dense, image)[cell]
    classes = of_classes(context, forward.dense["logits"][image][:, cell : cell + 1])[:, 0]
    return Proposal(box, np.where(is_background, 0, classes), is_background, layout)


def boxes_of(context: Context, layout: BoxLayout, dense: Mapping[str, Array], copy: int) -> Array:
    """Return the boxes (P, 4) that a detector gives for a changed copy, in pixels of the input.

    Args:
        context: the model.
        layout: how the model gives its boxes.
        dense: arrays by attribute of ``DenseTensors``, one entry for each copy.
        copy: the number of the copy.
    """
    return detections.decoded_boxes(layout.form, dense["boxes"][copy].astype(np.float64), layout.where, context.size)


def rivals(context: Context, proposal: Proposal, boxes: Array, dense: Mapping[str, Array], copy: int) -> Rivals:
    """Return what a detector gives for a changed copy, where it overlaps a box; ``boxes``: as ``boxes_of``."""
    overlap = detections.overlap(boxes, proposal.box)
    near = np.flatnonzero(overlap > 0)
    classes = of_classes(context, dense["logits"][copy][:, near])
    classes[proposal.is_background] = 0
    if "objectness" in dense:
        objectness = sigmoid(dense["objectness"][copy, 0, near].astype(np.float64))
    else:
        objectness = classes.max(axis=0, initial=0.0)
    return Rivals(overlap[near], classes, objectness)
