"""NaN and infinity never become a map: they are looked for where results leave an evaluation, and traced to a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_gradcam.autodiff.walk import GOES_BACK_OVER
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.errors import ModelError
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.names import values_by_name

Array = npt.NDArray[Any]
Run = Callable[[Session, Sequence[str]], Mapping[str, Any]]
"""Runs a session for the image that failed, and returns the outputs by name."""

TRACED = frozenset((ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE))
BAD: tuple[tuple[np.ufunc, str], ...] = ((np.isnan, "NaN"), (np.isinf, "infinity"))
FLOAT16_EXPONENT = np.uint16(0x7C00)


def is_finite(array: Array) -> bool:
    """Tell whether an array holds neither NaN nor infinity, in about the time that it takes to read it.

    A sum of squares that is finite says so at once; one that overflows says nothing, and each element is looked at.
    """
    if array.dtype.kind != "f":
        return True
    if array.dtype == np.float16:
        return not np.any((array.view(np.uint16) & FLOAT16_EXPONENT) == FLOAT16_EXPONENT)
    return bool(np.isfinite(np.vdot(array, array))) or bool(np.isfinite(array).all())


def broken_images(array: Array, count: int) -> list[int]:
    """Return which of ``count`` images have NaN or infinity in an array with one entry or several for each."""
    if is_finite(array):
        return []
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    return sorted({int(k) for k in np.flatnonzero(bad) * count // len(array)})


def unrankable_images(scores: Array) -> list[int]:
    """Return which images have scores (N, K) with NaN or +∞, which cannot be ranked; a class at −∞ is ruled out."""
    return [int(k) for k in np.flatnonzero(np.isnan(scores).any(axis=1) | (scores == np.inf).any(axis=1))]


def trace(model: ir.Model, name: str, options: Options, run: Run) -> str:
    """Return where the value called ``name`` first turned NaN or infinite, in words; "" where that cannot be told.

    Every value of the model is computed once more, for the image that failed; an ordinary run does not pay for it.
    """
    copy = model.clone()
    graph = copy.graph
    shown = {v.name: v for node in graph for v in node.outputs if v.dtype in TRACED and v.name}
    graph.outputs[:] = list(shown.values())
    try:
        found = run(Session(copy, options), list(shown))
    except ModelError:
        return ""  # what is wrong has been found already; only its place remains unsaid
    arrays = {name: np.asarray(array, np.float32) for name, array in found.items()}
    return _origin(values_by_name(graph)[name], arrays)


def _origin(value: ir.Value, arrays: Mapping[str, Array]) -> str:
    """Return where a bad value comes from: NaN is followed back to the node that made it, then infinity likewise."""
    places = []
    for is_bad, name in BAD:
        if not is_bad(_array(value, arrays)).any():
            continue
        value, node = _followed(value, is_bad, arrays)
        places.append(f"{name} in {value.name!r}, in the model itself" if node is None else _place(node, name))
        value = next((v for v in _read(node) if np.isinf(_array(v, arrays)).any()), value)
    return ", ".join(places)


def _followed(value: ir.Value, is_bad: np.ufunc, arrays: Mapping[str, Array]) -> tuple[ir.Value, ir.Node | None]:
    """Return the first bad value on the way to ``value``, and the node that made it; None: no node did."""
    while (node := value.producer()) is not None:
        earlier = [v for v in _read(node) if is_bad(_array(v, arrays)).any()]
        if not earlier:
            break
        value = earlier[0]
    return value, node


def _read(node: ir.Node | None) -> list[ir.Value]:
    return [] if node is None else [v for v in node.inputs if v is not None]


def _place(node: ir.Node, what: str) -> str:
    over = node.meta.get(GOES_BACK_OVER)
    if over is None:
        return f"{what} first at node {node.name!r} ({node.op_type})"
    return f"{what} first where the gradient goes back over node {over}"


def _array(value: ir.Value, arrays: Mapping[str, Array]) -> Array:
    held = constant(value) if value.producer() is None else None
    array = arrays.get(value.name or "") if held is None else held
    none: Array = np.zeros(0, np.float32)
    return none if array is None or array.dtype.kind != "f" else array
