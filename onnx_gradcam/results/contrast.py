"""Maps of the same photos side by side, at one scale: for and against a target, or one target against another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import InputError, MethodError
from onnx_gradcam.methods.arrays import as_float32
from onnx_gradcam.methods.cam import NEEDS, compute_cam
from onnx_gradcam.results import notes
from onnx_gradcam.results.drawing import draw_together
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.frame import ALL_LEVELS, Frame
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.results.records import Words
from onnx_gradcam.results.selection import warnings_beside_blank
from onnx_gradcam.results.side_by_side import BOTH, CONTRAST, SideBySide

Array = npt.NDArray[Any]
ONE_SIDED = frozenset({"counterfactual", "signed"})
ROUNDING = 1e-3
"""Share of the largest activation by which two runs on one image may differ."""


def both(explanation: Explanation, against: Explanation | None = None) -> SideBySide:
    """Return what speaks for each target and what speaks against it, side by side.

    The parts are called "for", "against" and "net". "for" is the method on (A, G), "against" the method on (A, −G), and
    "net" the first minus the second, signed. For Grad-CAM and all methods whose weights are linear in G, "net" is the
    signed map. The model is not run again.

    >>> from importlib.resources import files
    >>> import onnx_gradcam as ogc
    >>> demo = files("onnx_gradcam.models")
    >>> explainer = ogc.Explainer(demo / "shapes-resnet.onnx")
    >>> sides = ogc.both(explainer.explain_image(demo / "images" / "arrow-and-circle.png"))
    >>> list(sides.parts)
    ['for', 'against', 'net']

    Args:
        explanation: R rows of a method of a layer, neither counterfactual nor signed.
        against: the same explanation with ``counterfactual=True``. It is needed for smoothed maps, and for methods that
            read more than A and G.

    Raises:
        MethodError: the method has no counterfactual, or needs ``against``; or ``explanation`` is itself counterfactual
            or signed.
        InputError: ``against`` is about other images, targets or layers.
    """
    _require_plain(explanation)
    against = against or _counterfactual(explanation)
    _check_alike(explanation, against)
    if not np.array_equal(explanation.class_index, against.class_index):
        raise InputError("the two sides have different targets", hint="the same target, with counterfactual=True")
    net = [_minus(a, b) for a, b in zip(explanation.layers, against.layers, strict=True)]
    parts = {
        "for": explanation,
        "against": against,
        "net": replace(explanation, method=f"{explanation.method} net", layers=tuple(net), signed=True),
    }
    drawn = _draw_at_one_scale(parts)
    is_empty = drawn["for"].is_blank & drawn["against"].is_blank
    blank = notes.blank_maps(is_empty, explanation.layers, f"{explanation.method} signed")
    return SideBySide(BOTH, drawn, warnings=(*warnings_beside_blank(explanation), *blank))


def explain_both(explain: Callable[..., Explanation], target: object) -> SideBySide:
    """Return ``both`` for ``explain(target)``, with ``explain(target, counterfactual=True)`` where that is needed."""
    explanation = explain(target)
    return both(explanation, None if has_both_sides(explanation) else explain(target, counterfactual=True))


def contrast(
    predicted: Explanation,
    true: Explanation,
    difference: Explanation | None = None,
    *,
    names: tuple[str, str] = ("predicted", "true"),
) -> SideBySide:
    """Return two targets of the same photos side by side, and the difference between them.

    The parts are called "predicted", "true" and "difference". The score of the difference is y_predicted − y_true, and
    its gradient at a layer is G_predicted − G_true. Its map is the method on (A, G_predicted − G_true) minus the method
    on (A, G_true − G_predicted), signed. The model is not run again.

    >>> from importlib.resources import files
    >>> import onnx_gradcam as ogc
    >>> demo = files("onnx_gradcam.models")
    >>> explainer = ogc.Explainer(demo / "shapes-resnet.onnx")
    >>> photo = demo / "images" / "arrow-and-circle.png"
    >>> two = explainer.explain_image(photo, target=ogc.Classes(["circle", "arrow"]))
    >>> sides = ogc.contrast(two[0:1], two[1:2], names=("circle", "arrow"))
    >>> sides.parts["difference"].label(0)
    'circle − arrow'

    Args:
        predicted: R rows of a method of a layer, neither counterfactual nor signed.
        true: R rows of the same images in the same order, of the same model, method and layers.
        difference: the part "net" of ``both`` for the target ``Difference``. It is needed for smoothed maps, and for
            methods that read more than A and G.
        names: what the two targets are called.

    Raises:
        MethodError: the method has no weights, or needs ``difference``; or the explanations are counterfactual or
            signed, or of different methods.
        InputError: the explanations are about different images, models or layers.
    """
    for side in (predicted, true):
        _require_plain(side)
    if predicted.method != true.method:
        raise MethodError(
            f"{predicted.method!r} cannot be contrasted with {true.method!r}", hint="the same method for both"
        )
    _check_alike(predicted, true)
    if difference is None:
        difference = _difference(predicted, true)
    _check_alike(predicted, difference)
    difference = replace(
        difference,
        method=f"{predicted.method} difference",
        score=predicted.score - true.score,
        probability=np.full_like(predicted.probability, np.nan),
        words=tuple(_against(predicted, true, row) for row in range(len(predicted))),
    )
    parts = _draw_at_one_scale({names[0]: predicted, names[1]: true, "difference": difference})
    blank = notes.blank_maps(parts["difference"].is_blank, difference.layers, f"{predicted.method} signed")
    warnings = dict.fromkeys([*warnings_beside_blank(predicted), *warnings_beside_blank(true), *blank])
    return SideBySide(CONTRAST, parts, warnings=tuple(warnings))


def has_both_sides(explanation: Explanation) -> bool:
    """Return whether the other side of an explanation can be made from its own activations and gradients."""
    method, *variants = explanation.method.split()
    return (
        not variants
        and set(NEEDS.get(method, ())) == {"activation", "gradient"}
        and all(layer.gradient is not None and layer.weights is not None for layer in explanation.layers)
    )


def _require_plain(explanation: Explanation) -> None:
    if ONE_SIDED.intersection(explanation.method.split()):
        raise MethodError(
            f"{explanation.method!r} is already one of the two sides",
            hint="explain without counterfactual and without signed",
            method=explanation.method,
        )
    if not explanation.layers or explanation.attribution is not None:
        raise MethodError(
            f"method {explanation.method!r} does not have two sides: it makes no cam of a layer",
            hint="gradcam, or another method of a layer; of most others --signed shows both sides in one map",
            method=explanation.method,
        )


def _require_parts(explanation: Explanation) -> str:
    """Return the method. Raises ``MethodError`` unless its other side can be made from activation and gradient."""
    if not has_both_sides(explanation):
        raise MethodError(
            f"the other side of {explanation.method!r} cannot be made from its activations and gradients alone",
            where="a smoothed map, a principal component, or a method that reads more than one gradient",
            hint="gradcam, or explain the other side, too: both(explanation, against), contrast(a, b, difference)",
            method=explanation.method,
        )
    return explanation.method


def _counterfactual(explanation: Explanation) -> Explanation:
    method = _require_parts(explanation)
    layers = [_layer(layer, method, layer.gradient, counterfactual=True) for layer in explanation.layers]
    return replace(explanation, method=f"{method} counterfactual", layers=tuple(layers))


def _difference(a: Explanation, b: Explanation) -> Explanation:
    method = _require_parts(a)
    layers = []
    for x, y in zip(a.layers, b.layers, strict=True):
        gradient = as_float32(x.gradient) - as_float32(y.gradient)
        layers.append(_minus(_layer(x, method, gradient), _layer(x, method, gradient, counterfactual=True)))
    return replace(a, layers=tuple(layers), signed=True, frame=_common_frame(a.frame, b.frame))


def _against(a: Explanation, b: Explanation, row: int) -> Words:
    text, title = f"{a.target(row)}-vs-{b.target(row)}", f"{a.label(row)} − {b.label(row)}"
    return Words(text, title, cautions=tuple(dict.fromkeys([*a.cautions(row), *b.cautions(row)])))


def _check_alike(a: Explanation, b: Explanation) -> None:
    same = (
        np.array_equal(a.image_index, b.image_index)
        and np.array_equal(a.view_index, b.view_index)
        and [layer.name for layer in a.layers] == [layer.name for layer in b.layers]
        and all(_is_close(x.activation, y.activation) for x, y in zip(a.layers, b.layers, strict=True))
    )
    if not same:
        raise InputError(
            "explanations can stand side by side only for the same images, at the same layers of one model",
            hint="two targets of one explanation: explanation[0:1] and explanation[1:2]",
        )


def _is_close(a: Array, b: Array) -> bool:
    """Return whether two runs on one image can have given both arrays: kernels may round differently."""
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0) <= ROUNDING * np.abs(a).max(initial=0))


def _common_frame(a: Frame, b: Frame) -> Frame:
    """Return the frame of a difference; for targets at different levels of a detector it holds all levels."""
    if a.level is None or b.level is None:
        return a
    return replace(a, level=np.where(a.level == b.level, a.level, ALL_LEVELS))


def _layer(layer: LayerResult, method: str, gradient: Array | None, *, counterfactual: bool = False) -> LayerResult:
    weights, cam = compute_cam(method, layer.activation, gradient, counterfactual=counterfactual)
    return replace(layer, gradient=gradient, weights=weights, cam=np.asarray(cam))


def _minus(a: LayerResult, b: LayerResult) -> LayerResult:
    return replace(a, weights=None, cam=a.cam - b.cam)


def _draw_at_one_scale(parts: Mapping[str, Explanation]) -> dict[str, Explanation]:
    heatmaps, scale, blank = draw_together([(part.frame, [x.cam for x in part.layers]) for part in parts.values()])
    return {
        name: replace(part, heatmap=heatmap, scale=scale, is_blank=zero, is_clipped=None, warnings=())
        for (name, part), heatmap, zero in zip(parts.items(), heatmaps, blank, strict=True)
    }
