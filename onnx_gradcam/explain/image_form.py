"""Turn images from the form of the model's input to channels first, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.photos.preprocess.choice import InputSpec

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ImageForm:
    """The form in which images lie in the model's input.

    Attributes:
        spec: the input.
        space: its axes that are space.
    """

    spec: InputSpec
    space: tuple[int, ...]

    def arranged(self, x: Array) -> Array:
        """Return images in the form of the model's input as (N, C, *space), floating-point."""
        moved = np.moveaxis(x, self.space, range(-len(self.space), 0))
        extents = moved.shape[-len(self.space) :]
        flat = moved.reshape(len(x), -1, *extents)
        return flat if flat.dtype.kind == "f" else flat.astype(np.float32)

    def as_fed(self, copies: Array) -> Array:
        """Return (N, C, *space) in the form and the dtype of the model's input; integers are rounded, and clipped."""
        rank, dtype = len(self.spec.shape), np.dtype(self.spec.dtype)
        extents = copies.shape[-len(self.space) :]
        others = [self.spec.shape[k] for k in range(1, rank) if k not in self.space]
        known = [n if n is not None else -1 for n in others] if len(others) != 1 else [-1]
        moved = copies.reshape(len(copies), *known, *extents)
        x = np.moveaxis(moved, range(-len(self.space), 0), self.space)
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            x = np.clip(np.rint(x), limits.min, limits.max)
        return np.ascontiguousarray(x, dtype)
