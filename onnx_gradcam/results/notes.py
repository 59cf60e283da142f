"""Warnings about an explanation, one sentence each: what the user should know beside the maps.

Each function returns a list, which is empty where there is nothing to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set

import numpy as np

from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.results.records import Completeness, Rectifiers

DEAD = (
    "the activation of {layers} is 0 everywhere for that image; check that the preprocessing is the model's own "
    "(inspect --image PHOTO), or take an earlier layer"
)
FLAT = (
    "the gradient at {layers} is 0 everywhere: a small change there does not change that score; take another layer, "
    "or check with verify whether the score depends on it"
)
NOTHING_FOR = (
    "nothing at {layers} speaks for that class; --counterfactual (counterfactual=True) shows what speaks against it, "
    "--both (onnx_gradcam.both) shows the two sides; or take another layer"
)
NOTHING_AGAINST = (
    "nothing at {layers} speaks against that class: all evidence there is for it; leave out --counterfactual to see "
    "it, --both (onnx_gradcam.both) shows the two sides; or take another layer"
)
SATURATED = (
    "the score does not react to a small change of the input (a saturated network?); integrated-gradients looks at "
    "large changes"
)
GATED_AWAY = "no positive share of that score comes back through all rectifiers; saliency keeps negative shares, too"
COMPLETE = 0.02  # share of the score that may be missing from a sum that explains it
INTEGRATED = 0.05  # the same for a difference of scores that is integrated numerically
CANCELLED = (
    "evidence for and against that class cancels everywhere at {layers}; try the method hirescam, or another layer"
)


SANITY = (
    "guided backpropagation and deconvolution show edges whatever the class: they fail sanity checks (Adebayo et al. "
    "2018)",
)
NO_SCORE_AT_BASELINE = (
    "the model gives NaN or infinity at the baseline: whether the attributions add up cannot be told, and another "
    "baseline is better (--option baseline=0.5)"
)
HALF = 0.5  # share of the most: a map whose least value is above it is bright everywhere
BLANK_AT_INPUT = "blank map: it is 0 everywhere at the input"


def blank_line(method: str, layers: Sequence[LayerResult]) -> str:
    """Return what the picture of a blank map says; the method is followed by its variants."""
    if not layers:
        return BLANK_AT_INPUT
    variants = method.split()[1:]
    side = "for or against" if "signed" in variants else "against" if "counterfactual" in variants else "for"
    return f"blank map: nothing at this layer speaks {side} this target"


def tied_scores(scores: np.ndarray) -> list[str]:
    """Warn of images of a quantized model whose highest score, of (N, K), belongs to several classes."""
    count = (np.sum(scores == scores.max(axis=1, keepdims=True), axis=1) > 1).sum()
    if not count:
        return []
    return [
        f"{count} of {len(scores)} images have several classes with the highest score: quantization cannot tell "
        "these classes apart, and the first of them is taken as top-1"
    ]


def image_inputs(names: Sequence[str], chosen: str) -> list[str]:
    """Warn that several inputs could be the image; ``chosen`` is explained."""
    if len(names) < 2:
        return []
    return [
        f"each of the inputs {', '.join(names)} could be the image: {chosen!r} is explained; choose another one with "
        "--image-input NAME"
    ]


def other_heads(taken: str, others: Sequence[str]) -> list[str]:
    """Say which of several heads is explained; ``taken`` and ``others`` are the names of outputs."""
    if not others:
        return []
    names = ", ".join(map(repr, others))
    return [
        f"the model has {len(others) + 1} heads: {taken!r} is explained, and not {names}; choose with --head NAME, or "
        "--head all"
    ]


def lost_probabilities(steps: Mapping[str, float]) -> list[str]:
    """Warn of quantized outputs that hold probabilities in steps so large that all of them are 0.

    ``steps``: by the name of the output.
    """
    return [
        f"the deployed output {name!r} holds its numbers in steps of {step:.3g}: every probability is rounded to 0 "
        "there (boxes and probabilities share one scale); what is explained is the score before that"
        for name, step in steps.items()
    ]


def forward_difference(difference: float | None) -> list[str]:
    """Warn that the outputs of the gradient graph differ a little from those of the deployed model."""
    if difference is None:
        return []
    return [
        f"reading inner values changed the outputs by up to {difference:.2g} of the largest, as the runtime's own "
        "optimisations do; outputs and prediction are those of the deployed model"
    ]


def few_labels(labels: int, classes: int) -> list[str]:
    """Warn that there are labels for some of the classes alone: they may be those of another model."""
    if not 0 < labels < classes:
        return []
    return [f"{labels} labels for {classes} classes: the others are numbers, if the labels are this model's at all"]


def guessed_labels(source: str) -> list[str]:
    """Warn that the class names are not the model's own."""
    return [f"the labels are {source}; set them with --labels FILE"] if source.startswith("guessed") else []


def blank_maps(is_blank: np.ndarray, layers: Sequence[LayerResult], method: str) -> list[str]:
    """Say why maps are 0 everywhere, and what to do: one sentence for each reason.

    Args:
        is_blank: (R,) bool, which maps are blank.
        layers: the results at the target layers; empty for methods of the input.
        method: the method followed by its variants.
    """
    reasons = Counter(_why_blank(int(row), layers, method.split()) for row in np.flatnonzero(is_blank) if layers)
    names = ", ".join(layer.name for layer in layers)
    return [
        f"{count} of {len(is_blank)} maps are blank: {reason.format(layers=names)}" for reason, count in reasons.items()
    ]


def _why_blank(row: int, layers: Sequence[LayerResult], variants: Sequence[str]) -> str:
    if not any(layer.activation[row].any() for layer in layers):
        return DEAD
    if all(layer.gradient is not None and not layer.gradient[row].any() for layer in layers):
        return FLAT
    if "signed" in variants:
        return CANCELLED
    return NOTHING_AGAINST if "counterfactual" in variants else NOTHING_FOR


def blank_attributions(is_zero: np.ndarray, gating: Rectifiers | None) -> list[str]:
    """Say why attributions, (R,) bool, are 0 everywhere; ``gating``: what a backward pass with gates gated."""
    if not is_zero.any():
        return []
    reason = SATURATED if gating is None else GATED_AWAY
    return [f"{int(is_zero.sum())} of {len(is_zero)} maps are blank: {reason}"]


def blank_copies(is_zero: np.ndarray, method: str) -> list[str]:
    """Say why maps, (R,) bool, of a method that changes the input are 0 everywhere."""
    if not is_zero.any():
        return []
    reason = f"no change of the input that {method!r} makes lowers the score"
    return [f"{int(is_zero.sum())} of {len(is_zero)} maps are blank: {reason}"]


def missing_evidence(explained: np.ndarray, scores: np.ndarray) -> list[str]:
    """Warn where the evidence of input and biases (R,) does not add up to the score (R,)."""
    share = np.abs(explained - scores) / np.maximum(np.abs(scores), 1e-6)
    worst = int(share.argmax())
    if share[worst] <= COMPLETE:
        return []
    return [
        f"x · ∂y/∂x and the biases add up to {explained[worst]:.3g}, but the score is {scores[worst]:.3g}: they add up "
        "to the whole score only in networks of ReLUs, max pools and linear layers with one input"
    ]


def integration_error(completeness: Completeness, way_out: str) -> list[str]:
    """Warn where integrals are not the differences of the scores at their ends.

    Args:
        completeness: what they add up to.
        way_out: why they may not be, or what brings them nearer.
    """
    difference = completeness.difference
    share = np.abs(completeness.error) / np.maximum(np.abs(difference), 1e-6)
    worst = int(share.argmax())
    if share[worst] <= INTEGRATED:
        return []
    return [
        f"the attributions add up to {completeness.total[worst]:.3g}, but the score is {difference[worst]:.3g} above "
        f"that of the baseline: {way_out}"
    ]


def held_by_biases(completeness: Completeness) -> list[str]:
    """Say how much of the score the relevance of the input is, where that is not all of it."""
    score = completeness.difference
    share = np.abs(completeness.error) / np.maximum(np.abs(score), 1e-6)
    worst = int(share.argmax())
    if share[worst] <= COMPLETE:
        return []
    return [
        f"the relevance of the input adds up to {completeness.total[worst]:.3g} of a score of {score[worst]:.3g}: what "
        "is missing, or too much, is that of biases, and of other inputs"
    ]


def left_alone(gating: Rectifiers | None) -> list[str]:
    """Warn that a backward pass with gates left activations alone, or that there was nothing to gate."""
    if gating is None:
        return []
    if not gating.gated:
        return [f"no rectifier lies between input and score: the map is the plain gradient ({gating})"]
    return [str(gating)] if gating.left_alone else []


def no_curvature(layers: Sequence[str]) -> list[str]:
    """Warn of layers in which the score has no second derivative."""
    if not layers:
        return []
    return [
        f"the score is piecewise linear in {', '.join(layers)}: the second-order term of Shapley-CAM is zero there, "
        "and its map is that of Grad-CAM"
    ]


def high_floor(method: str, cam: np.ndarray) -> list[str]:
    """Say that maps (R, *space) of shares are bright everywhere: the least of one is at least half of its most."""
    flat = cam.reshape(len(cam), -1)
    share = float(np.min(flat.min(axis=1) / np.maximum(flat.max(axis=1), np.finfo(np.float32).tiny)))
    if share < HALF:
        return []
    return [
        f"{method}: the token with the least has {share:.0%} of what the one with the most has, so that the map is "
        "bright everywhere; floor='least' (--option floor=least) shows what is above the least"
    ]


def own_grid(name: str, shape: Sequence[int], grid: Sequence[int]) -> list[str]:
    """Say that maps stay on the grid of their layer, where the input ``name`` of this shape has no axes for it.

    ``grid`` is empty where the input has them.
    """
    if not grid:
        return []
    sizes = "×".join(map(str, grid))
    return [
        f"the map stays on the {sizes} positions of the layer: the input {name!r} holds {'×'.join(map(str, shape))} "
        "numbers for each image, and has no axes for them"
    ]


def loose_places(kinds: Set[str], layers: Sequence[LayerResult]) -> list[str]:
    """Warn that a cam says little about the place of a box, or of a part of a dense output.

    Measured on real models, for masks that cover 0.36 to 0.45 of the image: 0.35 to 0.64 of the evidence by gradcam
    lies within the mask, and 0.68 to 0.85 of that by hirescam. The maximum of a cam of the values that boxes are made
    of lies beside the box.

    Args:
        kinds: the kinds of the targets.
        layers: the results at the target layers.
    """
    loose = says_little_of_places(kinds, layers)
    if "iou" in loose:
        return [
            "a cam says little about the place of a box, and may lie beside it: take an attribution of the input "
            "(--method saliency)"
        ]
    if loose:
        return [
            "weights averaged over space say which channels speak for this part, and the map shows all places where "
            "these channels are active: --method hirescam or layercam keeps to the part"
        ]
    return []


def says_little_of_places(kinds: Set[str], layers: Sequence[LayerResult]) -> Set[str]:
    """Return which of these kinds of targets have maps that say little about places; see ``loose_places``."""
    loose = {"iou"} | ({"region", "objectness"} if _is_averaged(layers) else set())
    return kinds & loose if layers else frozenset()


def _is_averaged(layers: Sequence[LayerResult]) -> bool:
    """Tell whether the weights of a layer are the same at all places."""
    return any(layer.weights is not None and set(layer.weights.shape[2:]) == {1} for layer in layers)


def mean_of_flattened(layers: Sequence[LayerResult]) -> list[str]:
    """Warn of weights averaged over space in a classifier that has a weight of its own for each place."""
    if not _is_averaged(layers):
        return []
    return [
        "the classifier reads its last maps in a row, with a weight for each place (Flatten and a linear layer): the "
        "mean of a gradient over space loses which place speaks for the class; --method hirescam keeps it"
    ]


def within_last_kernel(is_within: np.ndarray, is_default: bool) -> list[str]:
    """Warn of rows, (R,) bool, whose map covers no more than the last kernel before its cell.

    ``is_default``: whether the layer was chosen automatically.
    """
    if not is_within.any():
        return []
    way_out = (
        "an earlier layer (--layer NAME) shows more" if is_default else "the default layer, or an earlier one, does"
    )
    return [
        f"{int(is_within.sum())} of {len(is_within)} maps are tautological: they cover no more than the last kernel "
        f"before the cell reads, so that they show where the cell is and not what the model looked at; {way_out}"
    ]


def beside_photo(is_beside: np.ndarray) -> list[str]:
    """Warn of rows, (R,) bool, whose strongest evidence lies outside of the photo."""
    beside = "the strongest evidence lies in the padding around the photo, which the model saw too"
    return [beside] if is_beside.any() else []
