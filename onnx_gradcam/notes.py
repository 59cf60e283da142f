"""What the user should know of an explanation beside its maps, one sentence each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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


def blank(is_blank: np.ndarray, layers: Sequence[str]) -> list[str]:
    """Maps (R,) without positive evidence."""
    if not is_blank.any():
        return []
    return [
        f"{int(is_blank.sum())} of {len(is_blank)} maps are blank: no channel combination speaks for that class "
        f"at {', '.join(layers)}; try counterfactual or signed maps, or another layer"
    ]
