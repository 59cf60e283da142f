"""The box of a detector's class: that of its most probable cell, which is the cell that a class explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnx_gradcam.targets.bound import Context, ForwardPass, RowTarget
from onnx_gradcam.targets.detected import box_of, made_of
from onnx_gradcam.targets.suppression import WHY_NO_BOX

NO_BOX = f"no box is drawn: {WHY_NO_BOX}"


def add_class_boxes(
    context: Context, forward: ForwardPass, images: Sequence[int], rows: Sequence[RowTarget]
) -> list[RowTarget]:
    """Return the rows of a detector, those of classes with their box and with what their probability is made of.

    Args:
        context: the model.
        forward: the forward pass, with what ``DenseTensors.detection`` names.
        images: the number of the image of each row.
        rows: what is explained.
    """
    return [
        _with_box(context, forward, image, row) if row.of_best_cell else row
        for image, row in zip(images, rows, strict=True)
    ]


def _with_box(context: Context, forward: ForwardPass, image: int, row: RowTarget) -> RowTarget:
    cell = int(forward.dense["cell_number"][image, row.class_index, 0])
    box = box_of(context, forward, image, cell)
    product = made_of(context, forward, image, row.class_index, cell)
    return replace(row, box=box, made_of=product, warning=row.warning or ("" if box else NO_BOX))
