"""What an attack raises, and its gradient at many images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.probing import class_scores
from onnx_gradcam.jobs.attack.ready import Prepared
from onnx_gradcam.jobs.attack.steps import Array
from onnx_gradcam.targets import Difference, LogProbability, TargetObject

TOGETHER = 16


def _pieces(count: int) -> list[slice]:
    return [slice(start, start + TOGETHER) for start in range(0, count, TOGETHER)]


def scores_of_images(explainer: Explainer, prepared: Prepared, x: Array) -> tuple[Array, Array]:
    """Return scores and probabilities of each class, (N, K) each."""
    both = [class_scores(explainer, prepared.some(x, numbers)) for numbers in _pieces(len(x))]
    scores, probabilities = (np.concatenate(parts) for parts in zip(*both, strict=True))
    return scores, probabilities


def _log_probability(class_index: int, scores: Array) -> TargetObject:
    return LogProbability(class_index)


def _margin(class_index: int, scores: Array) -> TargetObject:
    others = np.where(np.arange(len(scores)) == class_index, -np.inf, scores)
    return Difference(class_index, int(others.argmax()))


LOSSES: Mapping[str, Callable[[int, Array], TargetObject]] = {
    "cross-entropy": _log_probability,
    "margin": _margin,
}
"""Loss → what it is the negative of: from a class and the scores (K,) of an image to a target."""


def loss_gradient(
    explainer: Explainer, prepared: Prepared, true: Array, aims: Array, loss: str
) -> Callable[[Array], npt.NDArray[np.float64]]:
    """Return the gradient of the loss that the attack raises."""
    classes, sign = np.where(aims >= 0, aims, true), np.where(aims >= 0, 1.0, -1.0)

    def gradient(x: Array) -> npt.NDArray[np.float64]:
        parts = []
        for numbers in _pieces(len(x)):
            feeds = prepared.some(x, numbers)
            scores = class_scores(explainer, feeds)[0] if loss == "margin" else np.zeros((len(x[numbers]), 1))
            targets = [LOSSES[loss](int(c), s) for c, s in zip(classes[numbers], scores, strict=True)]
            explanation = explainer.explain(feeds, targets, "saliency", signed=True)
            assert explanation.attribution is not None
            parts.append(explanation.attribution.astype(np.float64))
        g = np.concatenate(parts)
        return g * sign.reshape(-1, *[1] * (g.ndim - 1))

    return gradient
