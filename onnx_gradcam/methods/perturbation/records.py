"""What perturbation methods get and return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Run = Callable[[Array], Array]
"""From changed copies (B, C, *space), float32, to their scores (B, K) float64, one column for each target.

The copies are read before it returns: the same array may be changed and run again.
"""


@dataclass(frozen=True, eq=False)
class PerturbedMaps:
    """What a perturbation method makes of one image, for K targets.

    Attributes:
        maps: (K, *space), before the final ReLU.
        weights: (K, C, 1…), for methods that weight channels; None for others.
    """

    maps: Array
    weights: Array | None = None
