"""The result of explaining: frozen data, one row per (image, target), image-major."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam import figure, files, overlay
from onnx_gradcam.errors import LayerError, OutputError
from onnx_gradcam.image import decode
from onnx_gradcam.targets import label_of

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LayerResult:
    """One target layer: ``activation`` and ``gradient`` (R, C, *space), ``weights`` (R, C, 1…) or (R, C, *space),
    ``cam`` (R, *space) float32 in the score's units. ``gradient`` and ``weights`` are None for methods without them.
    """

    name: str
    activation: Array
    gradient: Array | None
    weights: Array | None
    cam: Array


@dataclass(frozen=True)
class Explanation:
    """What a model saw, row by row; R rows, one per (image, target).

    Attributes:
        method: the CAM method, with ``counterfactual`` or ``signed`` behind it where asked for.
        image_index: (R,) int64, which image of the input a row explains.
        class_index: (R,) int64, the class explained.
        score: (R,) float32, its score before softmax or sigmoid.
        probability: (R,) float32 in [0, 1], softmax or sigmoid of the scores; NaN for a regression.
        is_blank: (R,) bool, nothing in the map is positive.
        heatmap: (R, *size) float32 in [0, 1] ([−1, 1] if signed), at input resolution, for photos in the photo's
            pixels, 0 outside ``seen``.
        seen: (R, 4) int64, the region (x1, y1, x2, y2) of the photo that the model saw, in pixels.
        layers: one result per target layer.
        score_name: the ONNX value whose entries are the scores.
        score_activation: the Softmax, LogSoftmax or Sigmoid behind it that was walked back over, or "".
        outputs: the deployed model's outputs by name.
        labels: class names by index, where known.
        cell: (R, n) int64 for segmenters, detectors and sequences: the index of the explained cell in the axes of
            the output that are neither batch nor classes; of several outputs with scores, their number goes before it.
            None for models with one score per class.
        signed: whether negative values in the maps are evidence against, and drawn in a colour of their own.
        pictures: what the maps are drawn over, one for each image, made when asked for: the photo as decoded, or the
            array's values stretched to 0..255; uint8 (H, W, 3).
        warnings: what the user should know, one sentence each.
        attribution: input-space methods' result (R, *input shape), None for CAM methods.
        provenance: model, versions, providers, preprocessing: what the manifest records.
    """

    method: str
    image_index: Array
    class_index: Array
    score: Array
    probability: Array
    is_blank: Array
    heatmap: Array
    seen: Array
    layers: tuple[LayerResult, ...]
    score_name: str
    score_activation: str
    outputs: Mapping[str, Any]
    labels: tuple[str, ...] | None
    cell: Array | None = None
    signed: bool = False
    pictures: tuple[Callable[[], Array], ...] = ()
    warnings: tuple[str, ...] = ()
    attribution: Array | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.image_index)

    def label(self, row: int) -> str:
        """The label of the class that a row explains, its index where labels are not known."""
        return label_of(int(self.class_index[row]), self.labels)

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
        picture = self._picture(image, row)
        return overlay.overlay(picture, self.heatmap[row], seen=self._seen(row), signed=self.signed)

    def figure(self, image: Any = None, row: int = 0) -> Array:
        """The overlay with a caption (method, target, score, layer) and a colour bar, uint8 (H, W, 3) RGB."""
        picture = self._picture(image, row)
        return figure.figure(
            picture, self.heatmap[row], title=self._title(row), seen=self._seen(row), signed=self.signed
        )

    def save(self, folder: str | os.PathLike[str], scale: str | float = "image", overwrite: bool = False) -> Path:
        """Write a PNG and an NPY for each row, and ``manifest.json`` last; returns the manifest's path.

        ``scale``: each map divided by its own maximum ("image"), by the largest of all ("shared"), or by a number in
        the score's units. Raises ``OutputError`` for a folder that cannot be written or results that exist already.
        """
        return files.save([self], Path(folder), scale=scale, overwrite=overwrite)

    def _repr_png_(self) -> bytes:
        return overlay.encode_png(self.figure())

    def _title(self, row: int) -> list[str]:
        layers = " + ".join(layer.name for layer in self.layers)
        probability = float(self.probability[row])
        shown = "" if np.isnan(probability) else f"  p {probability:.3f}"
        index = int(self.class_index[row])
        label = self.label(row)
        name = label if label == str(index) else f"{label} ({index})"
        before = f", before {self.score_activation}" if self.score_activation else ""
        score = f"score {self.score_name} = {float(self.score[row]):.3g}{before}"
        return [f"{self.method}: {name}{shown}", score, f"layer {layers}"]

    def _seen(self, row: int) -> tuple[int, int, int, int]:
        x1, y1, x2, y2 = (int(v) for v in self.seen[row])
        return x1, y1, x2, y2

    def _picture(self, image: Any, row: int) -> Array:
        if self.heatmap.ndim != 3:
            raise OutputError(
                f"a map with {self.heatmap.ndim - 1} spatial axes cannot be drawn over a photo",
                hint="explanation.heatmap holds the numbers",
            )
        if image is not None:
            return decode(image)
        return self.pictures[int(self.image_index[row])]()
