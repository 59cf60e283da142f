"""What the user should know of an explanation beside its maps, one sentence each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set

import numpy as np

from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.results.records import Rectifiers

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
SATURATED = (
    "the score does not react to a small change of the input (a saturated network?); integrated-gradients looks "
    "further than that"
)
GATED_AWAY = "no positive share of that score comes back through all rectifiers; saliency keeps negative ones, too"
COMPLETE = 0.02  # of the score may be missing from a sum that is to explain it
INTEGRATED = 0.05  # the same, of a difference of scores that is integrated numerically
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


def no_gradient(is_zero: np.ndarray, gating: Rectifiers | None) -> list[str]:
    """Attributions (R,) that are zero everywhere; ``gating``: of a backward pass with gates."""
    if not is_zero.any():
        return []
    reason = SATURATED if gating is None else GATED_AWAY
    return [f"{int(is_zero.sum())} of {len(is_zero)} maps are blank: {reason}"]


def incomplete(explained: np.ndarray, scores: np.ndarray) -> list[str]:
    """Input and biases (R,) do not add up to the score."""
    share = np.abs(explained - scores) / np.maximum(np.abs(scores), 1e-6)
    worst = int(share.argmax())
    if share[worst] <= COMPLETE:
        return []
    return [
        f"x · ∂y/∂x and the biases that were found add up to {explained[worst]:.3g} where the score is "
        f"{scores[worst]:.3g}: they are all of it only in networks of ReLUs, max pools and linear layers with one input"
    ]


def inexact(found: np.ndarray, differences: np.ndarray) -> list[str]:
    """Integrals (R,) that are not the differences of the scores at their ends."""
    share = np.abs(found - differences) / np.maximum(np.abs(differences), 1e-6)
    worst = int(share.argmax())
    if share[worst] <= INTEGRATED:
        return []
    return [
        f"the attributions add up to {found[worst]:.3g} where the score is {differences[worst]:.3g} above the "
        "baseline's: more steps come nearer (--option steps=200)"
    ]


def gated(gating: Rectifiers | None) -> list[str]:
    """Activations that a backward pass with gates had to leave alone, or that there was nothing to gate."""
    if gating is None:
        return []
    if not gating.gated:
        return [f"no rectifier lies between input and score: this is the gradient ({gating})"]
    return [str(gating)] if gating.left_alone else []


def flat(layers: Sequence[str]) -> list[str]:
    """Layers in which the score has no second derivative."""
    if not layers:
        return []
    return [
        f"the score is piecewise linear in {', '.join(layers)}: Shapley-CAM's second-order term is zero there, and its "
        "map is Grad-CAM's"
    ]


def of_places(kinds: Set[str], layers: Sequence[LayerResult]) -> list[str]:
    """What a cam of a part of a dense output does not say, for ``kinds`` of targets.

    Measured on real models: within a mask lay 0.35 to 0.64 of the evidence by gradcam, 0.68 to 0.85 by hirescam, of a
    mask's share of 0.36 to 0.45; and the maximum of a cam of what boxes are made of lay beside the box.
    """
    averaged = any(layer.weights is not None and set(layer.weights.shape[2:]) == {1} for layer in layers)
    if "iou" in kinds:
        return [
            "what a box is made of says little of its place: a cam may lie beside it, and an attribution of the input "
            "(--method saliency) does not"
        ]
    if averaged and kinds & {"region", "objectness"}:
        return [
            "weights averaged over space say which channels speak for this part, and the map is all places where they "
            "are: --method hirescam or layercam keeps to the part"
        ]
    return []
