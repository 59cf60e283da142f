"""Small records that stand in results: a target in words, and what guided backpropagation gated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """A target in words: ``text`` as ``--target`` has it, ``title`` for readers; "" both for a class with its label."""

    text: str = ""
    title: str = ""


@dataclass(frozen=True)
class Rectifiers:
    """The activations that a backward pass with gates went through: operator → how many there were.

    Attributes:
        piecewise: piecewise linear rectifiers that were gated.
        smooth: other rectifiers that were gated.
        left_alone: activations that kept their gradient.
    """

    piecewise: Mapping[str, int]
    smooth: Mapping[str, int]
    left_alone: Mapping[str, int]

    @property
    def gated(self) -> int:
        """Return how many rectifiers were gated."""
        return sum(self.piecewise.values()) + sum(self.smooth.values())

    def __str__(self) -> str:
        """Return "49 rectifiers gated: 17 Relu; 32 smooth: 32 SiLU; left alone: 16 Sigmoid"."""
        gated = [_listed(self.piecewise)] if self.piecewise else []
        if self.smooth:
            gated.append(f"{sum(self.smooth.values())} smooth: {_listed(self.smooth)}")
        heading = f"{self.gated} rectifier{'' if self.gated == 1 else 's'} gated"
        parts = [": ".join([heading, *gated[:1]]), *gated[1:]]
        return "; ".join([*parts, f"left alone: {_listed(self.left_alone)}"] if self.left_alone else parts)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
