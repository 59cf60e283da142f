"""What a user says of a value where its file tells nothing: anchors, columns of classes, their axis, their squashing.

``NAME:anchors=5`` are five anchors in each cell, of a box, an objectness and classes; ``NAME:columns=32-111`` are the
columns of the classes; ``NAME:axis=1`` is the axis of the columns; ``NAME:squash=sigmoid`` makes a score of each column
by itself. Several stand behind one another: ``NAME:anchors=6,columns=0-20``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from onnx_gradcam.anatomy.dense.heads import BOX
from onnx_gradcam.anatomy.dense.outputs import ScoredOutput, activation_behind, scored_output
from onnx_gradcam.anatomy.dense.tensors import Apart, Tensor, columns, dims_of
from onnx_gradcam.anatomy.entries.columns import Entries
from onnx_gradcam.anatomy.vectors import Batches
from onnx_gradcam.errors import ScoreError
from onnx_gradcam.graph.builder import Value, rank
from onnx_gradcam.graph.operators import RESHAPES

SQUASHES: Mapping[str, str] = {"sigmoid": "Sigmoid", "softmax": "Softmax"}
PATTERNS: Mapping[str, str] = {
    "anchors": r"[1-9]\d*",
    "columns": r"\d+-\d+",
    "axis": r"\d+",
    "squash": "|".join(SQUASHES),
}


class Reading(NamedTuple):
    """A value by its name, and what a user says of it; ``options``: key → text."""

    name: str
    options: Mapping[str, str]


def parse_reading(text: str, names: Collection[str]) -> Reading:
    """Return the value and the options of a text such as "out:anchors=5"; a value of just that name goes before.

    Args:
        text: the name of a value, or one with options behind its last colon.
        names: the names of the values of the model.

    Raises:
        ScoreError: an option is none.
    """
    name, colon, rest = text.rpartition(":")
    if text in names or not colon or name not in names:
        return Reading(text, {})
    options: dict[str, str] = {}
    for part in rest.split(","):
        key, _, value = part.partition("=")
        if not re.fullmatch(PATTERNS.get(key, r"(?!)"), value):
            raise ScoreError(
                f"{part!r} does not say what the columns of {name!r} are",
                hint="anchors=A, columns=FIRST-LAST, axis=K, squash=sigmoid or squash=softmax; several with commas",
                name=text,
            )
        options[key] = value
    return Reading(name, options)


def read_as(
    value: Value, options: Mapping[str, str], known: Mapping[Value, Entries], batches: Batches
) -> ScoredOutput | None:
    """Return the scores that ``value`` holds if it is what a user says; None where its batch axis is not known.

    Args:
        value: a value.
        options: see ``Reading``.
        known: the entries of the values of its graph.
        batches: the first dimensions of the inputs.

    Raises:
        ScoreError: the options do not fit the shape of the value.
    """
    value = value if "axis" in options else with_columns(value, known)
    axis, source = _columns_of(value, options, known)
    total = dims_of(source)[axis]
    anchors = int(options.get("anchors", 1))
    width = total // anchors if isinstance(total, int) and total % anchors == 0 else 0
    first, last = _classes(options, width)
    if not first <= last < width:
        raise ScoreError(
            f"{_shown(options)} does not fit {value.name!r}",
            where=f"{total} columns along axis {axis}",
            hint="as many columns for each anchor, and columns counted from 0",
            name=value.name,
        )
    if anchors > 1:
        source, axis = Apart(source, axis, anchors), axis + 1
    classes = columns(source, axis, first, last - first + 1, width)
    gate = columns(source, axis, BOX, 1, width) if _has_gate(options) else None
    squash = SQUASHES.get(options.get("squash", ""), "Sigmoid" if {"anchors", "columns"} & {*options} else "")
    reason = f"{last - first + 1} columns for each of many cells, by what the user says: {_shown(options)}"
    return scored_output(value, classes, axis, gate, None, squash or activation_behind(value), batches, reason)


def with_columns(value: Value, known: Mapping[Value, Entries]) -> Value:
    """Return ``value``, or the map of one column that a Squeeze or Reshape took the axis of the columns from."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.op_type in RESHAPES else None
    if value in known or source is None or source not in known or value.shape is None:
        return value
    is_taken = len(known[source].columns) == 1 and rank(source) == rank(value) + 1
    return source if is_taken else value


def column_axis(value: Value, known: Mapping[Value, Entries]) -> int:
    """Return the axis of the columns of a value; where it is not known the second of a map, the last one of rows."""
    return known[value].axis if value in known else 1 if rank(value) > len("NPK") else rank(value) - 1


def _columns_of(value: Value, options: Mapping[str, str], known: Mapping[Value, Entries]) -> tuple[int, Tensor]:
    axis = int(options.get("axis", column_axis(value, known)))
    if not 0 < axis < rank(value):
        raise ScoreError(
            f"{value.name!r} has no axis {axis} of columns", hint="axis=1, or another one", name=value.name
        )
    is_squashed = value in known and known[value].are_squashed and known[value].axis == axis
    return axis, known[value].logits if is_squashed else value


def _has_gate(options: Mapping[str, str]) -> bool:
    return "anchors" in options and "columns" not in options


def _classes(options: Mapping[str, str], width: int) -> tuple[int, int]:
    """Return the first and the last column of the classes of an anchor."""
    first, dash, last = options.get("columns", "").partition("-")
    if dash:
        return int(first), int(last)
    return (BOX + 1 if _has_gate(options) else 0), width - 1


def _shown(options: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in options.items())
