"""Outputs that go together: the levels of one score, the objectness and the boxes beside the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx_gradcam.anatomy.axes import Dim
from onnx_gradcam.anatomy.dense.heads import BOX
from onnx_gradcam.anatomy.dense.outputs import ScoredOutput, flat
from onnx_gradcam.anatomy.dense.tensors import Batched, Tensor, arranged, dims_of
from onnx_gradcam.anatomy.entries.columns import Entries, columns_in
from onnx_gradcam.anatomy.sizes import Sizes
from onnx_gradcam.graph.builder import Value

OBJECTNESS_NAMES = ("obj", "conf", "ctr", "centerness")
PAIR = 2  # columns of a size, or of an offset
MAP = 4  # axes of a map
PLANE = 2  # spatial axes of a map
UNEVEN = 1.6  # times as coarse along one axis as along another: no level is, but for rounded sizes


def grouped(
    outputs: Sequence[ScoredOutput], others: Sequence[Value], known: Mapping[Value, Entries], sizes: Sizes
) -> list[list[ScoredOutput]]:
    """Return the outputs that are the levels of one score, together; what is explained first comes first.

    Levels have as many classes and axes, and grids of their own: maps on one grid are scores of their own. One of a
    single class and as many cells as another one's is the objectness of that one, but not where sizes or offsets of two
    columns stand beside it: there it is a heat map, as the others are, and the first is taken first. Else the scores
    with boxes go before maps, those of most classes before others.

    Args:
        outputs: the outputs with scores.
        others: all outputs, and what may hold boxes beside them.
        known: the entries of the values.
        sizes: the sizes of the values.
    """
    points = {dims for v in others if (dims := _beside_pair(v, known, sizes))}
    gates = [gate for gate in gates_among(outputs) if tuple(sizes.dims(gate.output)) not in points]
    groups: dict[tuple[int, int, int], list[ScoredOutput]] = {}
    for output in outputs:
        if output not in gates:
            rank, turn = len(dims_of(output.grid)), 0
            while not all(_are_levels(output, other, sizes) for other in groups.get((output.count, rank, turn), [])):
                turn += 1
            groups.setdefault((output.count, rank, turn), []).append(output)
    scored = {output.output for output in outputs}
    left = [v for v in others if v not in scored]
    alike = [[with_objectness(output, gates) for output in group] for group in groups.values()]
    ordered = sorted(alike, key=lambda group: 0 if points else -group[0].count)
    return sorted((with_boxes(group, left, known) for group in ordered), key=lambda group: group[0].boxes is None)


def _beside_pair(value: Value, known: Mapping[Value, Entries], sizes: Sizes) -> tuple[Dim, ...]:
    """Return the dimensions of a map of one column on the grid of a map of two; none where ``value`` is no such map."""
    dims, entries = sizes.dims(value), known.get(value)
    if entries is None or entries.are_squashed or len(dims) != MAP or columns_in(value, entries.axis) != PAIR:
        return ()
    return tuple(1 if k == entries.axis else d for k, d in enumerate(dims))


def _are_levels(a: ScoredOutput, b: ScoredOutput, sizes: Sizes) -> bool:
    """Tell whether two outputs of as many columns may be levels: of grids that are coarser alike along both axes.

    What comes to one output of the graph is joined there.
    """
    if {*a.returned_in} & {*b.returned_in}:
        return True
    dims = sizes.dims(a.output)
    if dims == sizes.dims(b.output) and all(isinstance(d, int) for d in dims[1:]):
        return False
    sides = list(zip(dims_of(a.grid)[2:], dims_of(b.grid)[2:], strict=True))
    coarser = [m / n for m, n in sides if isinstance(m, int) and isinstance(n, int) and n]
    return len(sides) != PLANE or not coarser or max(coarser) < UNEVEN * min(coarser)


def with_objectness(head: ScoredOutput, gates: Sequence[ScoredOutput]) -> ScoredOutput:
    """Return the head with the objectness that another output is: one of one column and as many cells."""
    if head.objectness is not None:
        return head
    same = [gate for gate in gates if dims_of(gate.grid)[2:] == dims_of(head.grid)[2:]]
    return replace(head, objectness=same[0].logits) if same else head


def gates_among(outputs: Sequence[ScoredOutput]) -> list[ScoredOutput]:
    """Return those of the outputs that are the objectness of others.

    They have one column beside several classes; where all have one, two outputs go together for each grid, and the gate
    is the one that its name says to be, or else the second.
    """
    most = max((output.count for output in outputs), default=0)
    if most > 1:
        return [output for output in outputs if output.count == 1]
    grids: dict[tuple[object, ...], list[ScoredOutput]] = {}
    for output in outputs:
        grids.setdefault(tuple(dims_of(output.grid)[2:]), []).append(output)
    if any(
        len(pair) != len(("class", "objectness")) or None not in (p.objectness for p in pair) for pair in grids.values()
    ):
        return []
    return [next((p for p in pair if is_named_objectness(p.returned_in)), pair[1]) for pair in grids.values()]


def without_boxes(outputs: Sequence[ScoredOutput]) -> list[ScoredOutput]:
    """Return the outputs without those that are boxes: four Sigmoids for each cell of another output's.

    Where that one has four, too, the boxes are what its name says to be.
    """
    return [output for output in outputs if not any(_is_box_of(output, other) for other in outputs)]


def _is_box_of(output: ScoredOutput, other: ScoredOutput) -> bool:
    if output is other or output.count != BOX or output.activation != "Sigmoid":
        return False
    is_told = other.count != BOX or any("box" in name.lower() for name in output.returned_in)
    return is_told and other.count > 1 and dims_of(output.grid)[2:] == dims_of(other.grid)[2:]


def is_named_objectness(names: Sequence[str]) -> bool:
    """Tell whether one of the names of a value or of outputs says that it is an objectness."""
    return any(part in name.lower() for name in names for part in OBJECTNESS_NAMES)


def with_boxes(
    some_heads: Sequence[ScoredOutput], left: list[Value], known: Mapping[Value, Entries]
) -> list[ScoredOutput]:
    """Return the heads with the boxes that are outputs of their own: as many cells, four columns or a multiple of it.

    A head's output comes with that of its boxes: of several that fit, each is taken once, off the list ``left``.
    """
    scores = {head.output for head in some_heads}
    left[:] = [v for v in left if v.shape is not None and v not in scores]
    return [head if head.boxes is not None else _take_boxes(head, left, known) for head in some_heads]


def _take_boxes(head: ScoredOutput, left: list[Value], known: Mapping[Value, Entries]) -> ScoredOutput:
    """Return the head with the first of the outputs ``left`` that fits as its boxes, which is taken off the list."""
    for value in left:
        boxes = _boxes_for(value, head.grid)
        if boxes is not None and not _is_normalised(value, known):
            left.remove(value)
            return replace(head, boxes=flat(boxes), has_boxes=True)
    return head


def _is_normalised(value: Value, known: Mapping[Value, Entries]) -> bool:
    """Tell whether a normalisation is the first that was done to the columns: they are descriptors, and no boxes."""
    return value in known and "Norm" in known[value].columns[0].changed_by


def _boxes_for(value: Value, grid: Tensor) -> Tensor | None:
    """Return ``value`` as (N, columns, …), where it has four columns, or a multiple, for each cell of ``grid``."""
    dims, cells = dims_of(value), dims_of(grid)[2:]
    has_batch = len(dims) == len(cells) + 2
    boxes: Tensor = value if has_batch else Batched(value)
    for axis in range(int(has_batch), len(dims)):
        count = dims[axis]
        others = [d for k, d in enumerate(dims) if k not in (axis, 0 if has_batch else None)]
        if isinstance(count, int) and count and count % BOX == 0 and others == cells:
            column = axis + (not has_batch)
            return arranged(boxes, [0, column, *(k for k in range(1, len(dims_of(boxes))) if k != column)])
    return None
