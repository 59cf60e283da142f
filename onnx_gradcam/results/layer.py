"""The result at one target layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from onnx_gradcam.errors import one_line

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class LayerResult:
    """Activation, gradient, weights and cam of R rows at one target layer.

    For cams that are smoothed over copies of the input, the other arrays are those of the input itself.

    Attributes:
        name: the name of the layer, an ONNX value.
        activation: (R, C, *space), A.
        gradient: (R, C, *space), ∂score/∂A; None for methods without gradients.
        weights: (R, C, 1…) or (R, C, *space) float32; None for methods without weights.
        cam: (R, *space) float32, in the score's units.
    """

    name: str
    activation: Array
    gradient: Array | None
    weights: Array | None
    cam: Array

    def __repr__(self) -> str:
        return one_line(self)

    def rows(self, rows: Array) -> LayerResult:
        """Return some of the rows."""
        gradient = None if self.gradient is None else self.gradient[rows]
        weights = None if self.weights is None else self.weights[rows]
        return LayerResult(self.name, self.activation[rows], gradient, weights, self.cam[rows])
