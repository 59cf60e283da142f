"""Raw heads of detectors, point finders and readers: logits that nothing squashes, told by what goes together.

The outputs are what convolutions and linear layers make, only moved. Their numbers of columns, on each grid, say what
they are: four columns or distributions of four distances are boxes, a single one beside classes is the objectness,
groups of equal columns on several grids are the levels of one head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnx_gradcam.anatomy.axes import Dim
from onnx_gradcam.anatomy.dense.anchored import apart, has_boxes
from onnx_gradcam.anatomy.dense.grouping import PAIR
from onnx_gradcam.anatomy.dense.heads import BOX
from onnx_gradcam.anatomy.dense.outputs import ScoredOutput, scored_output
from onnx_gradcam.anatomy.dense.parts import (
    CHANGED,
    RAW,
    SQUASHED,
    Grids,
    Part,
    by_grid,
    counted,
    is_convolved,
    parts_of,
)
from onnx_gradcam.anatomy.dense.tensors import columns
from onnx_gradcam.anatomy.entries.columns import Entries, columns_in
from onnx_gradcam.anatomy.grids import input_axes
from onnx_gradcam.anatomy.sizes import Sizes
from onnx_gradcam.anatomy.tokens import is_open
from onnx_gradcam.anatomy.vectors import Batches
from onnx_gradcam.graph.builder import Value

ANCHORS = 3  # in each cell, where one convolution makes boxes, objectness and classes of all
ANCHORS_OF_ONE_LEVEL = (5, 3)
WELL_KNOWN = (20, 80)  # classes of the data sets that detectors are published with
COARSE = 4  # a detector's cells lie at least so many pixels apart


def raw_heads(
    graph: ir.Graph, known: Mapping[Value, Entries], batches: Batches, sizes: Sizes, named: Sequence[Value] = ()
) -> list[ScoredOutput]:
    """Return the outputs, or parts of them, that hold the raw logits of a detector or reader; empty: none are told.

    Args:
        graph: a prepared graph.
        known: the entries of its values.
        batches: the first dimensions of the inputs.
        sizes: the sizes of its values.
        named: the values that the user names; none: the outputs of the graph.
    """
    values = list(named or graph.outputs)
    every = by_grid(_of_outputs(values, known, batches, sizes))
    grids = [parts for parts in every if any(part.state == RAW for part in parts)]
    space = _image_space(graph, sizes)
    coarse = [parts for parts in grids if _is_coarse(parts[0].cells, space)]
    if len(coarse) == len(grids) and grids:
        only_raw = [[part for part in parts if part.state == RAW] for parts in grids]
        for heads in (apart(grids, batches), _anchors(only_raw, batches), _heat_map(only_raw, batches)):
            if heads:
                return heads
    if heads := apart([parts for parts in coarse if has_boxes(parts)], batches):
        return heads
    if named:
        return []
    raw = [part for parts in grids for part in parts if part.state == RAW]
    return _queries(graph, raw, known, batches) or _steps(graph, raw, space, batches)


def squashed_anchors(
    graph: ir.Graph, known: Mapping[Value, Entries], batches: Batches, sizes: Sizes
) -> list[ScoredOutput]:
    """Return the classes of heads of several anchors in each cell, of which a Sigmoid squashes all columns.

    Either it squashes the columns of boxes that nothing decodes, too, and the outputs are all that the model has, of
    equal columns on several grids; or the boxes are maps of their own. Empty: they are something else.
    """
    parts = _of_outputs(graph.outputs, known, batches, sizes)
    grids = by_grid(parts)
    is_one_for_each = len(parts) == len(graph.outputs) == len(grids)
    if parts and is_one_for_each and all(part.state == SQUASHED for part in parts):
        return [replace(head, raw="") for head in _anchors(grids, batches)]
    return apart([of_grid for of_grid in grids if has_boxes(of_grid)], batches, SQUASHED)


def _of_outputs(values: Sequence[Value], known: Mapping[Value, Entries], batches: Batches, sizes: Sizes) -> list[Part]:
    """Return the parts of all outputs; one of four columns that nothing is known of may be boxes."""
    parts = [part for value in values for part in parts_of(value, known, batches, sizes)]
    grids = {part.cells for part in parts}
    for value in (v for v in values if v not in known):
        dims = sizes.dims(value)
        for axis in {1, len(dims) - 1} if len(dims) > 2 and dims[0] in {*batches, 1} else ():
            cells = tuple(d for k, d in enumerate(dims) if k not in (0, axis))
            if dims[axis] == BOX and cells in grids:
                parts.append(Part(value, value, axis, 0, BOX, BOX, cells, CHANGED))
    return parts


def _image_space(graph: ir.Graph, sizes: Sizes) -> list[Dim]:
    """Return the height and width of the largest input with two spatial axes; empty where there is none."""
    images = [v for v in graph.inputs if v.shape is not None and len(v.shape) == 4]
    if not images:
        return []
    image = max(images, key=lambda v: sizes.numbers(v) or 0)
    axes = input_axes(list(graph), image) or (0, 1, 2, 3)
    return [sizes.dims(image)[k] for k in axes[2:]]


def _is_coarse(cells: Sequence[Dim], space: Sequence[Dim]) -> bool:
    """Tell whether a grid is as coarse as those of detectors are."""
    if len(cells) < len(space) or not space:
        return len(cells) == 1
    if len(cells) > len(space):
        return True
    return all(isinstance(a, int) and isinstance(b, int) and a * COARSE <= b for a, b in zip(cells, space, strict=True))


# --- patterns ---------------------------------------------------------------------------------------------------


def _anchors(grids: Grids, batches: Batches) -> list[ScoredOutput]:
    """Return the classes of heads whose one map holds box, objectness and classes of several anchors in each cell."""
    if any(len(parts) != 1 or parts[0].width != grids[0][0].width for parts in grids):
        return []
    anchors, width = _anchors_in(grids)
    if width <= BOX + 1:
        return []
    what = f"{anchors or 'anchors'} × (4 of a box, 1 objectness, {width - BOX - 1} classes)"
    reason = f"{grids[0][0].width} columns on {counted(grids)}: {what}"
    scored = _all_scored([of_anchors(parts[0], anchors or 1, width, batches, reason) for parts in grids])
    if len(grids) > 1:
        return scored
    return [replace(head, otherwise=f"each column is a class: --score {head.output.name}") for head in scored]


def _anchors_in(grids: Grids) -> tuple[int, int]:
    """Return how many anchors each cell has, and the columns of each; no columns where that is not told.

    There are 0 where they have an axis of their own, or lie behind one another as cells.
    """
    first = grids[0][0]
    if len(first.cells) == len("AHW") or (len(first.cells) == 1 and _are_rows_of_anchors(first)):
        return 0, first.width
    if len(first.cells) != len("HW"):
        return 1, 0
    if len(grids) > 1:
        return (ANCHORS, first.width // ANCHORS) if first.width % ANCHORS == 0 else (1, 0)
    known = [(a, first.width // a) for a in ANCHORS_OF_ONE_LEVEL if first.width % a == 0]
    return next((each for each in known if each[1] - BOX - 1 in WELL_KNOWN), (1, 0))


def _are_rows_of_anchors(part: Part) -> bool:
    """Tell whether convolutions made the columns of several anchors, which lie behind one another."""
    made = [columns_in(value, 1) for value in part.origins]
    return (
        bool(made)
        and is_convolved(part)
        and all(width is not None and width > part.width and width % part.width == 0 for width in made)
    )


def of_anchors(part: Part, anchors: int, width: int, batches: Batches, reason: str) -> ScoredOutput | None:
    """Return the classes of a map of ``anchors`` × (4 of a box, 1 objectness, classes), of ``width`` columns each."""
    source, axis = part.tensor(anchors), part.column_axis(anchors)
    classes = columns(source, axis, BOX + 1, width - BOX - 1, width)
    gate = columns(source, axis, BOX, 1, width)
    return scored_output(part.value, classes, axis, gate, None, "Sigmoid", batches, reason)


def _heat_map(grids: Grids, batches: Batches) -> list[ScoredOutput]:
    """Return the heat map that stands beside sizes and offsets of two columns."""
    scores = [part for part in grids[0] if part.width != PAIR]
    if len(grids) != 1 or len(scores) != 1 or len(grids[0]) < PAIR:
        return []
    part = scores[0]
    reason = f"{part.width} columns beside sizes or offsets of two: the heat map of the classes"
    return _all_scored([scored_output(part.value, part.tensor(), part.axis, None, None, "Sigmoid", batches, reason)])


def _queries(
    graph: ir.Graph, parts: Sequence[Part], known: Mapping[Value, Entries], batches: Batches
) -> list[ScoredOutput]:
    """Return the logits of queries that have boxes beside them, which pass through a Sigmoid or other arithmetic, or
    masks."""
    for part in parts:
        others = [v for v in graph.outputs if v is not part.value]
        boxes = [f"the boxes {v.name!r}" for v in others if _is_box_of(v, part, known)]
        masks = [f"the masks {v.name!r}" for v in others if _are_masks_of(v, part, known)]
        if part.width > 1 and len(part.cells) == 1 and boxes + masks:
            reason = f"raw logits beside {(boxes + masks)[0]}, of as many queries"
            return _all_scored([scored_output(part.value, part.tensor(), part.axis, None, None, "", batches, reason)])
    return []


def _are_masks_of(value: Value, part: Part, known: Mapping[Value, Entries]) -> bool:
    """Tell whether ``value`` has a map for each cell of a part: along its second axis, or that of its columns."""
    dims = [] if value.shape is None else list(value.shape)
    axes = {1, known[value].axis} if value in known else {1}
    return len(dims) == len("NQHW") and part.axis == len("NQ") and part.cells[0] in [dims[axis] for axis in axes]


def _is_box_of(value: Value, part: Part, known: Mapping[Value, Entries]) -> bool:
    """Tell whether ``value`` has four columns, of as many cells as a raw part, and is no raw part itself."""
    dims = [] if value.shape is None else list(value.shape)
    is_raw = value in known and all(column.is_raw for column in known[value].columns)
    return len(dims) == 3 and dims[-1] == BOX and dims[1] == part.cells[0] and not is_raw


def _steps(graph: ir.Graph, parts: Sequence[Part], space: Sequence[Dim], batches: Batches) -> list[ScoredOutput]:
    """Return the steps of a reader: one raw output, and how many steps it has follows the width of the image."""
    if len(graph.outputs) != 1 or len(parts) != 1 or len(parts[0].cells) != 1 or len(space) != 2:
        return []
    part, steps = parts[0], parts[0].cells[0]
    height, width = space
    if not isinstance(steps, int) or not isinstance(width, int) or not isinstance(height, int):
        return []
    follows = (is_open(graph) or height < width) and steps <= width and width % steps == 0
    if not follows or part.width < PAIR:
        return []
    reason = f"{part.width} columns for each of the steps that follow the width of the image: the logits of a reader"
    return _all_scored([scored_output(part.value, part.tensor(), part.axis, None, None, "", batches, reason)])


def _all_scored(outputs: Sequence[ScoredOutput | None]) -> list[ScoredOutput]:
    there = [output for output in outputs if output is not None]
    return there if len(there) == len(outputs) else []
