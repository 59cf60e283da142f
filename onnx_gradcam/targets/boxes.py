"""A detector's box, by its number or a point in it: its class score, its objectness, its overlap with a given box."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from onnx_gradcam.errors import TargetError
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.targets import detections
from onnx_gradcam.targets.base import TargetObject
from onnx_gradcam.targets.bound import Array, BoundTarget, Context, ForwardPass, RowTarget, one_hot
from onnx_gradcam.targets.classes import TOP1
from onnx_gradcam.targets.contrasts import Class
from onnx_gradcam.targets.detections import Layout
from onnx_gradcam.targets.kinds import CELL, OBJECTNESS, iou
from onnx_gradcam.targets.regions import Corners, box_in_input, check_box, unseen
from onnx_gradcam.targets.scoring import is_exclusive

WHICH = 'Box(1234) or Box(point=(x, y)), with what="objectness" for that; Box(what="iou", box=(x1, y1, x2, y2))'


@dataclass(frozen=True)
class Box(TargetObject):
    """One box of a detector, as the network makes them, before any suppression.

    Which: ``index``, its number; or ``point`` (x, y): the most probable of those that it lies in; for "iou" with
    neither of them that with the largest overlap with ``box`` times probability. ``what``: its score for the class
    ``label`` (None: for its most probable one), its "objectness", or its intersection over union, "iou", with ``box``
    (x1, y1, x2, y2).
    """

    index: int | None = None
    point: tuple[float, float] | None = None
    what: str = "class"
    label: Class = None
    box: Corners | None = None
    asked: str = field(default="", repr=False)

    def in_input(self, geometry: Geometry) -> Box:
        """Point and box in the pixels of the model's input."""
        point, box = self.point, self.box
        if point is not None:
            x1, y1, x2, y2 = geometry.seen
            if not (x1 <= point[0] < x2 and y1 <= point[1] < y2):
                raise unseen(self, f"the point {point}", geometry)
            (sy, sx), (oy, ox) = geometry.scale, geometry.offset
            point = (point[0] * sx + ox, point[1] * sy + oy)
        if box is not None:
            box = box_in_input(self, box, geometry)
        return replace(self, point=point, box=box, asked=self._where)

    def bind(self, context: Context) -> BoundTarget:
        """The score of the box."""
        self._check()
        context.require(self, "detector")
        dense = context.score.dense
        assert dense is not None
        if self.what == "objectness" and dense.objectness is None:
            raise context.refusal(self, "asks for an objectness, and this detector has none")
        if self.what == "iou" and (dense.boxes is None or dense.grids is None):
            raise context.refusal(self, "asks for the boxes, and none were found beside the scores")
        index = context.class_index(self.label)
        kinds = {"class": CELL, "objectness": OBJECTNESS, "iou": iou(*detections.plain_acts(dense.boxes))}
        aims = {"class": self._class, "objectness": self._objectness, "iou": self._overlap}

        def row(forward: ForwardPass, image: int) -> RowTarget:
            sight = see(context, forward, image)
            of_class = sight.probability.max(axis=0) if index == TOP1 else sight.probability[index]
            cell = self._cell_number(context, sight, of_class)
            c = int(sight.probability[:, cell].argmax()) if index == TOP1 else index
            found = aims[self.what](context, sight, cell, c)
            return replace(
                found,
                cell_number=cell,
                level=sight.level(cell),
                probability=float(sight.probability[c, cell]),
                box=None if sight.layout is None or sight.boxes is None else tuple(sight.boxes[cell].tolist()),
            )

        return BoundTarget(kinds[self.what], row)

    def _check(self) -> None:
        picks = (self.index is not None) + (self.point is not None)
        has_box = self.box is not None
        known = self.what in ("class", "objectness", "iou") and has_box == (self.what == "iou")
        if not known or picks > 1 or (picks == 0 and not has_box):
            raise TargetError(f"{self} names no box", hint=WHICH, target=self)
        if self.box is not None:
            check_box(self, self.box)

    def _cell_number(self, context: Context, sight: Sight, probability: Array) -> int:
        count = len(probability)
        if self.index is not None:
            if not 0 <= self.index < count:
                raise TargetError(
                    f"box {self.index} of {count}", hint=f"a number from 0 to {count - 1}", target=self.index
                )
            return self.index
        if self.point is None:
            assert sight.boxes is not None
            assert self.box is not None
            return int((detections.overlap(sight.boxes, np.array(self.box)) * probability).argmax())
        if sight.boxes is None:
            raise context.refusal(self, "needs boxes or their cells to find a point in, and finds none")
        inside = detections.contain(sight.boxes, self.point)
        if not inside.any():
            raise TargetError(
                f"no box of the detector contains the point {self._where}",
                hint="a point on an object that it finds; or a box by number: cell:K",
                target=self,
            )
        return int(np.where(inside, probability, -1).argmax())

    def _class(self, context: Context, sight: Sight, cell: int, c: int) -> RowTarget:
        form = "cell" if self.point is None else "point"
        mask = one_hot(sight.probability.shape[1], cell)
        return RowTarget(
            CELL, c, {"mask": mask}, f"{form}:{c}@{self._where}", f"{context.label(c)}, box {self._at(cell)}"
        )

    def _objectness(self, context: Context, sight: Sight, cell: int, c: int) -> RowTarget:
        mask = one_hot(sight.probability.shape[1], cell)
        title = f"objectness of box {self._at(cell)}"
        return RowTarget(OBJECTNESS, -1, {"mask": mask}, f"objectness:{self._where}", title)

    def _overlap(self, context: Context, sight: Sight, cell: int, c: int) -> RowTarget:
        if sight.layout is None:
            raise TargetError(
                "the form in which this detector gives its boxes is not known",
                hint="its class scores or objectness: cell:K, objectness:K",
                target=self,
            )
        assert self.box is not None
        matrix, origin = detections.affine(sight.layout.form, sight.layout.where, context.size)
        parameters = {
            "mask": one_hot(sight.probability.shape[1], cell),
            "matrix": matrix[cell].astype(np.float32),
            "origin": origin[cell].astype(np.float32),
            "box": np.array(self.box, np.float32),
        }
        title = f"IoU of box {self._at(cell)} with ({self._corners.replace(',', ', ')})"
        return RowTarget(iou(*sight.layout.form.acts), -1, parameters, f"iou:{self._where}", title)

    @property
    def _corners(self) -> str:
        return self._where.rpartition("@")[2]

    @property
    def _where(self) -> str:
        """The place, as ``--target`` has it."""
        if self.asked:
            return self.asked
        pick = str(self.index) if self.index is not None else _listed(self.point) if self.point else ""
        corners = _listed(self.box) if self.box else ""
        return f"{pick}@{corners}" if pick and corners else pick or corners

    def _at(self, cell: int) -> str:
        if self.point is None:
            return str(cell)
        point = self._where.partition("@")[0]
        return f"{cell} at ({point.replace(',', ', ')})"


def _listed(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{n:g}" for n in numbers)


class Sight(NamedTuple):
    """What a detector gives for one image: ``probability`` (K, P), 0 for the background; ``boxes`` (P, 4) in the pixels
    of the input, by their ``layout``, or else one stride about each cell; ``ends``: of the levels among the cells."""

    probability: Array
    boxes: Array | None
    layout: Layout | None
    ends: Array

    def level(self, cell: int) -> int:
        """The level of a cell."""
        return int(np.searchsorted(self.ends, cell, side="right"))


def see(context: Context, forward: ForwardPass, image: int) -> Sight:
    """The boxes of an image, of a forward pass."""
    probability = _probability(context, forward, image)
    grids = forward.dense["grids"][0] if "grids" in forward.dense else None
    if grids is None:
        return Sight(probability, None, None, np.array([probability.shape[1]]))
    ends = np.cumsum(grids[:, 0])
    if "boxes" in forward.dense:
        raw = forward.dense["boxes"][image].astype(np.float64)
        layout = detections.layout(raw, grids, context.size, probability.max(axis=0))
        if layout is not None:
            return Sight(probability, detections.decoded(layout.form, raw, layout.where, context.size), layout, ends)
    if (grids[:, 0] != grids[:, 1] * grids[:, 2]).any():
        return Sight(probability, None, None, ends)
    where = detections.cells(grids, context.size, False)
    about = np.concatenate([where.centre - where.stride / 2, where.centre + where.stride / 2], axis=1)
    return Sight(probability, about, None, ends)


def _probability(context: Context, forward: ForwardPass, image: int) -> Array:
    """(K, P): of a Softmax or Sigmoid, times the objectness; 0 for a background, which ranks below everything."""
    y = forward.dense["logits"][image].astype(np.float64)
    p: Array
    if is_exclusive(context.score):
        p = np.exp(y - y.max(axis=0))
        p /= p.sum(axis=0)
    else:
        p = _sigmoid(y)
    if "objectness" in forward.dense:
        return p * _sigmoid(forward.dense["objectness"][image].astype(np.float64))
    p[forward.ranking[image] <= BACKGROUND] = 0
    return p


def _sigmoid(z: Array) -> Array:
    found: Array = np.exp(-np.logaddexp(0, -z))
    return found


BACKGROUND = -1e38  # ``graph.dense`` ranks it so
