"""From cams to heatmaps: resized, scaled, fused. NumPy arrays with one image or target per row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import MethodError, nearest

Float = npt.NDArray[np.float32]

FUSIONS: Mapping[str, Callable[..., Any]] = {"mean": np.mean, "max": np.max, "product": np.prod}


def upsample(cam: npt.NDArray[Any], size: Sequence[int]) -> Float:
    """Linear interpolation between pixel centres, edges repeated: (N, *space) → (N, *size), float32.

    Sample i of ``new`` lies at x = (i + ½) · extent / new − ½, without antialiasing: half-pixel,
    align_corners=False, as in cv2.resize INTER_LINEAR, torch interpolate and ONNX Resize. Any number of
    spatial axes.
    """
    out = np.asarray(cam, np.float32)
    for extent, new in zip(out.shape[1:], size, strict=True):
        # Contracts the first spatial axis and appends the new one: after one round the order is restored.
        out = np.tensordot(out, interpolation(extent, new), axes=(1, 0))
    return out


def interpolation(extent: int, new: int) -> Float:
    """The matrix (extent, new) that interpolates linearly: column i holds the weights of sample i.

    Cams have few rows and columns: a dense product beats gathering, and needs no memory beside its result.
    """
    x = np.clip((np.arange(new) + 0.5) * (extent / new) - 0.5, 0, extent - 1)
    weights: Float = np.maximum(0, 1 - np.abs(x - np.arange(extent)[:, None])).astype(np.float32)
    return weights


def normalise(cam: npt.NDArray[Any], scale: float | str = "image") -> Float:
    """Row by row cam / max|cam|, or cam / scale: (N, *space), float32 in [0, 1], in [−1, 1] for signed cams.

    A blank map stays 0. With a number for the scale, what exceeds it is clipped.

    Raises:
        MethodError: the scale is neither "image" nor a positive number.
    """
    cam = np.asarray(cam, np.float32)
    if scale == "image":
        peak = np.max(np.abs(cam), axis=spatial(cam), keepdims=True)
        peak[peak == 0] = 1
        heatmap: Float = cam / peak
        return heatmap
    if isinstance(scale, str) or not 0 < scale < float("inf"):
        raise MethodError(f"no such scale: {scale!r}", hint="'image' or a positive number", scale=scale)
    return np.clip(cam / np.float32(scale), -1, 1)


def is_blank(cam: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether a map is 0 everywhere: (N, *space) → bool (N,). A map with a NaN is not blank."""
    blank: npt.NDArray[np.bool_] = np.all(cam == 0, axis=spatial(cam))
    return blank


def fuse(cams: Sequence[npt.NDArray[Any]], size: Sequence[int], how: str = "mean") -> Float:
    """The cams of several layers as one: each upsampled and divided by its own maximum, then combined.

    The product of the maps of a layer of each stage is RefineCAM (Domeniconi et al. 2026, arXiv:2605.14641, with
    ``gradcam++``): what the last layer finds, with the resolution of the early ones. It is 0 where one of them is.

    Args:
        cams: for each layer (N, *space); the extents may differ.
        size: the extent of the result.
        how: "mean", "max" or "product", point by point.

    Returns:
        (N, *size), float32 in [0, 1], in [−1, 1] for signed cams; not divided by its maximum again.

    Raises:
        MethodError: ``how`` is unknown, or is "product" and a cam is signed.
    """
    return combine([normalise(upsample(cam, size)) for cam in cams], how)


def combine(layers: Sequence[npt.NDArray[Any]], how: str) -> Float:
    """Maps of several layers as one, "mean", "max" or "product" point by point: equal shapes, float32.

    Raises:
        MethodError: as ``fuse``.
    """
    if how not in FUSIONS:
        raise MethodError(f"unknown fusion {how!r}", hint=nearest(how, FUSIONS), how=how)
    heatmaps = np.stack(layers)
    if how == "product" and np.any(heatmaps < 0):
        raise MethodError(
            "signed maps cannot be fused by product: two negative values would make positive evidence",
            hint="'mean' or 'max'",
            how=how,
        )
    fused: Float = FUSIONS[how](heatmaps, axis=0)
    return fused


def spatial(cam: npt.NDArray[Any]) -> tuple[int, ...]:
    """The axes of (N, *space) that are space."""
    return tuple(range(1, cam.ndim))
