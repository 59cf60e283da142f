"""What a detector gives for one image: probabilities, what they are made of, boxes and levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_gradcam.targets import detections
from onnx_gradcam.targets.bound import Array, Context, ForwardPass
from onnx_gradcam.targets.detections import BoxLayout, ShownLayout
from onnx_gradcam.targets.scoring import is_exclusive

BACKGROUND = -1e38  # the dense score ranks a background below this


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector gives for one image.

    Attributes:
        probability: (K, P) of each class in each cell, the objectness included; 0 for the background.
        boxes: (P, 4) in pixels of the input, by their ``layout``, or else one stride about each cell; None: not known.
        layout: how the model gives its boxes; None where that is not known.
        level_ends: (levels,) the number of the first cell behind each level.
    """

    probability: Array
    boxes: Array | None
    layout: BoxLayout | None
    level_ends: Array

    def level(self, cell: int) -> int:
        """Return the level of a cell."""
        return int(np.searchsorted(self.level_ends, cell, side="right"))

    def box(self, cell: int) -> tuple[float, ...] | None:
        """Return the box of a cell, x1, y1, x2, y2 in pixels of the input; None where the layout is not known."""
        return None if self.layout is None or self.boxes is None else tuple(self.boxes[cell].tolist())


def read_detections(context: Context, forward: ForwardPass, image: int) -> Detections:
    """Return what the forward pass gives for one image."""
    probability = _probability(context, forward, image)
    grids = forward.dense["grids"][0] if "grids" in forward.dense else None
    ends = np.array([probability.shape[1]]) if grids is None else np.cumsum(grids[:, 0])
    layout = find_layout(context, forward, image)
    if layout is not None:
        raw = forward.dense["boxes"][image].astype(np.float64)
        boxes = detections.decoded_boxes(layout.form, raw, layout.where, context.size)
        return Detections(probability, boxes, layout, ends)
    if grids is None or (grids[:, 0] != grids[:, 1] * grids[:, 2]).any():
        return Detections(probability, None, None, ends)
    where = detections.cells(grids, context.size, False)
    about = np.concatenate([where.centre - where.stride / 2, where.centre + where.stride / 2], axis=1)
    return Detections(probability, about, None, ends)


def find_layout(context: Context, forward: ForwardPass, image: int) -> BoxLayout | None:
    """Return how the model gives its boxes, or None where that cannot be told.

    It is a property of the model, and an image shows it. What an image has shown is kept in ``context.layouts``, until
    something is detected on one of which the model is surer.
    """
    if "boxes" not in forward.dense:
        return None
    if "grids" not in forward.dense:
        return detections.query_layout(forward.dense["boxes"][image].astype(np.float64))
    grids = forward.dense["grids"][0]
    key, rank = (context.size, grids.tobytes()), float(forward.ranking[image].max())
    known = context.layouts.get(key)
    if known is None or not (known.is_settled or rank <= known.rank):
        best = _probability(context, forward, image).max(axis=0)
        layout = detections.box_layout(forward.dense["boxes"][image].astype(np.float64), grids, context.size, best)
        known = ShownLayout(layout, rank, layout is not None and bool(best.max() >= context.threshold))
        context.layouts[key] = known
    return known.layout


def box_of(context: Context, forward: ForwardPass, image: int, cell: int) -> tuple[float, ...] | None:
    """Return the box of a cell, x1, y1, x2, y2 in pixels of the input; None where the layout is not known."""
    layout = find_layout(context, forward, image)
    if layout is None:
        return None
    raw = forward.dense["boxes"][image, :, cell : cell + 1].astype(np.float64)
    return tuple(detections.decoded_boxes(layout.form, raw, layout.where.at(cell), context.size)[0].tolist())


def made_of(context: Context, forward: ForwardPass, image: int, class_index: int, cell: int) -> str:
    """Return what the probability of a class in a cell is a product of; "" for a detector without an objectness."""
    if "objectness" not in forward.dense:
        return ""
    of_class = of_classes(context, forward.dense["logits"][image, :, cell : cell + 1])[class_index, 0]
    objectness = sigmoid(forward.dense["objectness"][image, 0, cell].astype(np.float64))
    return f"objectness {objectness:.3g} × class {of_class:.3g}"


def _probability(context: Context, forward: ForwardPass, image: int) -> Array:
    """Return the probabilities (K, P) of a Softmax or Sigmoid, times the objectness.

    They are 0 for a background, which ranks below everything.
    """
    p = of_classes(context, forward.dense["logits"][image])
    if "objectness" in forward.dense:
        return p * sigmoid(forward.dense["objectness"][image].astype(np.float64))
    p[forward.ranking[image] <= BACKGROUND] = 0
    return p


def of_classes(context: Context, logits: Array) -> Array:
    """Return the probabilities (K, P) of the classes alone, by a Softmax over them or a Sigmoid of each."""
    y = logits.astype(np.float64)
    if not is_exclusive(context.score):
        return sigmoid(y)
    p: Array = np.exp(y - y.max(axis=0))
    p /= p.sum(axis=0)
    return p


def sigmoid(z: Array) -> Array:
    """Return 1 / (1 + exp(−z)), without overflow."""
    p: Array = np.exp(-np.logaddexp(0, -z))
    return p
