"""What was found at one target layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class LayerResult:
    """One target layer: ``activation`` and ``gradient`` (R, C, *space), ``weights`` (R, C, 1…) or (R, C, *space),
    ``cam`` (R, *space) float32 in the score's units; where it is smoothed over copies of the input, the rest is of the
    input itself. ``gradient`` and ``weights`` are None for methods without them.
    """

    name: str
    activation: Array
    gradient: Array | None
    weights: Array | None
    cam: Array

    def rows(self, rows: Array) -> LayerResult:
        """Return some of the rows."""
        gradient = None if self.gradient is None else self.gradient[rows]
        weights = None if self.weights is None else self.weights[rows]
        return LayerResult(self.name, self.activation[rows], gradient, weights, self.cam[rows])
