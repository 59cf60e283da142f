"""Explain a photo that is larger than the input, tile by tile: one map of its size, at one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import MethodError, OnnxGradcamError, TargetError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.photo import decode_through, in_8_bits
from onnx_gradcam.methods.recipe import Recipe
from onnx_gradcam.methods.table import canonical, require_target
from onnx_gradcam.photos.decode import MAX_PIXELS
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.photos.preprocess.choice import Choice, PreprocessLike
from onnx_gradcam.photos.tiles import Canvas, Tiles, Tiling
from onnx_gradcam.photos.window import WHITE
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.frame import Frame
from onnx_gradcam.targets import Target

Array = npt.NDArray[Any]
WHOLE = (WHITE / 2, WHITE)
"""The window of pixels that went through one already: it changes nothing."""


def explain_tiles(
    explainer: Explainer,
    image: Any,
    target: Target = None,
    method: str = "auto",
    *,
    tile: int | tuple[int, int] | Tiling,
    preprocess: PreprocessLike | Choice = "auto",
    inputs: Mapping[str, Any] | None = None,
    max_pixels: int = MAX_PIXELS,
    **keywords: Any,
) -> Explanation:
    """Explain a photo tile by tile. The heatmap has the size of the photo, and one scale for all tiles.

    A tile is explained like a photo of its own: its map is added with all others in the units of the score, and in the
    overlap of two tiles one fades into the other. The score of a row is that of the tile where it is highest;
    ``frame.tiles`` holds those of all tiles.

    Args:
        explainer: the model.
        image: what ``explain_image`` takes.
        target: as in ``explain_image``, the same for all tiles: a class, as a rule.
        method: as in ``explain_image``.
        tile: the side of a tile in pixels of the photo, or (side, overlap); the overlap is a quarter else.
        preprocess: as in ``explain_image``, for each tile; no function.
        inputs: arrays for the model's other inputs, by name.
        max_pixels: the largest photo that is decoded.
        **keywords: the other keywords of ``explain_image``.

    Returns:
        R rows, one for each target. ``layers`` is empty: there is no activation of the whole photo.

    Raises:
        InputError: the photo cannot be decoded, or the tiles have an impossible size.
        TargetError: tiles would be explained for different targets, or for a place.
        MethodError: the maps have no scale in the score's units, or are of concepts, which each tile has of its own.
        OnnxGradcamError: what ``explain_image`` raises; ``where`` names the tile.
    """
    require_target(Recipe(canonical(method)))
    tiling = _tiling(tile)
    choice = preprocess if isinstance(preprocess, Choice) else explainer.preprocessing(preprocess)
    window = choice.preprocess.window
    pixels = decode_through(image, window, max_pixels)
    photo = in_8_bits(pixels)
    through = replace(choice, preprocess=replace(choice.preprocess, window=window and WHOLE))
    boxes = tiling.boxes(*photo.shape[:2])
    pieces = [pixels[y1:y2, x1:x2] for x1, y1, x2, y2 in boxes]
    how = {"preprocess": through, "inputs": inputs, "max_pixels": max_pixels, **keywords}
    canvas, seen = Canvas(tiling, *photo.shape[:2]), _Seen()
    for number, (box, result) in enumerate(
        zip(boxes, explainer.explain_each(pieces, target, method, **how), strict=True)
    ):
        if isinstance(result, OnnxGradcamError):
            result.where = "; ".join(filter(None, [f"tile {number}, {_words(box)}", result.where]))
            raise result
        seen.add(result, box)
        canvas.add(box, result.heatmap * result.scale[:, None, None])
    joined = seen.explanation(canvas.joined(), photo, Tiles(tiling, boxes, *seen.scores()))
    return replace(joined, provenance=replace(joined.provenance, preprocess=choice))


def _tiling(tile: int | tuple[int, int] | Tiling) -> Tiling:
    if isinstance(tile, Tiling):
        return tile
    return Tiling.read(str(tile)) if isinstance(tile, int) else Tiling(*tile)


def _words(box: Array) -> str:
    return f"x {box[0]} to {box[2]}, y {box[1]} to {box[3]}"


@dataclass
class _Seen:
    """What is kept of the tiles: of each its scores, and of each row the tile where its score is highest."""

    best: list[Explanation] = field(default_factory=list)
    score: list[Array] = field(default_factory=list)
    probability: list[Array] = field(default_factory=list)
    outputs: list[Mapping[str, Any]] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)

    def add(self, result: Explanation, box: Array) -> None:
        """Take a tile. Raises what ``explain_tiles`` raises of targets and scales."""
        _check(result, self.best, box)
        light = replace(
            result, heatmap=result.heatmap[:, :1, :1], layers=(), attribution=None, frame=Frame(()), outputs={}
        )
        for row in range(len(result)):
            if not self.score:
                self.best.append(light[row])
            elif result.score[row] > self.best[row].score[0]:
                self.best[row] = light[row]
        self.score.append(result.score)
        self.probability.append(result.probability)
        self.outputs.append(result.outputs)
        self.warnings.update(dict.fromkeys(result.warnings))

    def scores(self) -> tuple[Array, Array]:
        """Return scores and probabilities, both (T, R) float32."""
        return np.array(self.score, np.float32), np.array(self.probability, np.float32)

    def explanation(self, maps: Array, photo: Array, tiles: Tiles) -> Explanation:
        """Return the explanation of the whole photo, with its joined maps in the units of the score."""
        peak = np.abs(maps).max(axis=(1, 2))
        scale = np.where(peak == 0, 1, peak).astype(np.float32)
        size = (photo.shape[0], photo.shape[1])
        first, count = self.best[0], len(self.best)
        geometry = Geometry(size, size, (1.0, 1.0), (0.0, 0.0))
        return replace(
            first,
            image_index=np.zeros(count, np.int64),
            view_index=np.zeros(count, np.int64),
            class_index=np.concatenate([each.class_index for each in self.best]),
            score=np.concatenate([each.score for each in self.best]),
            probability=np.concatenate([each.probability for each in self.best]),
            is_blank=peak == 0,
            heatmap=maps / scale[:, None, None],
            seen=np.tile(np.array([0, 0, size[1], size[0]], np.int64), (count, 1)),
            scale=scale,
            outputs={name: np.concatenate([each[name] for each in self.outputs]) for name in self.outputs[0]},
            frame=Frame(size, photo=photo, geometry=geometry, tiles=tiles),
            cell=None,
            words=tuple(word for each in self.best for word in each.words),
            warnings=tuple(self.warnings),
        )


def _check(result: Explanation, before: Sequence[Explanation], box: Array) -> None:
    targets = [result.target(row) for row in range(len(result))]
    if before and targets != [each.target(0) for each in before]:
        raise TargetError(
            f"the targets of one tile are {', '.join(each.target(0) for each in before)}, those of another are "
            f"{', '.join(targets)}",
            where=_words(box),
            hint="one target for all tiles: a class, with --target",
            targets=targets,
        )
    if result.box is not None:
        raise TargetError(
            "a place or a box of a single tile cannot be explained over all tiles",
            hint="a class; or the part of the photo with that place as a photo of its own",
            targets=targets,
        )
    if np.isnan(result.scale).any():
        raise MethodError("maps of several fused layers have no scale that tiles could share", hint="a single layer")
