"""Small records in results: a row in words, the activations that guided backpropagation gated, and whether attributions
add up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import one_line
from onnx_gradcam.results.doubts import Doubt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Words:
    """A row in words.

    Attributes:
        text: the target as ``--target`` takes it; "" for a class, which has an index.
        title: the target for readers; "" for a class, which has a label.
        probability: what the probability is made of: "objectness 0.91 × class 0.88"; "" where it is of one piece.
        doubt: why the map is no evidence of anything: nothing was detected, say; None for a sure model.
        cautions: other lines that must stand in the picture, since they change how the map is read.
        question: the question that the row answers; "" where nothing was asked in words.
    """

    text: str = ""
    title: str = ""
    probability: str = ""
    doubt: Doubt | None = None
    cautions: tuple[str, ...] = ()
    question: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """Return all lines that must stand in the picture, that of the doubt first."""
        return self.cautions if self.doubt is None else (self.doubt.line, *self.cautions)


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


@dataclass(frozen=True, eq=False, repr=False)
class Completeness:
    """How far the attributions of R rows add up to the score's difference from the baseline.

    >>> of_two_rows = Completeness({"x": np.array([1.5, 2.0]), "size": np.array([0.5, 0.25])}, np.array([2.0, 2.0]))
    >>> of_two_rows.error.tolist()
    [0.0, 0.25]

    Attributes:
        sums: for each input that moved along the path (R,) float64, the sum of its attributions.
        difference: (R,) float64, the score at the inputs minus the score at the baseline.
    """

    sums: Mapping[str, Array]
    difference: Array

    def __repr__(self) -> str:
        return one_line(self)

    @property
    def total(self) -> Array:
        """Return (R,) float64, the sum of the attributions of all inputs."""
        return np.asarray(np.sum(list(self.sums.values()), axis=0))

    @property
    def error(self) -> Array:
        """Return (R,) float64, ``total`` − ``difference``: 0 for an exact integral."""
        return np.asarray(self.total - self.difference)

    def rows(self, which: Array) -> Completeness:
        """Return the same of some of the rows."""
        return Completeness({name: each[which] for name, each in self.sums.items()}, self.difference[which])

    def of_row(self, row: int) -> dict[str, Any]:
        """Return what the manifest says of a row, ready for JSON."""
        return {
            "sum": float(self.total[row]),
            "difference": float(self.difference[row]),
            "error": float(self.error[row]),
            "inputs": {name: float(each[row]) for name, each in self.sums.items()},
        }


def nan_to_none(value: float) -> float | None:
    """Return the number, or None for NaN, which JSON does not know."""
    return None if math.isnan(value) else float(value)


def without_nan(content: Any) -> Any:
    """Return nested dicts and lists with None in the place of every NaN and infinity.

    >>> without_nan({"error": [1.0, float("inf")]})
    {'error': [1.0, None]}
    """
    if isinstance(content, Mapping):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
