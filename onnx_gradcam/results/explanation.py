"""The result of explaining: frozen data, one row per (image, target), image-major."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import LayerError, OutputError
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.methods.table import options_for_json
from onnx_gradcam.photos.decode import decode
from onnx_gradcam.photos.labels import label_of
from onnx_gradcam.results import files, notes
from onnx_gradcam.results.drawing import backdrop, draw_attribution
from onnx_gradcam.results.frame import Frame
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.results.picture import detail, figure, overlay
from onnx_gradcam.results.provenance import Provenance
from onnx_gradcam.results.records import Rectifiers, Words

Array = npt.NDArray[Any]
SHOWN = 5
"""How many rows ``repr`` names."""


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What a model saw, row by row: R rows, one for each (image, target), image by image.

    It is plain data: it pickles, holds no model and no session, and two of them are equal only if they are the same
    object.

    Attributes:
        method: the method, with ``counterfactual`` or ``signed`` behind it where asked for.
        recipe: the method with its variants and options.
        image_index: (R,) int64, which image of the input a row explains.
        class_index: (R,) int64, the class explained; −1 where the target is of none.
        score: (R,) float32, of a class its score before softmax or sigmoid, of other targets their value.
        probability: (R,) float32 in [0, 1], softmax or sigmoid of the scores; NaN where no class has one.
        is_blank: (R,) bool, the map is 0 everywhere.
        heatmap: (R, *size) float32 in [0, 1] ([−1, 1] if signed), at input resolution, for photos in the photo's
            pixels, 0 outside ``seen``.
        seen: (R, 4) int64, the region (x1, y1, x2, y2) of the photo that the model saw, in pixels.
        scale: (R,) float32, the value of the drawn cam, in the score's units, or of the attribution, in the method's,
            where the heatmap is 1; NaN where several layers were fused.
        layers: one result per target layer; empty for methods of the input.
        outputs: the deployed model's outputs by name.
        labels: class names by index, where known.
        frame: where the maps are drawn: the photo or the array, and how they lie to each other.
        provenance: model, versions, providers, score, preprocessing.
        cell: (R, n) int64 for segmenters, detectors and sequences: the index of the explained cell in the axes of
            the output that are neither batch nor classes; of several outputs with scores, their number goes before it.
            None for models with one score per class; −1 where a target is of no single cell.
        box: (R, 4) float32, x1, y1, x2, y2 in the heatmap's pixels, of a target that is about a box: a detector's own,
            or a part of a segmenter's map; NaN where a target is about none, None where all are.
        words: for each row the target as ``--target`` has it and as a title; "" both for a class with its label.
        signed: whether negative values in the maps are evidence against, and drawn in a colour of their own.
        warnings: what the user should know, one sentence each.
        attribution: the result (R, *input shape) float32 of methods of the input, in the input's own layout; None for
            the other methods.
        attributed: the ONNX value that ``attribution`` is of: the input, or the first floating-point value computed
            from it; "" for the other methods.
        rectifiers: how many activations guided backpropagation or deconvolution gated, and how many it left alone; None
            for other methods.
    """

    method: str
    recipe: Recipe
    image_index: Array
    class_index: Array
    score: Array
    probability: Array
    is_blank: Array
    heatmap: Array
    seen: Array
    scale: Array
    layers: tuple[LayerResult, ...]
    outputs: Mapping[str, Any]
    labels: tuple[str, ...] | None
    frame: Frame
    provenance: Provenance
    cell: Array | None = None
    box: Array | None = None
    words: tuple[Words, ...] = ()
    signed: bool = False
    warnings: tuple[str, ...] = ()
    attribution: Array | None = None
    attributed: str = ""
    rectifiers: Rectifiers | None = None

    def __repr__(self) -> str:
        rows = ", ".join(self.name(row) for row in range(min(len(self), SHOWN)))
        more = f" and {len(self) - SHOWN} more" if len(self) > SHOWN else ""
        return f"<Explanation by {self.method} of {rows}{more}>"

    def __len__(self) -> int:
        return len(self.image_index)

    def __getitem__(self, rows: int | slice | Sequence[int] | Array) -> Explanation:
        """Some of the rows, in that order; raises ``IndexError`` for one that does not exist.

        ``outputs`` and ``frame`` stay those of all images: ``image_index`` counts them as before.
        """
        which = np.atleast_1d(np.arange(len(self))[rows])
        names = ("image_index", "class_index", "score", "probability", "is_blank", "heatmap", "seen", "scale")
        optional = tuple(name for name in ("cell", "box", "attribution") if getattr(self, name) is not None)
        some = replace(
            self,
            **{name: getattr(self, name)[which] for name in (*names, *optional)},
            layers=tuple(layer.rows(which) for layer in self.layers),
            words=tuple(self._words(int(row)) for row in which),
            frame=self.frame.rows(which),
        )
        return replace(some, warnings=(*self.other_warnings, *some.about_blank))

    @property
    def about_blank(self) -> tuple[str, ...]:
        """Why some of the maps are blank, and what to do."""
        return tuple(notes.blank(self.is_blank, self.layers, self.method))

    @property
    def other_warnings(self) -> tuple[str, ...]:
        """The warnings that are not about blank maps."""
        return tuple(w for w in self.warnings if w not in self.about_blank)

    def label(self, row: int) -> str:
        """What a row explains: the label of a class, its index where labels are not known; else the target's title."""
        return self._words(row).title or label_of(int(self.class_index[row]), self.labels)

    def target(self, row: int) -> str:
        """What a row explains as ``--target`` has it: the index of a class, or a form such as ``prob:281``."""
        return self._words(row).text or str(int(self.class_index[row]))

    def _words(self, row: int) -> Words:
        return self.words[row] if self.words else Words()

    @property
    def layer(self) -> LayerResult:
        """The result of the only target layer. Raises ``LayerError`` where several were fused."""
        if len(self.layers) != 1:
            names = ", ".join(layer.name for layer in self.layers)
            raise LayerError(f"{len(self.layers)} layers were fused: {names}", hint="explanation.layers[i]")
        return self.layers[0]

    @property
    def target_layer(self) -> str:
        """The name of the only target layer."""
        return self.layer.name

    @property
    def activation(self) -> Array:
        """A of the only target layer, (R, C, *space)."""
        return self.layer.activation

    @property
    def gradient(self) -> Array | None:
        """∂score/∂A of the only target layer, (R, C, *space)."""
        return self.layer.gradient

    @property
    def weights(self) -> Array | None:
        """The weights of the only target layer."""
        return self.layer.weights

    @property
    def cam(self) -> Array:
        """The raw cam of the only target layer, (R, *space), in the score's units."""
        return self.layer.cam

    def overlay(self, image: Any = None, row: int = 0) -> Array:
        """The heatmap of ``row`` over its photo (or over ``image``: path, bytes, array), uint8 (H, W, 3) RGB.

        Raises ``OutputError`` where the map has not two spatial axes.
        """
        picture = self.picture(row, image)
        return overlay.overlay(picture, self.heatmap[row], seen=self.region(row), signed=self.signed)

    def figure(self, image: Any = None, row: int = 0) -> Array:
        """The overlay with a caption (method, target, score, layer) and a colour bar, uint8 (H, W, 3) RGB.

        Of methods with guided backpropagation or deconvolution in them: ``detail``, with a caption. Of other methods of
        the input the strongest 0.5 % of the pixels are drawn alike: beside a single peak the rest would be black.
        """
        if self.has_detail:
            return self._detailed(row)
        return figure.figure(
            self.picture(row, image),
            self.heatmap[row],
            title=self.title(row),
            seen=self.region(row),
            box=self.box_of(row),
            signed=self.signed,
            blank=_blank_note(self.method) if self.layers else NO_GRADIENT,
            brightest=1.0 if self.layers else figure.brightest(self.heatmap[row], self.region(row)),
        )

    def box_of(self, row: int) -> tuple[float, float, float, float] | None:
        """``box`` of a row, None where it is about none."""
        if self.box is None or np.isnan(self.box[row]).any():
            return None
        x1, y1, x2, y2 = (float(v) for v in self.box[row])
        return x1, y1, x2, y2

    @property
    def has_detail(self) -> bool:
        """Return whether the method shows fine detail: an attribution with gated rectifiers, of an image."""
        return self.rectifiers is not None and self.attribution is not None and len(self.frame.space) == 2

    def detail(self, row: int = 0) -> Array:
        """The attribution of ``row`` as a picture in the heatmap's pixels, uint8 (H, W, 3) RGB, grey where it is 0.

        Raises ``OutputError`` for methods whose picture is the heatmap.
        """
        if not self.has_detail or self.attribution is None:
            raise OutputError(
                f"{self.method} has no picture of its own",
                hint="explanation.overlay(); guided-backprop, deconvolution and guided-gradcam have one",
            )
        return detail.picture(draw_attribution(self.frame, self.attribution[row]), self.region(row))

    def _detailed(self, row: int) -> Array:
        shown, seen = self.detail(row), self.region(row)
        said = [str(self.rectifiers), *SANITY, *([figure.FRAMED] if figure.unseen(shown, seen) else [])]
        blank = [NO_GRADIENT] if self.is_blank[row] else []
        return figure.panels([figure.picture_panel(shown, seen=seen)], title=self.title(row), notes=[*blank, *said])

    def save(self, folder: str | os.PathLike[str], scale: str | float = "image", overwrite: bool = False) -> Path:
        """Write a PNG and an NPY for each row, and ``manifest.json`` last; returns the manifest's path.

        ``scale``: each map divided by its own maximum ("image"), by the largest of all ("shared"), or by a number in
        the score's units. Raises ``OutputError`` for a folder that cannot be written or results that exist already, and
        ``MethodError`` for a scale that is unknown or that fused maps do not have.
        """
        return files.save([self], Path(folder), scale=scale, overwrite=overwrite)

    def sheets(self) -> list[files.Sheet]:
        """Return what is written: for each row its figure and its heatmap."""
        draws = self.heatmap.ndim == 3
        return [
            files.Sheet(
                title=self.label(row),
                method=self.method.replace(" ", "-"),
                target=files.slug(self.target(row)),
                images=int(self.image_index.max(initial=0)) + 1,
                figure=partial(self.figure, row=row) if draws else None,
                maps={"": self.map_file(row)},
            )
            for row in range(len(self))
        ]

    def map_file(self, row: int) -> files.MapFile:
        """Return the map of a row as it is written, with its record for the manifest."""
        attribution = None if self.attribution is None else self.attribution[row]
        return files.MapFile(self.heatmap[row], attribution, self.method, self.record(row))

    def record(self, row: int) -> dict[str, Any]:
        """Return what the manifest says of a row, ready for JSON."""
        return {
            "image_index": int(self.image_index[row]),
            "class_index": int(self.class_index[row]),
            "target": self.target(row),
            "label": self.label(row),
            "score": float(self.score[row]),
            "probability": _number(self.probability[row]),
            "cell": self._cell(row),
            "box": self.box_of(row),
            "is_blank": bool(self.is_blank[row]),
            "scale": _number(self.scale[row]),
            "seen": [int(v) for v in self.seen[row]],
        }

    def account(self) -> dict[str, Any]:
        """Return what the manifest says of model, score, layers and method, ready for JSON."""
        of, recipe = self.provenance, self.recipe
        return {
            "versions": dict(of.versions),
            "model": {"path": of.model, "sha256": of.sha256},
            "providers": list(of.providers),
            "provider_options": {name: dict(options) for name, options in of.provider_options.items()},
            "precision": dict(of.precision),
            "score": of.score,
            "score_activation": of.score_activation,
            "labels": of.labels,
            "layers": list(of.layers),
            "layer_reasons": list(of.layer_reasons),
            "attributed": self.attributed or None,
            "method": recipe.method,
            "counterfactual": recipe.counterfactual,
            "signed": recipe.signed,
            "fusion": of.fusion,
            "smooth": list(recipe.smooth),
            "options": options_for_json(recipe),
            "check_forward": of.check_forward,
            "gradient_scale": of.gradient_scale,
            "rectifiers": None if self.rectifiers is None else asdict(self.rectifiers),
        }

    def _cell(self, row: int) -> list[int] | None:
        if self.cell is None or (self.cell[row] < 0).any():
            return None
        return [int(k) for k in self.cell[row]]

    @property
    def score_name(self) -> str:
        """Return the name of the ONNX value whose entries are the scores."""
        return self.provenance.score

    @property
    def score_activation(self) -> str:
        """Return the Softmax, LogSoftmax or Sigmoid behind the scores that was walked back over, or ""."""
        return self.provenance.score_activation

    def _repr_png_(self) -> bytes:
        return overlay.encode_png(self.figure())

    def title(self, row: int) -> list[str]:
        """The lines above the figure: method and class, score, layer."""
        layers = " + ".join(layer.name for layer in self.layers)
        probability = float(self.probability[row])
        shown = "" if np.isnan(probability) else f"  p {probability:.3f}"
        value = f"{float(self.score[row]):.3g}"
        before = f", before {self.score_activation}" if self.score_activation else ""
        if self._words(row).text:
            score = f"value {value}, made of {self.score_name}{before}"
        else:
            score = f"score {self.score_name} = {value}{before}"
        where = [f"layer {layers}" if self.layers else "", f"input {self.attributed}" if self.attributed else ""]
        return [f"{self.method}: {self.name(row)}{shown}", score, ", ".join(filter(None, where))]

    def name(self, row: int) -> str:
        """The label and the index of a class, the index alone where labels are not known; else the target's title."""
        index, label = int(self.class_index[row]), self.label(row)
        return label if label == str(index) or self._words(row).title else f"{label} ({index})"

    def region(self, row: int) -> tuple[int, int, int, int]:
        """``seen`` of a row."""
        x1, y1, x2, y2 = (int(v) for v in self.seen[row])
        return x1, y1, x2, y2

    def picture(self, row: int, image: Any = None) -> Array:
        """What the map of a row is drawn over, uint8 (H, W, 3) RGB: its photo, or ``image`` decoded.

        Raises ``OutputError`` where the map has not two spatial axes.
        """
        if self.heatmap.ndim != 3:
            raise OutputError(
                f"a map with {self.heatmap.ndim - 1} spatial axes cannot be drawn over a photo",
                hint="explanation.heatmap holds the numbers",
            )
        if image is not None:
            return decode(image)
        return backdrop(self.frame, int(self.image_index[row]))


SANITY = (
    "guided backpropagation and deconvolution show edges whatever the class:",
    "they fail sanity checks (Adebayo et al. 2018)",
)
NO_GRADIENT = "blank map: it is 0 everywhere at the input"


def _blank_note(method: str) -> str:
    variants = method.split()[1:]
    side = "for or against" if "signed" in variants else "against" if "counterfactual" in variants else "for"
    return f"blank map: nothing at this layer speaks {side} this target"


def _number(value: np.floating[Any]) -> float | None:
    return None if np.isnan(value) else float(value)
