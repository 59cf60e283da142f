"""Small records in results: a target in words, and the activations that guided backpropagation gated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """A target in words; both fields are "" for a class, which has an index and a label.

    Attributes:
        text: the target as ``--target`` takes it.
        title: the target for readers.
    """

    text: str = ""
    title: str = ""


@dataclass(frozen=True)
class Rectifiers:
    """The activations that a backward pass with gates went through, counted by operator.

    >>> str(Rectifiers(piecewise={"Relu": 17}, smooth={}, left_alone={"Sigmoid": 1}))
    '17 rectifiers gated: 17 Relu; left alone: 1 Sigmoid'

    Attributes:
        piecewise: how many piecewise linear rectifiers were gated, by operator.
        smooth: how many other rectifiers were gated, by operator.
        left_alone: how many activations kept their gradient, by operator.
    """

    piecewise: Mapping[str, int]
    smooth: Mapping[str, int]
    left_alone: Mapping[str, int]

    @property
    def gated(self) -> int:
        """Return how many rectifiers were gated."""
        return sum(self.piecewise.values()) + sum(self.smooth.values())

    def __str__(self) -> str:
        """Return the counts in words: "49 rectifiers gated: 17 Relu; 32 smooth: 32 SiLU; left alone: 16 Sigmoid"."""
        gated = [_list_counts(self.piecewise)] if self.piecewise else []
        if self.smooth:
            gated.append(f"{sum(self.smooth.values())} smooth: {_list_counts(self.smooth)}")
        heading = f"{self.gated} rectifier{'' if self.gated == 1 else 's'} gated"
        parts = [": ".join([heading, *gated[:1]]), *gated[1:]]
        return "; ".join([*parts, f"left alone: {_list_counts(self.left_alone)}"] if self.left_alone else parts)


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def nan_to_none(value: float) -> float | None:
    """Return the number, or None for NaN, which JSON does not know."""
    return None if math.isnan(value) else float(value)
