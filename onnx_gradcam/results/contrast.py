"""Maps of the same photos beside each other, at one scale: for and against a target, one target against another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import InputError, MethodError
from onnx_gradcam.methods.cam import NEEDS, as_float32, compute_cam
from onnx_gradcam.results import files, notes
from onnx_gradcam.results.drawing import draw_together
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.frame import ALL_LEVELS, Frame
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.results.picture import figure
from onnx_gradcam.results.picture.figure import Panel
from onnx_gradcam.results.picture.overlay import Picture, encode_png
from onnx_gradcam.results.provenance import Provenance
from onnx_gradcam.results.records import Words

Array = npt.NDArray[Any]
BOTH, CONTRAST = "both", "contrast"
SIDES = frozenset({"counterfactual", "signed"})
ROUNDING = 1e-3
"""By how much of the largest two runs may differ in activations of one image."""
FAINT = 0.5
"""A difference whose largest magnitude lies below this share of the scale is shown a second time, stretched."""
NOTES = {
    BOTH: "on the right: what speaks for it minus what speaks against it",
    CONTRAST: "difference: the map of the score difference; orange speaks for the first, blue for the second",
}


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Three maps of each photo; R rows.

    Attributes:
        kind: "both" or "contrast".
        parts: by name, in order, explanations of R rows each; their heatmaps share one scale in each row, the largest
            magnitude of the three being 1, and their ``scale`` is the same.
        remark: what is to be said below the figure, "" for nothing.
        warnings: what the user should know, one sentence each.
    """

    kind: str
    parts: Mapping[str, Explanation]
    remark: str = ""
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.first)

    @property
    def first(self) -> Explanation:
        """The explanation that the others are compared with."""
        return next(iter(self.parts.values()))

    def figure(self, row: int = 0) -> Picture:
        """The maps of ``row`` in one picture with captions and colour bars, uint8 (H, W, 3) RGB.

        Raises ``OutputError`` where the maps have not two spatial axes.
        """
        photo, seen = self.first.picture(row), self.first.region(row)
        scale = "one scale" if self._units(row) is None else "one scale, in the score's units"
        shown = [self._panel(row, part, self._caption(name, row)) for name, part in self.parts.items()]
        last = list(self.parts.values())[-1]
        peak = float(np.abs(last.heatmap[row]).max())
        if 0 < peak < FAINT:
            caption = ["the same, with its own scale:", f"colours {1 / peak:.1f} times as strong"]
            shown.append(self._panel(row, last, caption, peak))
        remarks = [self.remark] if self.remark else []
        notes = [*remarks, f"{scale}; {NOTES[self.kind]}", *figure.unseen(photo, seen)]
        return figure.panels(shown, title=self._title(row), notes=notes)

    @property
    def provenance(self) -> Provenance:
        """Return how the parts came about."""
        return self.first.provenance

    def account(self) -> dict[str, Any]:
        """Return what the manifest says of model, score, layers and method, ready for JSON."""
        return self.first.account()

    def sheets(self) -> list[files.Sheet]:
        """Return what is written: for each row one figure and the heatmaps of all parts."""
        draws = self.first.heatmap.ndim == 3
        method = self.first.method.replace(" ", "-")
        return [
            files.Sheet(
                title=self._sheet_title(row),
                method=f"{method}-both" if self.kind == BOTH else method,
                target=self._sheet_target(row),
                images=int(self.first.image_index.max(initial=0)) + 1,
                figure=partial(self.figure, row=row) if draws else None,
                maps={name: part.map_file(row) for name, part in self.parts.items()},
            )
            for row in range(len(self))
        ]

    def _sheet_title(self, row: int) -> str:
        (name_a, a), (name_b, b) = list(self.parts.items())[:2]
        return a.label(row) if self.kind == BOTH else f"{name_a} {a.label(row)}, {name_b} {b.label(row)}"

    def _sheet_target(self, row: int) -> str:
        a, b = list(self.parts.values())[:2]
        first, second = (files.slug(part.target(row)) for part in (a, b))
        return first if self.kind == BOTH else f"{first}-vs-{second}"

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write a PNG for each row and an NPY for each map, and ``manifest.json`` last; returns the manifest's path.

        Raises ``OutputError`` for a folder that cannot be written or results that exist already.
        """
        return files.save([self], Path(folder), overwrite=overwrite)

    def _repr_png_(self) -> bytes:
        return encode_png(self.figure())

    def _panel(self, row: int, part: Explanation, caption: Sequence[str], peak: float = 1) -> Panel:
        units = self._units(row)
        return figure.map_panel(
            self.first.picture(row),
            part.heatmap[row] / peak,
            seen=self.first.region(row),
            signed=part.signed,
            long_side=figure.LONG_SIDE_IN_A_ROW,
            caption=caption,
            top=f"{peak if units is None else units * peak:.3g}",
        )

    def _units(self, row: int) -> float | None:
        """What 1 is in the score's units."""
        scale = self.first.scale[row]
        return None if np.isnan(scale) else float(scale)

    def _title(self, row: int) -> list[str]:
        first, *rest = self.first.title(row)
        if self.kind == BOTH:
            return [first, *rest]
        names = [f"{name} {part.name(row)}" for name, part in list(self.parts.items())[:2]]
        return [f"{self.first.method}: {', '.join(names)}", rest[-1]]

    def _caption(self, name: str, row: int) -> list[str]:
        blank = " (blank)" * bool(self.parts[name].is_blank[row])
        if self.kind == BOTH:
            return [{"for": "speaks for it", "against": "speaks against it"}.get(name, "for minus against") + blank]
        part = self.parts[name]
        probability = float(part.probability[row])
        shown = "" if np.isnan(probability) else f"  p {probability:.3f}"
        target = "" if part is self.parts.get("difference") else f": {part.name(row)}"
        return [f"{name}{target}{blank}", f"score {float(part.score[row]):.3g}{shown}"]


def both(explanation: Explanation, against: Explanation | None = None) -> SideBySide:
    """What speaks for each target and what speaks against it: parts "for", "against" and "net".

    "for" is the method on (A, G), "against" the method on (A, −G), "net" the first minus the second, signed: for
    Grad-CAM and all methods whose weights are linear in G that is the signed map. No other run is needed, but for
    smoothed maps and for methods that look at more than A and G: ``against`` is the same explanation with
    ``counterfactual=True``.

    Raises:
        MethodError: the method has no counterfactual, or needs ``against``; ``explanation`` is itself counterfactual or
            signed.
        InputError: ``against`` is of other images, targets or layers.
    """
    _require_plain(explanation)
    against = against or _counterfactual(explanation)
    _check_alike(explanation, against)
    if not np.array_equal(explanation.class_index, against.class_index):
        raise InputError("the two sides are of different targets", hint="the same target, with counterfactual=True")
    net = [_minus(a, b) for a, b in zip(explanation.layers, against.layers, strict=True)]
    parts = {
        "for": explanation,
        "against": against,
        "net": replace(explanation, method=f"{explanation.method} net", layers=tuple(net), signed=True),
    }
    found = _at_one_scale(parts)
    nothing = found["for"].is_blank & found["against"].is_blank
    blank = notes.blank(nothing, explanation.layers, f"{explanation.method} signed")
    return SideBySide(BOTH, found, warnings=(*explanation.other_warnings, *blank))


def both_of(explain: Callable[..., Explanation], target: object) -> SideBySide:
    """``both`` of ``explain(target)``, with ``explain(target, counterfactual=True)`` where that is needed."""
    explanation = explain(target)
    return both(explanation, None if takes_apart(explanation) else explain(target, counterfactual=True))


def contrast(
    predicted: Explanation,
    true: Explanation,
    difference: Explanation | None = None,
    *,
    names: tuple[str, str] = ("predicted", "true"),
) -> SideBySide:
    """Two targets of the same photos and what tells them apart: parts "predicted", "true" and "difference".

    The score is y_predicted − y_true, and its gradient at a layer the difference of the two: the difference is the
    method on (A, G_predicted − G_true) minus the method on (A, G_true − G_predicted), signed. No other run is needed,
    but for smoothed maps and for methods that look at more than A and G: ``difference`` is the part "net" of ``both``
    of the target ``Difference``.

    ``predicted``, ``true``: R rows each, of the same images in the same order: of one model, method and layers; rows of
    one explanation with several targets do (``explanation[0:1]``, ``explanation[1:2]``). ``names``: what to call them.

    Raises:
        MethodError: the method has no weights or needs ``difference``; the explanations are counterfactual or signed,
            or of different methods.
        InputError: they are of different images, models or layers.
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
    found = _at_one_scale({names[0]: predicted, names[1]: true, "difference": difference})
    blank = notes.blank(found["difference"].is_blank, difference.layers, f"{predicted.method} signed")
    said = dict.fromkeys([*predicted.other_warnings, *true.other_warnings, *blank])
    return SideBySide(CONTRAST, found, warnings=tuple(said))


def takes_apart(explanation: Explanation) -> bool:
    """Whether the other side of an explanation is made of its own activations and gradients."""
    method, *variants = explanation.method.split()
    return (
        not variants
        and set(NEEDS.get(method, ())) == {"activation", "gradient"}
        and all(layer.gradient is not None and layer.weights is not None for layer in explanation.layers)
    )


def _require_plain(explanation: Explanation) -> None:
    if SIDES.intersection(explanation.method.split()):
        raise MethodError(
            f"{explanation.method!r} is one side already",
            hint="explain without counterfactual and signed",
            method=explanation.method,
        )
    if not explanation.layers or explanation.attribution is not None:
        raise MethodError(
            f"method {explanation.method!r} has no two sides: it makes no cam of a layer",
            hint="gradcam, or another method of a layer",
            method=explanation.method,
        )


def _require_parts(explanation: Explanation) -> str:
    """The method, of which the other side is made of activation and gradient."""
    if not takes_apart(explanation):
        raise MethodError(
            f"the other side of {explanation.method!r} is not made of its activations and gradients alone",
            where="smoothed maps, methods with more than a gradient, principal components",
            hint="gradcam, or what the counterfactual gives: both(explanation, against), contrast(a, b, difference)",
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
    return replace(a, layers=tuple(layers), signed=True, frame=_drawn_where_either_is(a.frame, b.frame))


def _against(a: Explanation, b: Explanation, row: int) -> Words:
    return Words(f"{a.target(row)}-vs-{b.target(row)}", f"{a.label(row)} − {b.label(row)}")


def _check_alike(a: Explanation, b: Explanation) -> None:
    same = (
        np.array_equal(a.image_index, b.image_index)
        and [layer.name for layer in a.layers] == [layer.name for layer in b.layers]
        and all(_same(x.activation, y.activation) for x, y in zip(a.layers, b.layers, strict=True))
    )
    if not same:
        raise InputError(
            "only explanations of the same images at the same layers of one model can stand side by side",
            hint="two targets of one explanation: explanation[0:1] and explanation[1:2]",
        )


def _same(a: Array, b: Array) -> bool:
    """Whether two runs on one image gave these: kernels may round differently."""
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0) <= ROUNDING * np.abs(a).max(initial=0))


def _drawn_where_either_is(a: Frame, b: Frame) -> Frame:
    """Return the frame of a difference: of targets at different levels of a detector, both levels hold a part."""
    if a.level is None or b.level is None:
        return a
    return replace(a, level=np.where(a.level == b.level, a.level, ALL_LEVELS))


def _layer(layer: LayerResult, method: str, gradient: Array | None, *, counterfactual: bool = False) -> LayerResult:
    weights, cam = compute_cam(method, layer.activation, gradient, counterfactual=counterfactual)
    return replace(layer, gradient=gradient, weights=weights, cam=np.asarray(cam))


def _minus(a: LayerResult, b: LayerResult) -> LayerResult:
    return replace(a, weights=None, cam=a.cam - b.cam)


def _at_one_scale(parts: Mapping[str, Explanation]) -> dict[str, Explanation]:
    heatmaps, scale, blank = draw_together([(part.frame, [x.cam for x in part.layers]) for part in parts.values()])
    return {
        name: replace(part, heatmap=heatmap, scale=scale, is_blank=zero, warnings=())
        for (name, part), heatmap, zero in zip(parts.items(), heatmaps, blank, strict=True)
    }
