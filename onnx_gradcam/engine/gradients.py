"""The gradients that an evaluation gives, by the names of the values that they are taken with respect to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.graph.names import GradientNames

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Gradients:
    """The gradient of each row's score with respect to some values, one entry per row.

    Attributes:
        of: the gradients (R, …) by the name of the value.
        beside: what else a method reads, by what it is and then by the name of the value: "curvature" (the Hessian's
            product with the value), and the means "square" and "cube" of powers of the gradient over noisy copies.
    """

    of: Mapping[str, Array]
    beside: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)


def gradients_in(results: Mapping[str, Any], names: GradientNames) -> Gradients:
    """Return the gradients among the results of a gradient graph, whose parts are called as ``names`` says."""
    gradients = {value: results[output] for value, output in names.gradients.items()}
    curvatures = {value: results[output] for value, output in names.curvatures.items()}
    return Gradients(gradients, {"curvature": curvatures} if curvatures else {})


def joined(parts: Sequence[tuple[Sequence[int], Gradients]], count: int) -> Gradients:
    """Return the gradients of ``count`` rows, float32; each part holds those of the rows with the numbers beside it."""
    if len(parts) == 1:
        return parts[0][1]
    beside = {what: _rows_of(((rows, part.beside[what]) for rows, part in parts), count) for what in parts[0][1].beside}
    return Gradients(_rows_of(((rows, part.of) for rows, part in parts), count), beside)


def _rows_of(parts: Iterable[tuple[Sequence[int], Mapping[str, Array]]], count: int) -> dict[str, Array]:
    whole: dict[str, Array] = {}
    for rows, arrays in parts:
        for name, array in arrays.items():
            whole.setdefault(name, np.zeros((count, *array.shape[1:]), np.float32))[list(rows)] = array
    return whole
