"""What the user should know of an explanation beside its maps, one sentence each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx_gradcam.explanation import LayerResult

DEAD = (
    "the activation of {layers} is 0 everywhere for that image; see that the preprocessing is the model's own "
    "(inspect --image PHOTO), or take an earlier layer"
)
FLAT = (
    "the gradient at {layers} is 0 everywhere: no small change there moves that score; take another layer, or see "
    "with verify whether the score depends on it"
)
NOTHING_FOR = (
    "nothing at {layers} speaks for that class; --counterfactual (counterfactual=True) shows what speaks against it, "
    "--both (onnx_gradcam.both) the two sides, or take another layer"
)
NOTHING_AGAINST = (
    "nothing at {layers} speaks against that class, all evidence there is for it; without --counterfactual it is "
    "shown, --both (onnx_gradcam.both) shows the two sides, or take another layer"
)
NOTHING = (
    "evidence for and against that class cancels everywhere at {layers}; try the method hirescam, or another layer"
)


def tied(scores: np.ndarray) -> list[str]:
    """Of a quantized model: images whose top-1 (N, K) is one of several classes with the same score."""
    count = (np.sum(scores == scores.max(axis=1, keepdims=True), axis=1) > 1).sum()
    if not count:
        return []
    return [
        f"{count} of {len(scores)} images have several classes with the highest score: quantization cannot tell "
        "these apart, and the first was taken for top-1"
    ]


def alike(names: Sequence[str], taken: str) -> list[str]:
    """Several inputs could be the image."""
    if len(names) < 2:
        return []
    return [
        f"each of the inputs {', '.join(names)} could be the image: {taken!r} is explained, another with "
        "--image-input NAME"
    ]


def apart(difference: float | None) -> list[str]:
    """The gradient graph's outputs are not quite the deployed model's."""
    if difference is None:
        return []
    return [
        f"exposing values changed the outputs by up to {difference:.2g} of the largest, as the runtime's "
        "own optimisations do; outputs and prediction are the deployed model's"
    ]


def guessed_labels(source: str) -> list[str]:
    """The class names are not the model's own."""
    return [f"the labels are {source}; settle it with --labels FILE"] if source.startswith("guessed") else []


def blank(is_blank: np.ndarray, layers: Sequence[LayerResult], method: str) -> list[str]:
    """Why maps (R,) are 0 everywhere, and what to do: one sentence for each reason.

    ``method``: with its variants behind it.
    """
    found = Counter(_why_blank(int(row), layers, method.split()) for row in np.flatnonzero(is_blank) if layers)
    names = ", ".join(layer.name for layer in layers)
    return [
        f"{count} of {len(is_blank)} maps are blank: {reason.format(layers=names)}" for reason, count in found.items()
    ]


def _why_blank(row: int, layers: Sequence[LayerResult], variants: Sequence[str]) -> str:
    if not any(layer.activation[row].any() for layer in layers):
        return DEAD
    if all(layer.gradient is not None and not layer.gradient[row].any() for layer in layers):
        return FLAT
    if "signed" in variants:
        return NOTHING
    return NOTHING_AGAINST if "counterfactual" in variants else NOTHING_FOR
