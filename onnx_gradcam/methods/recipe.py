"""How a map is asked for: the method and its variants, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """``method``: a name of ``docs/methods.md``; ``counterfactual``: what speaks against the score; ``signed``: with
    negative evidence; ``fusion``: of several layers, "mean", "max" or "product"; ``smooth``: names of smoothings;
    ``options``: the method's and the smoothing's own.
    """

    method: str
    counterfactual: bool = False
    signed: bool = False
    fusion: str = "mean"
    options: Mapping[str, Any] = field(default_factory=dict)
    smooth: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The method with its variants behind it, as titles and file names have it."""
        smooth = "".join(f" {name}" for name in self.smooth)
        return self.method + " counterfactual" * self.counterfactual + " signed" * self.signed + smooth

    @property
    def combination(self) -> str:
        """What stands in the place of the sum over channels."""
        return "eigen" if "eigen" in self.smooth else "sum"
