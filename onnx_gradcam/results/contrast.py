"""Maps of the same photos side by side, at one scale: for and against a target, or one target against another."""

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
from onnx_gradcam.results import files, notes, portrait, titles
from onnx_gradcam.results.drawing import draw_together
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.frame import ALL_LEVELS, Frame
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.results.picture import figure
from onnx_gradcam.results.picture.figure import Panel
from onnx_gradcam.results.picture.overlay import Picture, encode_png
from onnx_gradcam.results.picture.style import PLAIN, Style
from onnx_gradcam.results.provenance import Provenance
from onnx_gradcam.results.records import Words
from onnx_gradcam.results.scales import join_peaks

Array = npt.NDArray[Any]
BOTH, CONTRAST = "both", "contrast"
ONE_SIDED = frozenset({"counterfactual", "signed"})
ROUNDING = 1e-3
"""Share of the largest activation by which two runs on one image may differ."""
WEAK = 0.5
"""A difference whose largest magnitude lies below this share of the scale is drawn again, with its own scale."""
REMARKS = {
    BOTH: "on the right: what speaks for it minus what speaks against it",
    CONTRAST: "difference: the map of the score difference; orange speaks for the first, blue for the second",
}


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Three maps of each photo, drawn at one scale; R rows, one for each (image, target).

    Attributes:
        kind: "both" or "contrast".
        parts: three explanations of R rows each, by name, in order. In each row their heatmaps share one scale: the
            largest magnitude of the three is 1. Their ``scale`` is the same.
        remark: a line below the figure, "" for none.
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
        """Return the first explanation, which the others are compared with."""
        return next(iter(self.parts.values()))

    def figure(self, row: int = 0, style: Style = PLAIN) -> Picture:
        """Return the maps of a row in one picture, with captions and colour bars.

        Args:
            row: which row.
            style: how photo and maps are drawn, and whether there are captions. The photo is grey by default: one of
                the maps is signed.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            OutputError: the maps do not have two spatial axes.
        """
        style = replace(style, photo=style.photo_under(signed=True))
        photo, seen = self.first.picture(row), self.first.region(row)
        size = figure.panel_size(photo, figure.LONG_SIDE_IN_A_ROW)
        levels = portrait.levels_of(list(self.parts.values()), row, size)
        panels = [
            self._panel(row, part, level, self._caption(name, row), style)
            for (name, part), level in zip(self.parts.items(), levels, strict=True)
        ]
        last, level = list(self.parts.values())[-1], levels[-1]
        peak = float(np.abs(last.heatmap[row]).max())
        if 0 < peak < WEAK:
            caption = ["the same, with its own scale:", f"colours {1 / peak:.1f} times as strong"]
            panels.append(self._panel(row, last, np.clip(level / peak, -1, 1), caption, style, peak))
        if not style.caption:
            return figure.bare(panels, ())
        notes = [f"one scale; {REMARKS[self.kind]}", *portrait.cells_note(self.first), *figure.unseen_note(photo, seen)]
        notes = [self.remark, *notes] if self.remark else notes
        return figure.panels(panels, figure.Lines(self._title(row), notes))

    def cautions(self, row: int) -> tuple[str, ...]:
        """Return the lines that must stand in the picture of a row, since they change how its maps are read."""
        return tuple(dict.fromkeys(line for part in self.parts.values() for line in part.cautions(row)))

    @property
    def provenance(self) -> Provenance:
        """Return the record of the model and the run that the parts come from."""
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
                figure=partial(self.figure, row) if draws else None,
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

    def save(
        self,
        folder: str | os.PathLike[str],
        overwrite: bool = False,
        scale: str | float = "image",
        style: Style = PLAIN,
    ) -> Path:
        """Write a PNG for each row and an NPY for each map, and ``manifest.json`` last.

        Args:
            folder: where to write; it is made where it does not exist.
            overwrite: whether existing results are replaced.
            scale: what the maps are divided by: the largest maximum of each row ("image") or of all rows ("shared"), or
                a number in the score's units.
            style: how photo and maps are drawn, and whether there are captions.

        Returns:
            The path of the manifest.

        Raises:
            OutputError: the folder cannot be written, or holds results already.
            MethodError: the scale is unknown, or the maps have no scale in the score's units.
        """
        return files.save([self], Path(folder), scale=scale, overwrite=overwrite, style=style)

    def at_scale(self, scale: float | Mapping[str, float]) -> SideBySide:
        """Return the same maps with another scale, as ``Explanation.at_scale``."""
        return replace(self, parts={k: part.at_scale(scale) for k, part in self.parts.items()})

    def peaks(self) -> Mapping[str, float]:
        """Return for each unit of the maps their largest scale, as ``Explanation.peaks``."""
        return join_peaks(part.peaks() for part in self.parts.values())

    def _repr_png_(self) -> bytes:
        return encode_png(self.figure())

    def _panel(
        self, row: int, part: Explanation, level: Array, caption: Sequence[str], style: Style, peak: float = 1
    ) -> Panel:
        return figure.map_panel(
            self.first.picture(row),
            level,
            seen=self.first.region(row),
            signed=part.signed,
            long_side=figure.LONG_SIDE_IN_A_ROW,
            caption=caption,
            scale=portrait.scale_of(self.first, row, peak),
            style=style,
        )

    def _title(self, row: int) -> list[str]:
        names = [f"{name} {part.name(row)}" for name, part in list(self.parts.items())[:2]]
        first, how, *where = titles.title(self.first, row)
        return [first, how, *where] if self.kind == BOTH else [", ".join(names), self.first.method, *where]

    def _caption(self, name: str, row: int) -> list[str]:
        blank = " (blank)" * bool(self.parts[name].is_blank[row])
        if self.kind == BOTH:
            return [{"for": "speaks for it", "against": "speaks against it"}.get(name, "for minus against") + blank]
        part = self.parts[name]
        probability = float(part.probability[row])
        suffix = "" if np.isnan(probability) else f"  p {probability:.3f}"
        target = "" if part is self.parts.get("difference") else f": {part.name(row)}"
        return [f"{name}{target}{blank}", f"score {float(part.score[row]):.3g}{suffix}"]


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
    return SideBySide(BOTH, drawn, warnings=(*explanation.other_warnings, *blank))


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
    warnings = dict.fromkeys([*predicted.other_warnings, *true.other_warnings, *blank])
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
            hint="gradcam, or another method of a layer",
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
        name: replace(part, heatmap=heatmap, scale=scale, is_blank=zero, warnings=())
        for (name, part), heatmap, zero in zip(parts.items(), heatmaps, blank, strict=True)
    }
