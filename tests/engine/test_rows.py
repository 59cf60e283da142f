"""The rows of an evaluation."""

from __future__ import annotations

from onnx_gradcam.engine.rows import Row, hold_targets
from onnx_gradcam.targets import CLASS, RowTarget


def test_what_rows_explain_is_held_image_by_image_in_their_order() -> None:
    rows = [Row(image, RowTarget(CLASS, index)) for image, index in [(0, 7), (0, 3), (1, 5), (2, 3), (2, 7)]]
    held = hold_targets(rows, 3)
    assert [[target.ahead and target.ahead.class_index for target in several] for several in held] == [
        [7, 3], [5], [3, 7]
    ]  # fmt: skip
