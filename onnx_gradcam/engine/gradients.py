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


def joined(parts: Sequence[tuple[Sequence[int], Gradients]], count: int, axes: Mapping[str, int]) -> Gradients:
    """Return the gradients of ``count`` rows, float32.

    Args:
        parts: gradients, each with the numbers of the rows that they are of; a row may have several entries.
        count: how many rows there are.
        axes: along which axis the rows lie, by the name of the value.
    """
    if len(parts) == 1:
        return parts[0][1]
    beside = {
        what: _rows_of(((rows, part.beside[what]) for rows, part in parts), count, axes) for what in parts[0][1].beside
    }
    return Gradients(_rows_of(((rows, part.of) for rows, part in parts), count, axes), beside)


def _rows_of(
    parts: Iterable[tuple[Sequence[int], Mapping[str, Array]]], count: int, axes: Mapping[str, int]
) -> dict[str, Array]:
    whole: dict[str, Array] = {}
    for rows, arrays in parts:
        for name, array in arrays.items():
            first = np.moveaxis(array, axes[name], 0)
            of_rows = first.reshape(len(rows), -1, *first.shape[1:])
            whole.setdefault(name, np.zeros((count, *of_rows.shape[1:]), np.float32))[list(rows)] = of_rows
    return {name: np.moveaxis(a.reshape(-1, *a.shape[2:]), 0, axes[name]) for name, a in whole.items()}
