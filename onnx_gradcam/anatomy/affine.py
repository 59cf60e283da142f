"""What is left of an input as long as its channels are only moved, scaled and shifted by constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_gradcam.graph.builder import ints_of
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.operators import AxisEffect, operators

SAME_PLACE = operators(
    AxisEffect.COPIED, AxisEffect.REQUANTIZED, AxisEffect.PADDED, AxisEffect.RESIZED
)  # every channel stays what and where it is


class InputChannel(NamedTuple):
    """One channel: that of the input with the number ``source``, times ``scale``, plus ``shift``."""

    source: int
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Affine:
    """A value whose channels are channels of the input, scaled and shifted.

    Attributes:
        axis: the axis of the channels.
        columns: what each of them is.
    """

    axis: int
    columns: tuple[InputChannel, ...]


class Normalisation(NamedTuple):
    """The constants of a BatchNormalization, one for each channel."""

    gamma: NDArray[np.float64]
    beta: NDArray[np.float64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    epsilon: float


Known = Mapping[ir.Value, Affine]


def walk(graph: ir.Graph, image: ir.Value, axis: int) -> dict[ir.Value, Affine]:
    """Return the values that hold the channels of an input and nothing else, in the order of the graph.

    Args:
        graph: a prepared graph.
        image: the input.
        axis: the axis of its channels.
    """
    count = image.shape[axis] if image.shape is not None and axis < len(image.shape) else None
    known = {image: Affine(axis, tuple(map(InputChannel, range(count))))} if isinstance(count, int) else {}
    for node in graph:
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is not None and any(v in known for v in node.inputs if v is not None):
            known |= dict(zip(node.outputs, rule(node, known), strict=False))
    return known


def normalisation(node: ir.Node) -> Normalisation | None:
    """Return the constants of a BatchNormalization; None where one of them is computed."""
    arrays = [constant(v) for v in node.inputs[1:5]]
    if len(arrays) < 4 or any(a is None for a in arrays):
        return None
    gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    return Normalisation(gamma, beta, mean, variance, node.attributes.get_float("epsilon", 1e-5))


def _first(node: ir.Node, known: Known) -> list[Affine]:
    """Return what the first input holds; nothing where that is not known."""
    value = node.inputs[0]
    return [known[value]] if value is not None and value in known else []


def _transposed(node: ir.Node, known: Known) -> list[Affine]:
    order = node.attributes.get_ints("perm", ())
    return [Affine(list(order).index(a.axis), a.columns) for a in _first(node, known) if a.axis in order]


def _computed(node: ir.Node, known: Known) -> list[Affine]:
    """Return the sum, difference, product or quotient of channels and a constant, of which the mean over space is
    taken."""
    place = next(k for k, v in enumerate(node.inputs) if v is not None and v in known)
    value, other = node.inputs[place], constant(node.inputs[1 - place])
    assert value is not None
    before = known[value]
    numbers = None if other is None or value.shape is None else _by_column(other, before, len(value.shape))
    if numbers is None or (node.op_type == "Div" and (place == 1 or not numbers.all())):
        return []
    factor, add = ARITHMETIC[node.op_type](numbers, place)
    return [Affine(before.axis, _scaled(before.columns, factor, add))]


def _by_column(array: NDArray[np.generic], affine: Affine, rank: int) -> NDArray[np.float64] | None:
    count = len(affine.columns)
    if array.ndim > rank or array.dtype.kind not in "fiu":
        return None
    full = np.asarray(array, np.float64).reshape((1,) * (rank - array.ndim) + array.shape)
    means = full.mean(axis=tuple(k for k in range(rank) if k != affine.axis))
    return np.broadcast_to(means, (count,)) if means.size in (1, count) else None


def _scaled(
    columns: tuple[InputChannel, ...], factor: NDArray[np.float64], add: NDArray[np.float64]
) -> tuple[InputChannel, ...]:
    return tuple(
        InputChannel(c.source, c.scale * float(f), c.shift * float(f) + float(a))
        for c, f, a in zip(columns, factor, add, strict=True)
    )


def _normalised(node: ir.Node, known: Known) -> list[Affine]:
    arrays = normalisation(node)
    before = _first(node, known)
    if arrays is None or not before or len(arrays.mean) != len(before[0].columns):
        return []
    factor = arrays.gamma / np.sqrt(arrays.variance + arrays.epsilon)
    return [Affine(before[0].axis, _scaled(before[0].columns, factor, arrays.beta - arrays.mean * factor))]


def _gathered(node: ir.Node, known: Known) -> list[Affine]:
    before, index = _first(node, known), constant(node.inputs[1])
    if not before or index is None or index.ndim != 1:
        return []
    (affine,) = before
    if not _is_along(node, affine):
        return before
    return [Affine(affine.axis, tuple(affine.columns[int(k)] for k in index))]


def _is_along(node: ir.Node, affine: Affine) -> bool:
    """Tell whether an operator with an ``axis`` works along the channels."""
    rank = len(node.outputs[0].shape or ()) or affine.axis + 1
    return node.attributes.get_int("axis", 0) % rank == affine.axis


def _sliced(node: ir.Node, known: Known) -> list[Affine]:
    before = _first(node, known)
    starts, ends, axes, steps = ([ints_of(v) for v in node.inputs[1:5]] + [None] * 4)[:4]
    if not before or starts is None or ends is None:
        return []
    (affine,) = before
    rank = len((node.inputs[0].shape if node.inputs[0] is not None else None) or ())
    along = [k % rank for k in (axes or range(len(starts)))] if rank else []
    if affine.axis not in along:
        return before
    k = along.index(affine.axis)
    step = steps[k] if steps else 1
    end = None if step < 0 and ends[k] < -len(affine.columns) else ends[k]
    return [Affine(affine.axis, affine.columns[slice(starts[k], end, step)])]


def _split(node: ir.Node, known: Known) -> list[Affine]:
    before = _first(node, known)
    if not before or not _is_along(node, before[0]):
        return before * len(node.outputs)
    (affine,), parts, start = before, list[Affine](), 0
    for output in node.outputs:
        width = output.shape[affine.axis] if output.shape is not None else None
        if not isinstance(width, int):
            return []
        parts.append(Affine(affine.axis, affine.columns[start : start + width]))
        start += width
    return parts


def _joined(node: ir.Node, known: Known) -> list[Affine]:
    parts = [known.get(v) if v is not None else None for v in node.inputs]
    first = parts[0]
    if first is None or any(p is None or p.axis != first.axis for p in parts):
        return []
    if not _is_along(node, first):
        return [first] if all(p == first for p in parts) else []
    return [Affine(first.axis, tuple(c for p in parts if p is not None for c in p.columns))]


def _reshaped(node: ir.Node, known: Known) -> list[Affine]:
    """Return the same where the channels keep their axis, as where only the axis of the batch is opened."""
    shapes = [v.shape for v in (node.inputs[0], node.outputs[0]) if v is not None and v.shape is not None]
    same = len(shapes) == 2 and len(shapes[0]) == len(shapes[1]) and list(shapes[0])[1:] == list(shapes[1])[1:]
    return _first(node, known) if same else []


ARITHMETIC: Mapping[str, Callable[[NDArray[np.float64], int], tuple[NDArray[np.float64], NDArray[np.float64]]]] = {
    "Add": lambda x, place: (np.ones_like(x), x),
    "Sub": lambda x, place: (np.ones_like(x), -x) if place == 0 else (-np.ones_like(x), x),
    "Mul": lambda x, place: (x, np.zeros_like(x)),
    "Div": lambda x, place: (1 / x, np.zeros_like(x)),
}
"""Operator → a function (constants, place of the channels among its inputs) of its factor and what it adds."""
RULES: Mapping[str, Callable[[ir.Node, Known], list[Affine]]] = {
    **dict.fromkeys(SAME_PLACE, _first),
    **dict.fromkeys(ARITHMETIC, _computed),
    "BatchNormalization": _normalised,
    "Concat": _joined,
    "Gather": _gathered,
    "Reshape": _reshaped,
    "Slice": _sliced,
    "Split": _split,
    "Transpose": _transposed,
}
