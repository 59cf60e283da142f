"""Doubts: what a model says of an image is so improbable that its map must not be read as evidence of anything.

A detector that found nothing and a classifier near chance have maps as bright as those of a sure model, since each map
is drawn at its own scale. The thresholds are stated here, and in docs/limits.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
DETECTED = 0.25
"""A box, pixel or step, or a class with a sigmoid of its own, that is less probable is not taken as detected."""
SURE = 0.1
"""Of the way from chance, 1 / K, to 1: a softmax whose most probable class has not come so far is near chance."""
CHECK = "check the preprocessing (inspect --image PHOTO)"
ADVICE = {
    "nothing detected": f"the map shows what speaks for the most probable one all the same; {CHECK}",
    "nothing found": f"the map shows what speaks for the most probable class all the same; {CHECK}",
    "not detected": "the map shows what speaks for this class where it is least improbable",
    "not found": "the map shows what speaks for this class where it is least improbable",
    "no class is probable": f"the map shows what speaks for the most probable one all the same; {CHECK}",
    "near chance": f"the model cannot tell the classes of this image apart; {CHECK}",
}
PLACED: Mapping[str, tuple[str, str]] = {
    "detector": ("nothing detected", "not detected"),
    "map": ("nothing found", "not found"),
    "sequence": ("nothing found", "not found"),
}
"""Family of models → the doubt about an image, and the doubt about one class of it."""


@dataclass(frozen=True)
class Doubt:
    """A doubt about a row.

    Attributes:
        what: a key of ``ADVICE``.
        probability: how probable it is.
        least: how probable it would have to be.
    """

    what: str
    probability: float
    least: float

    @property
    def line(self) -> str:
        """Return the doubt as a line for the picture."""
        return f"{self.what}: p {self.probability:.2g} is below {self.least:.2g}"


def least_probability(family: str, count: int, exclusive: bool, threshold: float | None) -> float:
    """Return the probability below which a model is doubted.

    Args:
        family: "classes", "binary", "regression", "map", "detector" or "sequence".
        count: the number of classes.
        exclusive: whether the classes share one softmax.
        threshold: what the user set; None: ``DETECTED`` or, for a softmax whose chance is higher, chance; for one score
            for each class, ``SURE`` of the way from chance to 1.
    """
    chance = 1 / max(count, 1)
    if threshold is not None:
        return threshold
    if family in PLACED or not exclusive:
        return max(DETECTED, chance) if exclusive else DETECTED
    return chance + SURE * (1 - chance)


def find_doubts(family: str, exclusive: bool, least: float, top: Array, own: Array) -> list[Doubt | None]:
    """Return the doubt about each row, None where there is none.

    Args:
        family, exclusive: as for ``least_probability``.
        least: what that returned.
        top: (R,), the probability of the most probable class of each row's image.
        own: (R,), the probability that each row has; NaN where it has none.
    """
    return [_doubt(family, exclusive, least, float(t), float(o)) for t, o in zip(top, own, strict=True)]


def _doubt(family: str, exclusive: bool, least: float, top: float, own: float) -> Doubt | None:
    of_image, of_class = PLACED.get(family, ("near chance" if exclusive else "no class is probable", ""))
    if top < least:
        return Doubt(of_image, top, least)
    return Doubt(of_class, own, least) if of_class and own < least else None


def sentences(doubts: Sequence[Doubt | None]) -> list[str]:
    """Return the doubts as warnings, one sentence for each kind of doubt."""
    kinds = dict.fromkeys(doubt.what for doubt in doubts if doubt is not None)
    return [_sentence(kind, [d for d in doubts if d is not None and d.what == kind], len(doubts)) for kind in kinds]


def _sentence(kind: str, some: Sequence[Doubt], count: int) -> str:
    if count == 1:
        return f"{some[0].line}; {ADVICE[kind]}"
    highest = max(doubt.probability for doubt in some)
    return f"{kind} in {len(some)} of {count} rows: p at most {highest:.2g}, below {some[0].least:.2g}; {ADVICE[kind]}"
