"""Draw cams and attributions in their frame: each is resampled once, into the pixels where it is shown.

The numbers of a heatmap are interpolated linearly between the cells of a cam. Pictures are drawn with a cubic kernel
(Keys 1981), which has the same values at the middles of the cells, but no ridges along their rows and columns: linear
interpolation makes a star of each peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.methods.heatmap import combine, is_blank, normalise, upsample
from onnx_gradcam.photos.resample import resample
from onnx_gradcam.results.frame import ALL_LEVELS, Frame
from onnx_gradcam.results.picture.detail import colours

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
LayerCams = Sequence[Array]
"""The cams of each target layer, (R, *space)."""
LINEAR, SMOOTH = "linear", "cubic"


def draw(frame: Frame, cams: LayerCams) -> tuple[Float, Float, Bool]:
    """Draw the maps of one explanation.

    Args:
        frame: where the maps are drawn.
        cams: for each layer (R, *space); an attribution that is already in input space is drawn the same way.

    Returns:
        The heatmap (R, *size), or (R, height, width) of the photo; its scale (R,); and which maps are blank (R,): see
        ``draw_together``.
    """
    [heatmap], scale, [blank] = draw_together([(frame, cams)])
    return heatmap, scale, blank


def draw_together(
    parts: Sequence[tuple[Frame, LayerCams]], kernel: str = LINEAR
) -> tuple[list[Float], Float, list[Bool]]:
    """Draw maps of the same images so that those of one row share one scale.

    The cams of a part are drawn in its frame; those of several layers are divided by the largest magnitude that the
    layer has in any part, and fused. The result is divided by the largest magnitude of all parts. The padding beside a
    photo counts for these magnitudes: evidence there is not drawn, and what is drawn does not look stronger without it.

    Args:
        parts: for each map its frame and its cams.
        kernel: how values between the cells of a cam are interpolated: "linear" for numbers, "cubic" for pictures.

    Returns:
        For each part its heatmap (R, *size) or (R, height, width), float32 in [−1, 1]; the scale (R,) float32: the
        value of the drawn cam, in the score's units, where the heatmap is 1 (1 where all is blank, NaN for fused
        layers); and for each part (R,) bool, which of its maps are 0 everywhere.
    """
    each = [_flat_layers(frame, cams, kernel) for frame, cams in parts]
    layers = [np.stack(of_parts, axis=1) for of_parts in zip(*each, strict=True)]
    fused = layers[0] if len(layers) == 1 else combine([normalise(layer) for layer in layers], parts[0][0].fusion)
    peak = np.abs(fused).reshape(len(fused), -1).max(axis=1)
    scale = np.where(peak == 0, 1, peak) if len(layers) == 1 else np.full(len(fused), np.nan)
    drawn = normalise(fused).swapaxes(0, 1)
    heatmaps = [_crop(frame, values) for (frame, _), values in zip(parts, drawn, strict=True)]
    return heatmaps, scale.astype(np.float32), [is_blank(values) for values in drawn]


def draw_smoothly(parts: Sequence[tuple[Frame, LayerCams]], size: tuple[int, int], scale: Array) -> list[Float]:
    """Draw maps of the same images for a picture of ``size`` (height, width), with a cubic kernel.

    Args:
        parts: for each map its frame and its cams, with two spatial axes.
        size: of the picture of the whole frame, in pixels.
        scale: (R,) float32, the value of a cam that is 1 in the picture; where it is NaN, 1 is the largest magnitude.

    Returns:
        For each part (R, *size) float32 in [−1, 1]; larger values are clipped.
    """
    heatmaps, own, _ = draw_together([(_at_size(frame, size), cams) for frame, cams in parts], SMOOTH)
    factor = np.where(np.isnan(scale), 1, own / scale).astype(np.float32)[:, None, None]
    return [np.clip(heatmap * factor, -1, 1) for heatmap in heatmaps]


def _at_size(frame: Frame, size: tuple[int, int]) -> Frame:
    """Return the frame of the same maps with another number of pixels."""
    geometry = frame.geometry
    if geometry is None:
        return replace(frame, size=size)
    y, x = (s * old / new for s, old, new in zip(geometry.scale, geometry.photo, size, strict=True))
    return replace(frame, geometry=replace(geometry, photo=size, scale=(y, x)))


def backdrop(frame: Frame, image: int, view: int = 0) -> npt.NDArray[np.uint8]:
    """Return what the maps of an image, or of one of its views, are drawn over, uint8 (H, W, 3) RGB.

    It is the photo. For arrays it is the values, stretched from their smallest and largest to 0..255; where there are
    not three channels, it is their mean. Maps that lie along no axes of the array are drawn over black.
    """
    if frame.photo is not None:
        return frame.photo
    if not frame.space:
        return np.zeros((*frame.size, 3), np.uint8)
    assert frame.x is not None
    space = [axis - 1 for axis in frame.space]
    planes = np.moveaxis(frame.x[image], space, (-2, -1))
    planes = planes.reshape(frame.views, -1, *planes.shape[-2:])[view].transpose(1, 2, 0).astype(np.float32)
    if planes.shape[-1] != 3:
        planes = planes.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    low, high = planes.min(), planes.max()
    picture: npt.NDArray[np.uint8] = np.rint((planes - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    return picture


def draw_attribution(frame: Frame, attribution: Array) -> Array:
    """Return one attribution (*input shape) as (H, W, 3) in the frame: red, green and blue, 0 where nothing was seen.

    Where the channels are not colours, it is the mean over channels.
    """
    height, width = (axis - 1 for axis in frame.space)
    values = colours(attribution, (height, width), frame.channels)
    if frame.geometry is None:
        return values
    return np.stack([frame.geometry.to_photo(values[:, :, k]) for k in range(3)], axis=2)


def _flat_layers(frame: Frame, cams: LayerCams, kernel: str) -> list[Float]:
    """Return for each layer that is fused (R, n): the pixels of the frame, followed by those of the padding."""
    if frame.level is None:
        return [_flat(frame, cam, kernel) for cam in cams]
    return [np.concatenate([_flat_level(frame, cams, r, int(level), kernel) for r, level in enumerate(frame.level)])]


def _flat_level(frame: Frame, cams: LayerCams, row: int, level: int, kernel: str) -> Float:
    chosen = cams if level == ALL_LEVELS else [cams[level]]
    total: Float = np.sum([_flat(frame, cam[row : row + 1], kernel) for cam in chosen], axis=0)
    return total


def _flat(frame: Frame, cam: Array, kernel: str) -> Float:
    if frame.geometry is None:
        return _resample_to_input(frame, cam, kernel).reshape(len(cam), -1)
    maps = [frame.geometry.to_photo(row, kernel) for row in np.asarray(cam, np.float32)]
    drawn, padding = np.stack(maps).reshape(len(cam), -1), frame.geometry.padding
    return np.concatenate([drawn, _resample_to_input(frame, cam)[:, padding]], axis=1) if padding.any() else drawn


def _resample_to_input(frame: Frame, cam: Array, kernel: str = LINEAR) -> Float:
    if cam.shape[1:] == frame.size:
        return np.asarray(cam, np.float32)
    return upsample(cam, frame.size) if kernel == LINEAR else _smooth(cam, frame.size)


def _smooth(cam: Array, size: tuple[int, ...]) -> Float:
    step = (cam.shape[1] / size[0], cam.shape[2] / size[1])
    maps = [resample(row, (size[0], size[1]), step, (0.0, 0.0), SMOOTH) for row in np.asarray(cam, np.float32)]
    return np.stack([drawn.clip(row.min(), row.max()) for drawn, row in zip(maps, cam, strict=True)])


def _crop(frame: Frame, values: Float) -> Float:
    size = frame.size if frame.geometry is None else frame.geometry.photo
    count = int(np.prod(size))
    return values[:, :count].reshape(len(values), *size)
