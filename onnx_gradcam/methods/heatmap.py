"""From cams to heatmaps: upsampling, scaling, fusion. NumPy arrays with one row per (image, target)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import MethodError, nearest

Float = npt.NDArray[np.float32]

FUSIONS: Mapping[str, Callable[..., Any]] = {"mean": np.mean, "max": np.max, "product": np.prod}


def upsample(cam: npt.NDArray[Any], size: Sequence[int]) -> Float:
    """Interpolate maps linearly between pixel centres, edges repeated: (N, *space) → (N, *size), float32.

    Sample i of ``new`` lies at x = (i + ½) · extent / new − ½, without antialiasing: half-pixel, align_corners=False,
    as in cv2.resize INTER_LINEAR, torch interpolate and ONNX Resize. There can be any number of spatial axes.
    """
    out = np.asarray(cam, np.float32)
    for extent, new in zip(out.shape[1:], size, strict=True):
        # Contracts the first spatial axis and appends the new one: after one round the order is restored.
        out = np.tensordot(out, interpolation_matrix(extent, new), axes=(1, 0))
    return out


def interpolation_matrix(extent: int, new: int) -> Float:
    """Return the matrix (extent, new) of a linear interpolation: column i holds the weights of sample i.

    Cams have few rows and columns: a dense product is faster than gathering, and needs no memory beside its result.
    """
    x = np.clip((np.arange(new) + 0.5) * (extent / new) - 0.5, 0, extent - 1)
    weights: Float = np.maximum(0, 1 - np.abs(x - np.arange(extent)[:, None])).astype(np.float32)
    return weights


def normalise(cam: npt.NDArray[Any], scale: float | str = "image") -> Float:
    """Divide each row of cams by its largest magnitude, or all rows by a number.

    Args:
        cam: (N, *space), in the score's units.
        scale: "image": cam / max|cam| of each row; a number: cam / scale, with larger values clipped.

    Returns:
        (N, *space), float32 in [0, 1], in [−1, 1] for signed cams. A blank map stays 0.

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
        raise MethodError(f"unknown scale {scale!r}", hint="'image' or a positive number", scale=scale)
    return np.clip(cam / np.float32(scale), -1, 1)


def is_blank(cam: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return for each map (N, *space) whether it is 0 everywhere, (N,) bool. A map with a NaN is not blank."""
    blank: npt.NDArray[np.bool_] = np.all(cam == 0, axis=spatial(cam))
    return blank


def fuse(cams: Sequence[npt.NDArray[Any]], size: Sequence[int], how: str = "mean") -> Float:
    """Fuse the cams of several layers: each is upsampled and divided by its own maximum, then they are combined.

    The product of the maps of one layer from each stage is RefineCAM (Domeniconi et al. 2026, arXiv:2605.14641, with
    ``gradcam++``): the evidence of the last layer, with the resolution of the early ones. It is 0 where one map is 0.

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
    """Combine maps of several layers, of equal shapes, point by point by "mean", "max" or "product"; float32.

    Raises:
        MethodError: as ``fuse``.
    """
    if how not in FUSIONS:
        raise MethodError(f"unknown fusion {how!r}", hint=nearest(how, FUSIONS), how=how)
    heatmaps = np.stack(layers)
    if how == "product" and np.any(heatmaps < 0):
        raise MethodError(
            "signed maps cannot be fused by product: two negative values would give positive evidence",
            hint="'mean' or 'max'",
            how=how,
        )
    fused: Float = FUSIONS[how](heatmaps, axis=0)
    return fused


def spatial(cam: npt.NDArray[Any]) -> tuple[int, ...]:
    """Return the spatial axes of (N, *space)."""
    return tuple(range(1, cam.ndim))
