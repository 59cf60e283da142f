"""What stands around the picture of a row, as text: its title, and what its scores and its map are measured in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnx_gradcam.methods.attribution import ATTRIBUTIONS
from onnx_gradcam.methods.factorization import CONCEPT_METHODS
from onnx_gradcam.methods.perturbation.table import PERTURBATIONS
from onnx_gradcam.methods.table import GUIDED_CAMS, WITHOUT_GRADIENT
from onnx_gradcam.methods.tokens import TOKEN_METHODS
from onnx_gradcam.results.frame import ALL_LEVELS
from onnx_gradcam.results.layer import LayerResult

if TYPE_CHECKING:
    from onnx_gradcam.results.explanation import Explanation

EXCLUSIVE = ("Softmax", "LogSoftmax")
LOGIT, SCORE, ACTIVATION, GRADIENT = "logit", "score", "activation", "gradient"
SHARE = "share of the peak"
UNITS: Mapping[str, str] = {
    "prob": "probability",
    "logprob": "log-probability",
    "tokens": "log-probability",
    "logits": LOGIT,
    "similar": "cosine",
    "iou": "overlap",
    "objectness": SCORE,
    "output": "value",
    "-output": "value",
    "custom": "value",
}
"""The form of a target → what its score is; others are made of the scores of classes."""
IN_UNITS_OF_THE_SCORE = ("input-x-gradient", "integrated-gradients", "gradient-shap", "deeplift", "lrp", "fullgrad")
VARIANCES = ("squaregrad", "vargrad")
LEAST_SHOWN = 0.001
"""A smaller probability has one digit that is not 0 instead of three decimals."""


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
    if name in PERTURBATIONS:
        return unit if PERTURBATIONS[name].unit == SCORE else PERTURBATIONS[name].unit
    if name in TOKEN_METHODS:
        return unit if TOKEN_METHODS[name].unit == SCORE else TOKEN_METHODS[name].unit
    if name in CONCEPT_METHODS:
        return SHARE
    if name in WITHOUT_GRADIENT:
        return ACTIVATION
    if name in VARIANCES:
        return f"{GRADIENT}²"
    is_gradient = name in ATTRIBUTIONS or name in GUIDED_CAMS
    return GRADIENT if is_gradient and name not in IN_UNITS_OF_THE_SCORE else unit


def title(explanation: Explanation, row: int) -> list[str]:
    """Return the lines above a figure: target and probability, method and score, where the two were taken."""
    suffix = percentage(float(explanation.probability[row]))
    before = f", before {explanation.score_activation}" if explanation.score_activation else ""
    score = f"{explanation.unit(row)} {float(explanation.score[row]):.3g}"
    made_of = f", p = {explanation.made_of(row)}" if explanation.made_of(row) else ""
    question = explanation.question(row)
    return [
        f"{question} {heading(explanation.name(row))}{suffix}".lstrip(),
        f"{explanation.method}, {score}{made_of}",
        f"score {explanation.score_name}{before}",
        _place(explanation, row),
    ]


def heading(name: str) -> str:
    """Return the name of what is explained as it stands above a picture: a mere index is called a class.

    >>> heading("tabby (281)"), heading("281")
    ('tabby (281)', 'class 281')
    """
    return f"class {name}" if name.isdecimal() else name


def percentage(probability: float) -> str:
    """Return a probability as it follows a label, "" for NaN.

    >>> percentage(0.9764), percentage(0.00048)
    ('   p 0.976', '   p 0.0005')
    """
    if np.isnan(probability):
        return ""
    return f"   p {probability:.3f}" if probability >= LEAST_SHOWN or probability == 0 else f"   p {probability:.1g}"


def layers_of_row(explanation: Explanation, row: int) -> Sequence[LayerResult]:
    """Return the layers that the map of a row comes from: where each level of a detector has its own, only that."""
    level = ALL_LEVELS if explanation.frame.level is None else int(explanation.frame.level[row])
    return explanation.layers if level == ALL_LEVELS else explanation.layers[level : level + 1]


def _place(explanation: Explanation, row: int) -> str:
    """Return the target layers and the input that was attributed, in one line."""
    names = [layer.name for layer in layers_of_row(explanation, row)]
    layers = " + ".join(names or (explanation.provenance.layers if explanation.frame.tiles else ()))
    where = [f"layer {layers}" if layers else "", f"input {explanation.attributed}" if explanation.attributed else ""]
    return ", ".join(filter(None, where))
