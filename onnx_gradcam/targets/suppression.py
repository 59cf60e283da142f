"""All boxes that a detector finds in an image, without those that repeat another: a suppression of our own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnx_gradcam.errors import TargetError
from onnx_gradcam.targets import detections
from onnx_gradcam.targets.base import TargetObject
from onnx_gradcam.targets.bound import Array, BoundTarget, Context, ForwardPass, RowTarget, one_hot
from onnx_gradcam.targets.detected import Detections, made_of, read_detections
from onnx_gradcam.targets.kinds import CELL

MOST = 10
OVERLAP = 0.45


@dataclass(frozen=True)
class Boxes(TargetObject):
    """The boxes that a detector finds, the most probable first; each is a row, with its map.

    Of boxes of one class that overlap, the most probable is kept (a greedy non-maximum suppression). Where none is
    above the threshold, it is the most probable box alone, with the caution "nothing detected".

    >>> Boxes(5, threshold=0.5)
    Boxes(k=5, threshold=0.5, overlap=0.45)

    Attributes:
        k: how many at most.
        threshold: the least probability; None: that of ``explain``.
        overlap: the intersection over union above which two boxes of one class are the same.
    """

    k: int = MOST
    threshold: float | None = None
    overlap: float = OVERLAP

    def bind(self, context: Context) -> BoundTarget:
        """Return the target that explains the boxes of each image."""
        self._check()
        context.require(self, "detector")
        least = context.threshold if self.threshold is None else self.threshold

        def rows(forward: ForwardPass, image: int) -> tuple[RowTarget, ...]:
            seen = read_detections(context, forward, image)
            if seen.layout is None or seen.boxes is None:
                raise context.refusal(self, f"needs the boxes to tell which repeat another, and {WHY_NO_BOX}")
            kept = self._kept(seen.probability, seen.boxes, least)
            of_each = [_row(context, seen, c, cell) for c, cell in kept]
            return tuple(
                replace(row, made_of=made_of(context, forward, image, c, cell))
                for row, (c, cell) in zip(of_each, kept, strict=True)
            )

        return BoundTarget(CELL, rows)

    def _check(self) -> None:
        shares = [v for v in (self.threshold, self.overlap) if v is not None]
        if self.k < 1 or not all(0 <= share <= 1 for share in shares):
            raise TargetError(f"{self} names no boxes", hint="Boxes(10, threshold=0.25, overlap=0.45)", target=self)

    def _kept(self, probability: Array, boxes: Array, least: float) -> list[tuple[int, int]]:
        """Return class and cell of each box; ``probability`` (K, P), ``boxes`` (P, 4)."""
        classes, cells = np.nonzero(probability >= least)
        if not len(classes):
            best, cell = np.unravel_index(int(probability.argmax()), probability.shape)
            return [(int(best), int(cell))]
        kept = suppress(boxes[cells], probability[classes, cells], classes, self.overlap, self.k)
        return [(int(classes[i]), int(cells[i])) for i in kept]


WHY_NO_BOX = "the form in which this detector gives its boxes could not be told"


def suppress(boxes: Array, probability: Array, classes: Array, overlap: float, most: int) -> list[int]:
    """Return the numbers of the boxes that are kept, the most probable first.

    Args:
        boxes: (B, 4), x1, y1, x2, y2.
        probability: (B,).
        classes: (B,), the class of each box; boxes of different classes do not suppress each other.
        overlap: the intersection over union above which the less probable of two is left out.
        most: how many are kept at most.
    """
    kept: list[int] = []
    left = np.argsort(-probability, kind="stable")
    while len(left) and len(kept) < most:
        first = int(left[0])
        kept.append(first)
        repeats = (detections.overlap(boxes[left], boxes[first]) > overlap) & (classes[left] == classes[first])
        repeats[0] = True
        left = left[~repeats]
    return kept


def _row(context: Context, seen: Detections, class_index: int, cell: int) -> RowTarget:
    row = RowTarget(
        CELL,
        class_index,
        {"mask": one_hot(seen.probability.shape[1], cell)},
        f"cell:{class_index}@{cell}",
        f"{context.label(class_index)}, box {cell}",
    )
    return replace(
        row,
        cell_number=cell,
        level=seen.level(cell),
        probability=float(seen.probability[class_index, cell]),
        box=seen.box(cell),
    )
