"""The request for a map, as one value: the method and its variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OWN, ALL = LEVELS = ("own", "all")


@dataclass(frozen=True)
class Recipe:
    """The method by which a map is made, with its variants.

    >>> Recipe("gradcam", signed=True).name
    'gradcam signed'

    Attributes:
        method: a name from ``docs/methods.md``.
        counterfactual: whether the map shows what speaks against the score.
        signed: whether the map shows negative evidence, too.
        fusion: how the maps of several layers become one: "mean", "max" or "product".
        options: the options of the method and of its smoothings, by name.
        smooth: the names of the smoothings: "aug", "noise", "eigen".
        levels: of a detector with several levels: "own", that of the cell, or "all", the sum of all of them.
    """

    method: str
    counterfactual: bool = False
    signed: bool = False
    fusion: str = "mean"
    options: Mapping[str, Any] = field(default_factory=dict)
    smooth: tuple[str, ...] = ()
    levels: str = OWN

    @property
    def name(self) -> str:
        """Return the method followed by its variants, as it stands in titles and file names."""
        smooth = "".join(f" {name}" for name in self.smooth)
        levels = " all-levels" * (self.levels == ALL)
        return self.method + " counterfactual" * self.counterfactual + " signed" * self.signed + smooth + levels

    @property
    def combination(self) -> str:
        """Return what stands in the place of the sum over channels: "eigen" or "sum"."""
        return "eigen" if "eigen" in self.smooth else "sum"
