"""The entries of a dense or detector output that are scores: they pass through a Sigmoid or Softmax, unmixed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnx_gradcam.anatomy.entries.columns import Column, Entries
from onnx_gradcam.anatomy.entries.computed import operands, real_constant
from onnx_gradcam.graph.builder import Value
from onnx_gradcam.graph.flow import captured
from onnx_gradcam.graph.operators import REORDERS, STORES, AxisEffect, operators

MAKES_PROBABILITIES = ("Softmax", "LogSoftmax", "Sigmoid")
# What stands behind the scores of a detector or segmenter: it picks among entries, and changes none.
PICKING = operators(
    AxisEffect.COPIED,
    AxisEffect.RESHAPED,
    AxisEffect.TRANSPOSED,
    AxisEffect.JOINED,
    AxisEffect.CUT,
    AxisEffect.SELECTED,
    AxisEffect.PICKED,
    AxisEffect.REPEATED,
    AxisEffect.REQUANTIZED,
    AxisEffect.RESIZED,
) | frozenset(
    "ArgMax NonMaxSuppression TopK ReduceMax Max Where Greater GreaterOrEqual Less LessOrEqual NonZero Mul Sqrt Loop "
    "If Scan Shape Add Sub Div Mod Min Clip Not And Equal Pad ScatterND ScatterElements Compress".split()
)
SCALING = frozenset("Div Mul QLinearMul".split())
# What may stand behind a mask of 0 to 255 besides: larger numbers stay larger ones.
ORDERED = STORES | REORDERS | operators(AxisEffect.RESIZED) | {"Clip", "Round"}
BOX = 4  # columns of a box


def classes(entries: Entries) -> tuple[list[int], int | None]:
    """Return the columns of the classes, and the column of an objectness; None where there is none.

    An objectness is one column with a Sigmoid of its own beside those of the classes, or, where boxes and classes were
    made together, the column behind the box.
    """
    groups: dict[ir.Node, list[int]] = {}
    for k, node in enumerate(entries.squashed_by):
        if node is not None:
            groups.setdefault(node, []).append(k)
    largest = max(groups.values(), key=len)
    single = [columns[0] for columns in groups.values() if columns is not largest and len(columns) == 1]
    if single or entries.objectness is not None:
        return largest, single[0] if single else None
    is_behind_box = largest[0] == BOX and len(largest) > 1 and _are_box_of(entries.columns[:BOX], entries.columns[BOX])
    return (largest[1:], largest[0]) if is_behind_box else (largest, None)


def _are_box_of(before: Sequence[Column], scored: Column) -> bool:
    """Tell whether four columns are the box of an anchor, which has an objectness before its classes.

    They come out of the Sigmoid of the scores, or one convolution made all and they pass through another Sigmoid. Since
    then arithmetic has changed them.
    """
    if not all(column.changed_by for column in before):
        return False
    made_alike = all(column.origins == scored.origins for column in before) and bool(scored.origins)
    is_squashed = any(column.squashed_by is not None and column.kind[0] == "Sigmoid" for column in before)
    return all(c.squashed_by is scored.squashed_by for c in before) or (made_alike and is_squashed)


class End(NamedTuple):
    """The last value with probabilities on the way to some graph outputs, its entries, and the names of the outputs."""

    value: Value
    entries: Entries
    outputs: tuple[str, ...]


def ends(outputs: Sequence[Value], known: Mapping[Value, Entries]) -> list[End]:
    """Return the last values with probabilities on the way to ``outputs``; behind them entries are only picked."""
    reached: dict[Value, list[str]] = {}
    for output in outputs:
        for value in _ends_before(output, known):
            reached.setdefault(value, []).append(output.name or "")
    names: dict[Value, list[str]] = {}
    for value, of_outputs in reached.items():
        names.setdefault(_first_of(value, reached, known), []).extend(of_outputs)
    return [End(value, known[value], tuple(dict.fromkeys(of_outputs))) for value, of_outputs in names.items()]


def _first_of(value: Value, reached: Collection[Value], known: Mapping[Value, Entries]) -> Value:
    """Return the first of the values reached that ``value`` was moved from: the same scores are not taken twice."""
    first, node = value, value.producer()
    while node is not None and node.inputs and (before := node.inputs[0]) is not None:
        if before not in known or not known[before].are_squashed:
            break
        first, node = (before if before in reached else first), before.producer()
    return first


def _ends_before(output: Value, known: Mapping[Value, Entries]) -> list[Value]:
    """Return the last values with probabilities before ``output``; of none behind which arithmetic changes entries.

    Where there is none, it is those that were only scaled since: a mask of 0 to 255.
    """
    return _walk_back(output, known, lambda node: False) or _walk_back(output, known, _only_scales)


def _only_scales(node: ir.Node) -> bool:
    """Tell whether larger numbers stay larger: a node scales by positive constants, moves, stores, clips or rounds."""
    if node.op_type not in SCALING:
        return node.op_type in ORDERED
    factors = operands(node)[1:] if node.op_type == "Div" else operands(node)
    arrays = [array for v in factors if (array := real_constant(node, v)) is not None]
    return len(arrays) == 1 and bool(np.all(arrays[0] > 0))


def _walk_back(output: Value, known: Mapping[Value, Entries], is_passed: Callable[[ir.Node], bool]) -> list[Value]:
    """Return the last values with probabilities before ``output``; ``is_passed``: by what entries may be changed."""
    ends: list[Value] = []
    seen: set[Value] = set()
    pending = [output]
    while pending:
        value = pending.pop(0)
        if value in seen:
            continue
        seen.add(value)
        entries, node = known.get(value), value.producer()
        if entries is not None and entries.are_squashed:
            ends.append(value)
        elif node is not None and (node.op_type in PICKING if entries is None else is_passed(node)):
            pending.extend(v for v in [*node.inputs, *captured(node)] if v is not None and not v.is_initializer())
    return ends


def before_argmax(outputs: Sequence[Value]) -> tuple[Value, int] | None:
    """Return what an ArgMax over classes reads on the way to one of ``outputs``, and the axis of the classes."""
    pending, seen = list(outputs), set[Value]()
    while pending:
        value = pending.pop(0)
        node = value.producer()
        if value in seen or node is None:
            continue
        seen.add(value)
        x = node.inputs[0] if node.inputs else None
        if node.op_type == "ArgMax" and x is not None and x.shape is not None and len(x.shape) > 2:
            return x, node.attributes.get_int("axis", 0) % len(x.shape)
        if node.op_type in PICKING and x is not None:
            pending.append(x)
    return None
