"""What stands around the picture of a row, as text: its title, and what its scores and its map are measured in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from onnx_gradcam.methods.attribution import ATTRIBUTIONS
from onnx_gradcam.methods.table import GUIDED_CAMS, WITHOUT_GRADIENT

if TYPE_CHECKING:
    from onnx_gradcam.results.explanation import Explanation

EXCLUSIVE = ("Softmax", "LogSoftmax")
LOGIT, SCORE, ACTIVATION, GRADIENT = "logit", "score", "activation", "gradient"
UNITS: Mapping[str, str] = {
    "prob": "probability",
    "logprob": "log-probability",
    "tokens": "log-probability",
    "similar": "cosine",
    "iou": "overlap",
    "objectness": SCORE,
    "output": "value",
    "-output": "value",
    "custom": "value",
}
"""The form of a target → what its score is; others are made of the scores of classes."""
IN_UNITS_OF_THE_SCORE = ("input-x-gradient", "integrated-gradients", "fullgrad")
VARIANCES = ("squaregrad", "vargrad")


def unit_of_score(target: str, activation: str) -> str:
    """Return what a score is: a "logit" only before a softmax.

    >>> unit_of_score("281", "Softmax"), unit_of_score("281", "Sigmoid"), unit_of_score("prob:281", "Softmax")
    ('logit', 'score', 'probability')

    Args:
        target: the target as text for ``--target``.
        activation: the squashing operator behind the scores, "" for none.
    """
    return UNITS.get(target.partition(":")[0], LOGIT if activation in EXCLUSIVE else SCORE)


def unit_of_map(method: str, unit: str) -> str:
    """Return what the values of a map are, for a score of ``unit``; the method may be followed by its variants.

    >>> unit_of_map("gradcam counterfactual", "logit"), unit_of_map("eigencam", "logit")
    ('logit', 'activation')
    """
    name = method.partition(" ")[0]
    if name in WITHOUT_GRADIENT:
        return ACTIVATION
    if name in VARIANCES:
        return f"{GRADIENT}²"
    is_gradient = name in ATTRIBUTIONS or name in GUIDED_CAMS
    return GRADIENT if is_gradient and name not in IN_UNITS_OF_THE_SCORE else unit


def title(explanation: Explanation, row: int) -> list[str]:
    """Return the lines above a figure: target and probability, method and score, where the two were taken."""
    probability = float(explanation.probability[row])
    suffix = "" if np.isnan(probability) else f"   p {probability:.3f}"
    before = f", before {explanation.score_activation}" if explanation.score_activation else ""
    score = f"{explanation.unit(row)} {float(explanation.score[row]):.3g}"
    made_of = f", p = {explanation.made_of(row)}" if explanation.made_of(row) else ""
    return [
        f"{explanation.name(row)}{suffix}",
        f"{explanation.method}, {score}{made_of}",
        f"score {explanation.score_name}{before}",
        place(explanation),
    ]


def place(explanation: Explanation) -> str:
    """Return the target layers and the input that was attributed, in one line."""
    layers = " + ".join(layer.name for layer in explanation.layers)
    where = [f"layer {layers}" if layers else "", f"input {explanation.attributed}" if explanation.attributed else ""]
    return ", ".join(filter(None, where))
