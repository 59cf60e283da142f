"""The lines by which a user settles what no output tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnx_gradcam.anatomy.dense.heads import BOX
from onnx_gradcam.anatomy.dense.reading import column_axis, with_columns
from onnx_gradcam.anatomy.entries.columns import Entries
from onnx_gradcam.anatomy.sizes import Sizes
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.flow import is_float

ANCHORS = (3, 5)
SHOWN = 3  # outputs that are named


def settling_lines(graph: ir.Graph, known: Mapping[Value, Entries]) -> str:
    """Return the lines that say what the outputs with many numbers for each image hold; "" where there are none.

    Args:
        graph: a prepared graph.
        known: the entries of its values.
    """
    many = [v for v in graph.outputs if is_float(v) and v.shape is not None and len(v.shape) >= len("NPK")]
    if not many:
        return ""
    sizes = Sizes.of(graph)
    counts = [sizes.dims(value)[column_axis(value, known)] for value in (with_columns(v, known) for v in many)]
    on_one_grid = len({tuple(map(str, sizes.dims(value))) for value in many}) < len(many)
    if len(set(counts)) > 1 or on_one_grid or not isinstance(counts[0], int):
        return f"scores of classes or of a mask: {' or '.join(f'--score {value.name}' for value in many[:SHOWN])}"
    what = "levels of one score, each column a class" if len(many) > 1 else "scores of classes or of a mask"
    lines = [f"{what}: {as_options(many)}"]
    if len(many) == 1 and counts[0] == 1:
        lines.append(f"values, as of a depth: --score {many[0].name} --target box:0@X1,Y1,X2,Y2")
    is_raw = all(v in known and all(column.is_raw for column in known[v].columns) for v in many)
    return "; ".join([*lines, *(lines_of_detector(many, counts[0]) if is_raw else [])])


def lines_of_detector(values: Sequence[Value], count: int) -> list[str]:
    """Return the lines for maps of ``count`` columns of a detector.

    They are boxes, an objectness and classes of anchors, or boxes beside classes.
    """
    anchors = next((a for a in ANCHORS if count % a == 0 and count // a > BOX + 1), None)
    of_anchors = f"{anchors} anchors of a box, an objectness and classes: {as_options(values, f':anchors={anchors}')}"
    beside = f"boxes beside classes (here behind 4 columns): {as_options(values, f':columns={BOX}-{count - 1}')}"
    return [*([of_anchors] if anchors else []), *([beside] if count > BOX else [])]


def as_options(values: Sequence[Value], rest: str = "") -> str:
    """Return the option ``--score`` for each of some values, with what is said of them."""
    return " ".join(f"--score {value.name}{rest}" for value in values)
