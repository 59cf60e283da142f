"""A detector's box, by its number or a point in it: its class score, its objectness, its overlap with a given box."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from onnx_gradcam.anatomy.dense.tensors import dims_of
from onnx_gradcam.errors import TargetError
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.targets import detections
from onnx_gradcam.targets.base import TargetObject
from onnx_gradcam.targets.bound import Array, BoundTarget, Context, ForwardPass, RowTarget, one_hot, one_row
from onnx_gradcam.targets.classes import TOP1
from onnx_gradcam.targets.contrasts import Class
from onnx_gradcam.targets.detected import Detections, made_of, read_detections
from onnx_gradcam.targets.kinds import CELL, OBJECTNESS, iou
from onnx_gradcam.targets.regions import Corners, box_in_input, check_box, unseen

WHICH = 'Box(1234) or Box(point=(x, y)), with what="objectness" for that; Box(what="iou", box=(x1, y1, x2, y2))'


@dataclass(frozen=True)
class Box(TargetObject):
    """One box of a detector, as the network makes it, before any suppression.

    The box is the one with the number ``index``, or the most probable of those that ``point`` lies in. For "iou" with
    neither of them it is the one with the largest product of probability and overlap with ``box``.

    Attributes:
        index: the number of the box, from 0.
        point: (x, y) in pixels of the photo; for arrays in pixels of the input.
        what: "class" (its score for the class ``label``), "objectness", or "iou" (its intersection over union with
            ``box``).
        label: the class, by index or label; None: the most probable class of the box.
        box: (x1, y1, x2, y2), for "iou", in pixels as ``point``.
    """

    index: int | None = None
    point: tuple[float, float] | None = None
    what: str = "class"
    label: Class = None
    box: Corners | None = None
    place_text: str = field(default="", repr=False)  # the place in pixels of the photo, as --target has it

    def in_input(self, geometry: Geometry) -> Box:
        """Return the same with point and box in the pixels of the model's input."""
        point, box = self.point, self.box
        if point is not None:
            x1, y1, x2, y2 = geometry.seen
            if not (x1 <= point[0] < x2 and y1 <= point[1] < y2):
                raise unseen(self, f"the point {point}", geometry)
            (sy, sx), (oy, ox) = geometry.scale, geometry.offset
            point = (point[0] * sx + ox, point[1] * sy + oy)
        if box is not None:
            box = box_in_input(self, box, geometry)
        return replace(self, point=point, box=box, place_text=self._place)

    def bind(self, context: Context) -> BoundTarget:
        """Return the target that explains the box of each image."""
        self._check()
        context.require(self, "detector")
        dense = context.score.dense
        assert dense is not None
        if self.what == "objectness" and dense.objectness is None:
            raise context.refusal(self, "needs an objectness, and this detector has none")
        if self.what == "iou" and (dense.boxes is None or not dense.has_maps):
            raise context.refusal(self, "needs the boxes, and none were found beside the scores")
        index = context.class_index(self.label)
        columns = None if dense.boxes is None else dims_of(dense.boxes)[1]
        functions = detections.simplest_functions(columns if isinstance(columns, int) else None)
        kinds = {"class": CELL, "objectness": OBJECTNESS, "iou": iou(*functions)}
        explain = {"class": self._class_row, "objectness": self._objectness_row, "iou": self._overlap_row}[self.what]

        def row(forward: ForwardPass, image: int) -> RowTarget:
            seen = read_detections(context, forward, image)
            probability = seen.probability.max(axis=0) if index == TOP1 else seen.probability[index]
            cell = self._cell_number(context, seen, probability)
            c = int(seen.probability[:, cell].argmax()) if index == TOP1 else index
            return replace(
                explain(context, seen, cell, c),
                cell_number=cell,
                level=seen.level(cell),
                probability=float(seen.probability[c, cell]),
                made_of=made_of(context, forward, image, c, cell),
                box=seen.box(cell),
            )

        return one_row(kinds[self.what], row)

    def _check(self) -> None:
        picks = (self.index is not None) + (self.point is not None)
        has_box = self.box is not None
        known = self.what in ("class", "objectness", "iou") and has_box == (self.what == "iou")
        if not known or picks > 1 or (picks == 0 and not has_box):
            raise TargetError(f"{self} names no box", hint=WHICH, target=self)
        if self.box is not None:
            check_box(self, self.box)

    def _cell_number(self, context: Context, seen: Detections, probability: Array) -> int:
        """Return the number of the cell whose box is explained; ``probability`` (P,) of the class."""
        if self.index is not None:
            count = len(probability)
            if not 0 <= self.index < count:
                raise TargetError(
                    f"box {self.index} of {count}", hint=f"a number from 0 to {count - 1}", target=self.index
                )
            return self.index
        if self.point is None:
            assert seen.boxes is not None
            assert self.box is not None
            return int((detections.overlap(seen.boxes, np.array(self.box)) * probability).argmax())
        if seen.boxes is None:
            raise context.refusal(self, "needs boxes or their cells to find a point in, and finds none")
        inside = detections.contain(seen.boxes, self.point)
        if not inside.any():
            raise TargetError(
                f"no box of the detector contains the point {self._place}",
                hint="a point on an object that it finds; or a box by number: cell:K",
                target=self,
            )
        return int(np.where(inside, probability, -1).argmax())

    def _class_row(self, context: Context, seen: Detections, cell: int, c: int) -> RowTarget:
        form = "cell" if self.point is None else "point"
        mask = one_hot(seen.probability.shape[1], cell)
        title = f"{context.label(c)}, box {self._name_of(cell)}"
        return RowTarget(CELL, c, {"mask": mask}, f"{form}:{c}@{self._place}", title)

    def _objectness_row(self, context: Context, seen: Detections, cell: int, c: int) -> RowTarget:
        mask = one_hot(seen.probability.shape[1], cell)
        title = f"objectness of box {self._name_of(cell)}"
        return RowTarget(OBJECTNESS, -1, {"mask": mask}, f"objectness:{self._place}", title)

    def _overlap_row(self, context: Context, seen: Detections, cell: int, c: int) -> RowTarget:
        if seen.layout is None:
            raise TargetError(
                "the form in which this detector gives its boxes is not known",
                hint="its class scores or objectness: cell:K, objectness:K",
                target=self,
            )
        assert self.box is not None
        matrix, origin = detections.affine(seen.layout.form, seen.layout.where, context.size)
        parameters = {
            "mask": one_hot(seen.probability.shape[1], cell),
            "matrix": matrix[cell].astype(np.float32),
            "origin": origin[cell].astype(np.float32),
            "box": np.array(self.box, np.float32),
        }
        corners = self._place.rpartition("@")[2].replace(",", ", ")
        title = f"IoU of box {self._name_of(cell)} with ({corners})"
        return RowTarget(iou(*seen.layout.form.functions), -1, parameters, f"iou:{self._place}", title)

    @property
    def _place(self) -> str:
        """Return the place as ``--target`` has it."""
        if self.place_text:
            return self.place_text
        pick = str(self.index) if self.index is not None else _listed(self.point) if self.point else ""
        corners = _listed(self.box) if self.box else ""
        return f"{pick}@{corners}" if pick and corners else pick or corners

    def _name_of(self, cell: int) -> str:
        if self.point is None:
            return str(cell)
        point = self._place.partition("@")[0]
        return f"{cell} at ({point.replace(',', ', ')})"


def _listed(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{n:g}" for n in numbers)
