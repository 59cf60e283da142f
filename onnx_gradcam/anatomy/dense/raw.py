"""Raw heads of detectors, point finders and readers: logits that nothing squashes, told by what goes together.

The outputs are what convolutions and linear layers make, only moved. Their numbers of columns, on each grid, say what
they are: four columns or distributions of four distances are boxes, a single one beside classes is the objectness,
groups of equal columns on several grids are the levels of one head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import onnx_ir as ir

from onnx_gradcam.anatomy.axes import Dim
from onnx_gradcam.anatomy.dense.grouping import PAIR, is_named_objectness
from onnx_gradcam.anatomy.dense.heads import BOX
from onnx_gradcam.anatomy.dense.outputs import ScoredOutput, scored_output
from onnx_gradcam.anatomy.dense.tensors import Apart, Tensor, columns
from onnx_gradcam.anatomy.entries.columns import Entries
from onnx_gradcam.anatomy.grids import input_axes
from onnx_gradcam.anatomy.sizes import Sizes
from onnx_gradcam.anatomy.tokens import is_open
from onnx_gradcam.anatomy.vectors import Batches, batch_axis
from onnx_gradcam.graph.builder import Value

DISTANCES = (8, 16, 17)  # bins of a distribution over a distance
BOXES = (BOX, *(BOX * bins for bins in DISTANCES))
ANCHORS = 3  # in each cell, where one convolution makes boxes, objectness and classes of all
LANDMARKS = (10,)  # five points
COARSE = 4  # a detector's cells lie at least so many pixels apart


class Part(NamedTuple):
    """Some columns of a raw output, ``value``, that one convolution or linear layer made; ``source``: the logits."""

    value: Value
    source: Tensor
    axis: int
    start: int
    width: int
    total: int
    cells: tuple[Dim, ...]

    def tensor(self) -> Tensor:
        """Return the columns."""
        return columns(self.source, self.axis, self.start, self.width, self.total)


class Roles(NamedTuple):
    """The parts on one grid say by number which of them holds what."""

    classes: int
    objectness: int | None
    boxes: int | None


def raw_heads(
    graph: ir.Graph, known: Mapping[Value, Entries], batches: Batches, named: Sequence[Value] = ()
) -> list[ScoredOutput]:
    """Return the outputs, or parts of them, that hold the raw logits of a detector or reader; empty: none are told.

    Args:
        graph: a prepared graph.
        known: the entries of its values.
        batches: the first dimensions of the inputs.
        named: the values that the user names; none: the outputs of the graph.
    """
    sizes = Sizes.of(graph)
    parts = [part for value in named or graph.outputs for part in _parts(value, known, batches, sizes)]
    grids: dict[tuple[Dim, ...], list[Part]] = {}
    for part in parts:
        grids.setdefault(part.cells, []).append(part)
    space = _image_space(graph, sizes)
    coarse = [of_grid for cells, of_grid in grids.items() if _is_coarse(cells, space)]
    if len(coarse) == len(grids) and grids:
        for find in (_apart, _anchors, _heat_map):
            if heads := find(coarse, batches):
                return heads
    if named:
        return []
    return _queries(graph, parts, known, batches) or _steps(graph, parts, space, batches)


def squashed_anchors(graph: ir.Graph, known: Mapping[Value, Entries], batches: Batches) -> list[ScoredOutput]:
    """Return the classes of heads of which one Sigmoid squashes all columns, those of boxes that nothing decodes too.

    The outputs are all that the model has, of equal columns on several grids. Empty: they are something else.
    """
    if not all(value in known and known[value].are_squashed for value in graph.outputs):
        return []
    sizes = Sizes.of(graph)
    parts = [part for value in graph.outputs for part in _parts(value, known, batches, sizes, squashed=True)]
    if len(parts) != len(graph.outputs) or len({part.cells for part in parts}) < len(parts):
        return []
    return [replace(head, raw="") for head in _anchors([[part] for part in parts], batches)]


def _parts(
    value: Value, known: Mapping[Value, Entries], batches: Batches, sizes: Sizes, squashed: bool = False
) -> list[Part]:
    """Return the parts of a raw output, or of one that one Sigmoid squashes: one for each layer that made columns."""
    entries = known.get(value)
    if entries is None or value.shape is None:
        return []
    if squashed and len({c.squashed_by for c in entries.columns if c.kind == ("Sigmoid", "")}) != 1:
        return []
    if not all(c.is_probability if squashed else c.is_raw for c in entries.columns):
        return []
    dims, axis = list(value.shape), entries.axis
    others = [k for k in range(len(dims)) if k != axis]
    batch = batch_axis(value, dims, others, batches)
    if batch is None or len(dims) < 3:
        return []
    nominal = sizes.dims(value)
    cells = tuple(nominal[k] for k in others if k != batch)
    parts: list[Part] = []
    start = 0
    for _, run in groupby(entries.columns, key=lambda column: column.origins):
        width = len(list(run))
        parts.append(Part(value, entries.logits, axis, start, width, len(entries.columns), cells))
        start += width
    return parts


def _image_space(graph: ir.Graph, sizes: Sizes) -> list[Dim]:
    """Return the height and width of the first input with two spatial axes; empty where there is none."""
    image = next((v for v in graph.inputs if v.shape is not None and len(v.shape) == 4), None)
    if image is None:
        return []
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


def _apart(grids: Sequence[Sequence[Part]], batches: Batches) -> list[ScoredOutput]:
    """Return the classes of heads whose boxes, classes and objectness are maps, or parts of a map, of their own."""
    counts = [[part.width for part in parts] for parts in grids]
    roles = _roles(grids[0])
    if roles is None or any(other != counts[0] for other in counts):
        return []
    return _all_scored(
        [
            scored_output(
                parts[roles.classes].value,
                parts[roles.classes].tensor(),
                parts[roles.classes].axis,
                _other(parts, roles.classes, roles.objectness),
                _other(parts, roles.classes, roles.boxes),
                "Sigmoid",
                batches,
                f"{_listed(counts[0])} columns on {_of_grids(grids)}: boxes beside classes",
            )
            for parts in grids
        ]
    )


def _roles(parts: Sequence[Part]) -> Roles | None:
    """Return which of the parts on a grid holds what; None where their numbers of columns do not say so."""
    counts = [part.width for part in parts]
    boxes = [k for k, count in enumerate(counts) if count == BOX] or [k for k, c in enumerate(counts) if c in BOXES]
    single = [k for k, count in enumerate(counts) if count == 1]
    rest = [k for k, c in enumerate(counts) if k not in (*boxes, *single) and c not in LANDMARKS]
    if len(boxes) != 1 or len(rest) > 1 or not rest + single:
        return None
    if rest:
        return Roles(rest[0], single[0] if single else None, boxes[0]) if len(single) < PAIR else None
    if len(single) > PAIR:
        return None
    gates = [k for k in single if is_named_objectness([parts[k].value.name or ""])] or single[1:]
    classes = [k for k in single if k not in gates[:1]] or single
    return Roles(classes[0], gates[0] if len(single) == PAIR else None, boxes[0])


def _other(parts: Sequence[Part], classes: int, other: int | None) -> Tensor | None:
    """Return another part of a grid, if it is laid out as that of the classes."""
    return parts[other].tensor() if other is not None and parts[other].axis == parts[classes].axis else None


def _anchors(grids: Sequence[Sequence[Part]], batches: Batches) -> list[ScoredOutput]:
    """Return the classes of heads whose one map holds box, objectness and classes of several anchors in each cell."""
    if any(len(parts) != 1 or parts[0].width != grids[0][0].width for parts in grids):
        return []
    first = grids[0][0]
    if len(first.cells) == 3:
        anchors, width = 1, first.width  # the anchors have an axis of their own
    elif len(grids) > 1 and len(first.cells) == 2 and first.width % ANCHORS == 0:
        anchors, width = ANCHORS, first.width // ANCHORS
    else:
        return []
    if width <= BOX + 1:
        return []
    what = f"{anchors} × (4 of a box, 1 objectness, {width - BOX - 1} classes)"
    reason = f"{first.width} columns on {_of_grids(grids)}: {what}"
    return _all_scored([_of_anchors(parts[0], anchors, width, batches, reason) for parts in grids])


def _of_anchors(part: Part, anchors: int, width: int, batches: Batches, reason: str) -> ScoredOutput | None:
    source: Tensor = part.source if anchors == 1 else Apart(part.source, part.axis, anchors)
    axis = part.axis + (anchors > 1)
    classes = columns(source, axis, BOX + 1, width - BOX - 1, width)
    gate = columns(source, axis, BOX, 1, width)
    return scored_output(part.value, classes, axis, gate, None, "Sigmoid", batches, reason)


def _heat_map(grids: Sequence[Sequence[Part]], batches: Batches) -> list[ScoredOutput]:
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
    """Return the logits of queries that have boxes beside them, which pass through a Sigmoid or other arithmetic."""
    for part in parts:
        beside = [v for v in graph.outputs if v is not part.value and _is_box_of(v, part, known)]
        if part.width > 1 and len(part.cells) == 1 and beside:
            reason = f"raw logits beside the boxes {beside[0].name!r}, of as many queries"
            return _all_scored([scored_output(part.value, part.tensor(), part.axis, None, None, "", batches, reason)])
    return []


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


def _listed(counts: Sequence[int]) -> str:
    return " + ".join(map(str, counts))


def _of_grids(grids: Sequence[Sequence[Part]]) -> str:
    return "one grid" if len(grids) == 1 else f"{len(grids)} grids"
