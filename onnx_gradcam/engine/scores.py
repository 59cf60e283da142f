"""The score tensor as the runtime returns it → scores and probabilities by class."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.natures import PROBABILITIES
from onnx_gradcam.anatomy.score import NO_CLASSES, Score
from onnx_gradcam.targets.written import WrittenScore

Float = npt.NDArray[np.floating[Any]]


def by_class(score: Score | WrittenScore, y: npt.NDArray[Any]) -> Float:
    """Return the score tensor of N images as (N, K) float32, one column per class.

    (−z, z) for a single sigmoid logit z; K = 1 for a regression.
    """
    columns = np.asarray(y, np.float32).reshape(len(y), -1)
    return np.concatenate([-columns, columns], axis=1) if score.kind == "binary" else columns


def probabilities(score: Score | WrittenScore, columns: Float) -> Float:
    """Return the probabilities of (N, K) scores: by a sigmoid where the model ends in one, else softmax.

    They are the scores where these are probabilities, and NaN for numbers that are no classes.
    """
    if score.kind in ("regression", *NO_CLASSES):
        return np.full_like(columns, np.nan)
    if score.nature == PROBABILITIES:
        return columns
    y = columns.astype(np.float64)
    if score.activation == "Sigmoid":
        p = 1 / (1 + np.exp(-y))
    else:
        p = np.exp(y - y.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
    return p.astype(np.float32)
