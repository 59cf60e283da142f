"""The result of explaining, as frozen data: one row per (image, target), image by image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import LayerError, OutputError
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.photos.decode import decode
from onnx_gradcam.photos.labels import label_of
from onnx_gradcam.results import account, cautions, figures, files, portrait, scales, selection, store, titles
from onnx_gradcam.results.drawing import backdrop
from onnx_gradcam.results.frame import Frame
from onnx_gradcam.results.layer import LayerResult
from onnx_gradcam.results.picture.overlay import encode_png
from onnx_gradcam.results.picture.style import PLAIN, Style
from onnx_gradcam.results.provenance import Provenance
from onnx_gradcam.results.records import Completeness, Rectifiers, Words

Array = npt.NDArray[Any]
REPR_ROWS = 5  # the rows that ``repr`` names


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """The maps of a model for R rows, one for each (image, target), with everything that they were made from.

    It is plain data: it can be pickled, and holds no model and no session. Two explanations are equal only if they are
    the same object.

    >>> from importlib.resources import files
    >>> import onnx_gradcam as ogc
    >>> demo = files("onnx_gradcam.models")
    >>> explainer = ogc.Explainer(demo / "shapes-resnet.onnx")
    >>> explanation = explainer.explain_image(demo / "images" / "arrow-and-circle.png", target=ogc.TopK(2))
    >>> [explanation.label(row) for row in range(len(explanation))]
    ['circle', 'arrow']
    >>> explanation.heatmap.shape, explanation.score.shape  # one map and one score for each row
    ((2, 480, 360), (2,))
    >>> explanation[1].label(0)  # some of the rows
    'arrow'

    Attributes:
        method: the method, followed by its variants ("gradcam counterfactual").
        recipe: the method with its variants and options.
        image_index: (R,) int64, which image of the input a row explains.
        view_index: (R,) int64, which of its views or frames, where a model looks at several; else 0.
        class_index: (R,) int64, the explained class; −1 where the target is no class.
        score: (R,) float32, the score of a class before softmax or sigmoid, or the value of another target.
        probability: (R,) float32 in [0, 1], softmax or sigmoid of the scores; NaN where there is none.
        is_blank: (R,) bool, whether the map is 0 everywhere.
        heatmap: (R, *size) float32 in [0, 1], or [−1, 1] if signed: at the resolution of the input, or for a photo in
            the photo's pixels, 0 outside ``seen``.
        seen: (R, 4) int64, the region (x1, y1, x2, y2) of the photo that the model saw, in pixels.
        scale: (R,) float32, what 1 in the heatmap stands for: a value of the cam in the score's units, or of the
            attribution in the method's units; NaN where several layers were fused.
        layers: one result per target layer; empty for methods of the input.
        outputs: the deployed model's outputs by name.
        labels: class names by index, where known.
        frame: where the maps are drawn: the photo or the array, and how they lie to each other.
        provenance: model, versions, providers, score, preprocessing.
        cell: (R, n) int64 for segmenters, detectors and sequences: the index of the explained cell in the axes of
            the output that are neither batch nor classes; where several outputs have scores, the number of the output
            stands before it. None for models with one score per class; −1 where the target is no single cell.
        box: (R, 4) float32, x1, y1, x2, y2 in the heatmap's pixels, for targets with a box: a detector's own box, or
            the requested part of a segmenter's map; NaN for a target without a box, None where no target has one.
        words: for each row its target, what its probability is made of, and the cautions for its picture, in words.
        signed: whether the maps have negative values, which are evidence against the target.
        is_clipped: (R,) bool, whether a map has values above its scale, which are 1 in the heatmap; None: no map has.
        warnings: what the user should know, one sentence each.
        attribution: (R, *input shape) float32, the result of methods of the input, in the layout of the input; None for
            other methods.
        attributed: the ONNX value that ``attribution`` is of: the input, or the first float value made of it; else "".
        rectifiers: how many activations guided backpropagation or deconvolution gated, and how many it left alone; None
            for other methods.
        completeness: how far integrated gradients add up to the score's difference from the baseline; None for other
            methods and for dense scores.
    """

    method: str
    recipe: Recipe
    image_index: Array
    view_index: Array
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
    is_clipped: Array | None = None
    warnings: tuple[str, ...] = ()
    attribution: Array | None = None
    attributed: str = ""
    rectifiers: Rectifiers | None = None
    completeness: Completeness | None = None

    def __repr__(self) -> str:
        rows = ", ".join(self.name(row) for row in range(min(len(self), REPR_ROWS)))
        more = f" and {len(self) - REPR_ROWS} more" if len(self) > REPR_ROWS else ""
        return " ".join(f"<Explanation by {self.method} of {rows}{more}>".split())

    def __len__(self) -> int:
        return len(self.image_index)

    def __getitem__(self, rows: int | slice | Sequence[int] | Array) -> Explanation:
        """Return some of the rows, in the order of ``rows``.

        ``outputs`` and ``frame`` stay those of all images, and ``image_index`` still counts these.

        Raises ``IndexError`` for a row that does not exist.
        """
        return selection.some_rows(self, rows)

    def label(self, row: int) -> str:
        """Return what a row explains: the label of a class, its index without labels, or the title of a target."""
        return self._words(row).title or label_of(int(self.class_index[row]), self.labels)

    def target(self, row: int) -> str:
        """Return what a row explains as text for ``--target``: the index of a class, or a form such as ``prob:281``."""
        return self._words(row).text or str(int(self.class_index[row]))

    def made_of(self, row: int) -> str:
        """Return what the probability of a row is a product of: "objectness 0.91 × class 0.88"; "" for no product."""
        return self._words(row).probability

    def question(self, row: int) -> str:
        """Return the question that a row answers; "" where none was asked in words."""
        return self._words(row).question

    def cautions(self, row: int) -> tuple[str, ...]:
        """Return the lines that must stand in the picture of a row, since they change how its map is read."""
        clipped = cautions.clipped(self.is_clipped is not None and bool(self.is_clipped[row]), float(self.scale[row]))
        return (*self._words(row).lines, *clipped, *cautions.coarse_map(self.layers, self.attribution is None))

    def _words(self, row: int) -> Words:
        return self.words[row] if self.words else Words()

    @property
    def layer(self) -> LayerResult:
        """Return the result at the only target layer. Raises ``LayerError`` where several layers were fused."""
        if len(self.layers) != 1:
            names = ", ".join(layer.name for layer in self.layers)
            raise LayerError(f"{len(self.layers)} layers were fused: {names}", hint="explanation.layers[i]")
        return self.layers[0]

    @property
    def target_layer(self) -> str:
        """Return the name of the only target layer."""
        return self.layer.name

    @property
    def activation(self) -> Array:
        """Return the activation A of the only target layer, (R, C, *space)."""
        return self.layer.activation

    @property
    def gradient(self) -> Array | None:
        """Return ∂score/∂A at the only target layer, (R, C, *space); None for methods without gradients."""
        return self.layer.gradient

    @property
    def weights(self) -> Array | None:
        """Return the weights of the only target layer, (R, C, 1…) or (R, C, *space); None where there are none."""
        return self.layer.weights

    @property
    def cam(self) -> Array:
        """Return the cam of the only target layer before scaling, (R, *space) float32, in the score's units."""
        return self.layer.cam

    def overlay(self, image: Any = None, row: int = 0, style: Style = PLAIN) -> Array:
        """Return the map of a row drawn over its photo.

        The map of a layer is drawn with a smooth kernel, ``heatmap`` holds the numbers.

        Args:
            image: another picture to draw on: a path, bytes, a PIL image or a uint8 array; None: the photo itself.
            row: which row.
            style: how photo and map are drawn.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            OutputError: the map does not have two spatial axes.
            InputError: ``image`` cannot be decoded, or does not have the size of the heatmap.
        """
        return portrait.draw_overlay(self, image, row, style)

    def figure(self, image: Any = None, row: int = 0, style: Style = PLAIN) -> Array:
        """Return the overlay of a row with a caption (target, method, score, layer) and a colour bar.

        For methods with guided backpropagation or deconvolution the picture is ``detail``. For other gradients of the
        input the strongest 0.5 % of the pixels get the same colour: beside a single peak the rest would be black.

        Args:
            image: another picture to draw on: a path, bytes, a PIL image or a uint8 array; None: the photo itself.
            row: which row.
            style: how photo and map are drawn, and whether there is a caption.

        Returns:
            (height, width, 3) uint8 RGB.

        Maps with one axis are drawn behind the curve of their signal, or behind the words of their text; of maps with
        three axes there are three slices through the maximum.

        Raises:
            OutputError: the map has more axes than three, or another number than two where ``image`` is given.
            InputError: ``image`` cannot be decoded, or does not have the size of the heatmap.
        """
        return figures.draw(self, image, row, style)

    def box_of(self, row: int) -> tuple[float, float, float, float] | None:
        """Return (x1, y1, x2, y2), the box of a row, or None where its target has no box."""
        if self.box is None or np.isnan(self.box[row]).any():
            return None
        x1, y1, x2, y2 = (float(v) for v in self.box[row])
        return x1, y1, x2, y2

    @property
    def has_detail(self) -> bool:
        """Return whether the method shows fine detail: its attribution is of an image, with gated rectifiers."""
        is_image = len(self.frame.space) == 2 and self.frame.views == 1
        return self.rectifiers is not None and self.attribution is not None and is_image

    def detail(self, row: int = 0) -> Array:
        """Return the attribution of a row as a picture of fine detail, grey where it is 0.

        Returns:
            (H, W, 3) uint8 RGB, in the heatmap's pixels.

        Raises:
            OutputError: the picture of this method is its heatmap.
        """
        return portrait.draw_detail(self, row)

    def save(
        self,
        folder: str | os.PathLike[str],
        scale: str | float = "image",
        overwrite: bool = False,
        style: Style = PLAIN,
    ) -> Path:
        """Write a PNG and an NPY for each row, and ``manifest.json`` last.

        Args:
            folder: where to write; it is made where it does not exist.
            scale: what each map is divided by: its own maximum ("image"), the largest maximum of all maps ("shared"),
                or a number in the score's units.
            overwrite: whether existing results are replaced.
            style: how photo and map are drawn, and whether there is a caption.

        Returns:
            The path of the manifest.

        Raises:
            OutputError: the folder cannot be written, or holds results already.
            MethodError: the scale is unknown, or the maps have no scale in the score's units.
        """
        return store.save([self], Path(folder), scale=scale, overwrite=overwrite, style=style)

    def at_scale(self, scale: float | Mapping[str, float]) -> Explanation:
        """Return the same maps with another scale: heatmap · scale stays the cam, but larger values are clipped.

        Args:
            scale: the value that becomes 1 in the heatmaps, in the score's units; or one for each unit (``peaks``).

        Raises:
            MethodError: the scale is not positive, or several layers were fused.
        """
        return scales.at_scale(self, scale)

    def peaks(self) -> Mapping[str, float]:
        """Return for each unit of the maps ("logit") their largest scale. Raises ``MethodError`` for fused layers."""
        return scales.peaks(self)

    def sheets(self) -> list[files.Sheet]:
        """Return what is written: for each row its figure and its heatmap."""
        draws = figures.is_drawn(self)
        return [
            files.Sheet(
                title=f"{self.question(row)} {self.label(row)}{self._view(row)}".lstrip(),
                method=self.method.replace(" ", "-"),
                target=files.slug(self.target(row)),
                images=int(self.image_index.max(initial=0)) + 1,
                views=self.frame.views,
                figure=partial(self.figure, None, row) if draws else None,
                maps={"": self.map_file(row)},
            )
            for row in range(len(self))
        ]

    def map_file(self, row: int) -> files.MapFile:
        """Return the map of a row as it is written, with its record for the manifest."""
        attribution = None if self.attribution is None else self.attribution[row]
        return files.MapFile(self.heatmap[row], attribution, self.method, self.record(row), self.frame.volume)

    def record(self, row: int) -> dict[str, Any]:
        """Return what the manifest says of a row, ready for JSON."""
        return account.row_record(self, row)

    def account(self) -> dict[str, Any]:
        """Return what the manifest says of model, score, layers and method, ready for JSON."""
        return account.account(self)

    def as_dict(self) -> dict[str, Any]:
        """Return all but the arrays, ready for JSON: the account of the run, one record for each row, the warnings."""
        rows = [self.record(row) for row in range(len(self))]
        return {**self.account(), "rows": rows, "warnings": list(self.warnings)}

    @property
    def score_name(self) -> str:
        """Return the name of the ONNX value whose entries are the scores."""
        return self.provenance.score

    @property
    def score_activation(self) -> str:
        """Return the Softmax, LogSoftmax or Sigmoid behind the scores that was walked back over, or ""."""
        return self.provenance.score_activation

    def to_png(self, row: int = 0, style: Style = PLAIN) -> bytes:
        """Return the figure of a row as a PNG file. Raises ``OutputError`` as ``figure`` does."""
        return encode_png(self.figure(None, row, style))

    def _repr_html_(self) -> str:
        return account.explanation_page(self)

    def unit(self, row: int) -> str:
        """Return what the score of a row is: "logit" before a softmax, "probability", "cosine" …, else "score"."""
        return titles.unit_of_score(self.target(row), self.score_activation)

    def title(self, row: int) -> list[str]:
        """Return the lines above the figure: target and probability, method and score, where they were taken."""
        return titles.title(self, row)

    def name(self, row: int) -> str:
        """Return what a row explains: label and index of a class, or its index, or the title of a target."""
        index, label = int(self.class_index[row]), self.label(row)
        name = label if label == str(index) or self._words(row).title else f"{label} ({index})"
        return name + self._view(row)

    def _view(self, row: int) -> str:
        return "" if self.frame.views == 1 else f", view {self.view_index[row]}"

    def region(self, row: int) -> tuple[int, int, int, int]:
        """Return (x1, y1, x2, y2), the region that the model saw, for a row."""
        x1, y1, x2, y2 = (int(v) for v in self.seen[row])
        return x1, y1, x2, y2

    def picture(self, row: int, image: Any = None) -> Array:
        """Return the picture that the map of a row is drawn over: its photo, or ``image`` decoded.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            OutputError: the map does not have two spatial axes.
            InputError: ``image`` cannot be decoded.
        """
        if self.heatmap.ndim != 3:
            raise OutputError(
                f"a map with {self.heatmap.ndim - 1} spatial axes cannot be drawn over a photo",
                hint="explanation.heatmap holds the numbers",
            )
        if image is not None:
            return decode(image)
        return backdrop(self.frame, int(self.image_index[row]), int(self.view_index[row]))
