"""Logits that a model leaves as they are, in many cells: what an ArgMax reads, fine maps, recurrent steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnx_gradcam.anatomy.axes import Dim
from onnx_gradcam.anatomy.dense import heads
from onnx_gradcam.anatomy.dense.tensors import dims_of
from onnx_gradcam.anatomy.entries.columns import Entries
from onnx_gradcam.graph.builder import Value

FINE = 8  # times as coarse as the image a map of its classes may be


def _column_axis(value: Value, known: Mapping[Value, Entries]) -> int | None:
    return known[value].axis if value in known else None


def plain_logits(graph: ir.Graph, known: Mapping[Value, Entries]) -> list[tuple[Value, int]]:
    """Return the logits that the model leaves as they are, each with the axis of its classes.

    They are what an ArgMax reads; maps of several classes in the size of the image or not much below, but not those of
    vectors, of two columns for each one of another map; steps that a recurrent layer leads to.
    """
    decided = heads.before_argmax(graph.outputs)
    if decided is not None:
        return [decided]
    images = [v for v in graph.inputs if v.shape is not None and len(v.shape) > 3]
    maps = [v for v in graph.outputs if v.shape is not None and len(v.shape) > 3]
    recurrent = any(node.op_type in ("LSTM", "GRU", "RNN") for node in graph)
    steps = [v for v in graph.outputs if v.shape is not None and len(v.shape) == 3] if recurrent else []
    logits: dict[Value, int] = {}
    for value in [*maps, *steps[:1]]:
        axis = _column_axis(value, known)
        count = 0 if axis is None else dims_of(value)[axis]
        if axis is None or not isinstance(count, int) or count < 2:
            continue
        if value in steps or (images and _is_map_of(value, axis, maps, images[0], known)):
            logits[value] = axis
    raw = {v: axis for v, axis in logits.items() if all(column.is_raw for column in known[v].columns)}
    if not raw:
        return list(logits.items())[:1]
    counts = {v: len(known[v].columns) for v in raw}
    return [(v, axis) for v, axis in raw.items() if not any(counts[v] == 2 * other for other in counts.values())]


def is_coarse_map(graph: ir.Graph, value: Value) -> bool:
    """Tell whether a map has no more than an eighth of the resolution of the images, as one level of a detector has."""
    images = [v for v in graph.inputs if v.shape is not None and len(v.shape) > 3]
    sides = [d for v in images for d in dims_of(v)[1:] if isinstance(d, int)]
    own = [d for d in dims_of(value)[2:] if isinstance(d, int)]
    return bool(sides and own) and min(own) * FINE <= max(sides)


def _is_map_of(value: Value, axis: int, maps: Sequence[Value], image: Value, known: Mapping[Value, Entries]) -> bool:
    """Tell whether a map may be one of classes of the image: as fine, other maps alike, and not itself an image."""
    alike = all(_may_be_same(_space(v, _column_axis(v, known)), _space(value, axis)) for v in maps)
    is_image = dims_of(value)[axis] == _channels(image)
    return alike and not is_image and _is_fine(_space(value, axis), _space(image, None))


def _space(value: Value, axis: int | None) -> list[Dim]:
    dims = dims_of(value)
    if axis is None:
        axis = len(dims) - 1 if dims[-1] in (1, 3, 4) else 1
    return [d for k, d in enumerate(dims) if k not in (0, axis)]


def _channels(image: Value) -> Dim:
    dims = dims_of(image)
    return dims[-1] if dims[-1] in (1, 3, 4) else dims[1]


def _may_be_same(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    return len(a) == len(b) and all(
        x == y or not (isinstance(x, int) and isinstance(y, int)) for x, y in zip(a, b, strict=True)
    )


def _is_fine(space: Sequence[Dim], image: Sequence[Dim]) -> bool:
    """Tell whether a map has at least an eighth of the image's resolution (a coarser one may be anything)."""
    known = [(a, b) for a, b in zip(space, image, strict=False) if isinstance(a, int) and isinstance(b, int)]
    return len(space) == len(image) and all(a * FINE >= b for a, b in known)
