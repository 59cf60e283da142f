"""The method of "auto": what the score of a model decides."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnx_gradcam.anatomy.score import Score
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.methods.table import AUTO, GRADCAM, HIRESCAM, canonical


@dataclass(frozen=True)
class DefaultMethod:
    """The method that is taken where none is named.

    Attributes:
        name: the method.
        reason: why it is taken, for ``inspect``.
        note: what users should know of it beside their map; "" for nothing.
    """

    name: str
    reason: str
    note: str = ""


OF_IMAGES = DefaultMethod(GRADCAM, "one score for each image")
OF_CELLS = DefaultMethod(
    HIRESCAM,
    "dense score: the mean of a gradient over space says which channels speak for a cell, and not where they do so; "
    "--method gradcam gives Grad-CAM",
    "dense score: hirescam; --method gradcam gives Grad-CAM",
)


def default_method(score: Score) -> DefaultMethod:
    """Return the method of "auto" for a score: that of ``docs/decisions/0027``."""
    return OF_IMAGES if score.dense is None else OF_CELLS


def named(method: str, score: Score) -> str:
    """Return a method, or the name of the one that "auto" stands for. Raises ``MethodError`` for an unknown name."""
    return default_method(score).name if canonical(method) == AUTO else method


def resolved(recipe: Recipe, score: Score) -> tuple[Recipe, tuple[str, ...]]:
    """Return a recipe with the method that "auto" stands for, and what users should know of this choice."""
    if recipe.method != AUTO:
        return recipe, ()
    taken = default_method(score)
    return replace(recipe, method=taken.name), (taken.note,) if taken.note else ()
