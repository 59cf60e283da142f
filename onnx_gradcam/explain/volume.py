"""Explain a volume in a NIfTI file: the map lies in its voxels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import InputError, PreprocessError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.photos.decode import MAX_PIXELS
from onnx_gradcam.photos.inputs import beside_image, spatial_axes
from onnx_gradcam.photos.preprocess.choice import InputSpec
from onnx_gradcam.photos.preprocess.short import AUTO, read_short
from onnx_gradcam.photos.volume import SPACE, read_volume
from onnx_gradcam.photos.window import windowed
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.targets import Target

Float = npt.NDArray[np.float32]
SETTINGS = ("window", "scale", "mean", "std")
"""What a preprocessing may say of a volume: value = (v · scale − mean) / std, v from 0 to 255 where it has a window."""


def explain_volume(
    explainer: Explainer,
    path: str | os.PathLike[str],
    target: Target = None,
    method: str = "auto",
    *,
    preprocess: str = AUTO,
    inputs: Mapping[str, Any] | None = None,
    max_pixels: int = MAX_PIXELS,
    **keywords: Any,
) -> Explanation:
    """Explain a NIfTI volume. The heatmap has its voxels, and is saved with its affine, too.

    Args:
        explainer: a model with three spatial axes.
        path: a .nii or .nii.gz file: (X, Y, Z), or (X, Y, Z, channels). The axes stay in the order of the file.
        target: as in ``Explainer.explain``.
        method: as in ``Explainer.explain``.
        preprocess: "auto": the values as the file means them; or "window=40:400,scale=1/255" and the like: value =
            (v · scale − mean) / std, where v lies between 0 and 255 if there is a window.
        inputs: arrays for the model's other inputs, by name.
        max_pixels: how many voxels are read at most.
        **keywords: the other keywords of ``Explainer.explain``.

    Returns:
        One row for each target. Where the heatmaps have the voxels of the file, (R, X, Y, Z), ``frame.volume`` says
        where these lie, and ``save`` writes a .nii.gz file for each row, too.

    Raises:
        InputError: the file is no volume that the model takes, or nibabel is not installed.
        PreprocessError: the preprocessing says something else of a volume.
        OnnxGradcamError: what ``Explainer.explain`` raises.
    """
    settings = _settings(preprocess)
    values, space = read_volume(Path(path), max_pixels)
    spec = explainer.image_input
    x = _as_input(_prepared(values, settings), spec, Path(path))
    feeds = beside_image(spec.name, x, inputs or {})
    explanation = explainer.explain(feeds, target, method, **keywords)
    if explanation.heatmap.shape[1:] != values.shape[:SPACE]:
        return explanation
    return replace(explanation, frame=replace(explanation.frame, volume=space))


def _settings(preprocess: str) -> Mapping[str, Any]:
    """Return what a preprocessing says of a volume. Raises ``PreprocessError`` for what only photos have."""
    short = None if preprocess == AUTO else read_short(preprocess)
    if preprocess != AUTO and (short is None or short.base != AUTO or not set(short.fields) <= set(SETTINGS)):
        raise PreprocessError(
            f"{preprocess!r} is no preprocessing of a volume",
            hint=f"{', '.join(SETTINGS)}, as window=40:400,scale=1/255",
            name=preprocess,
        )
    return {} if short is None else short.fields


def _prepared(values: Float, settings: Mapping[str, Any]) -> Float:
    """Return the values of a volume as the model reads them."""
    if settings.get("window") is not None:
        values = windowed(values, settings["window"])
    mean, std = (np.asarray(settings.get(name, default)) for name, default in (("mean", (0.0,)), ("std", (1.0,))))
    return np.asarray((values * settings.get("scale", 1.0) - mean) / std, np.float32) if settings else values


def _as_input(values: Float, spec: InputSpec, path: Path) -> npt.NDArray[Any]:
    """Return a volume with its axes where the input has them."""
    if len(spec.shape) != SPACE + 2:
        raise InputError(
            f"input {spec} does not take a volume: '{path}' is (X, Y, Z)",
            hint="a model with an input (N, C, X, Y, Z) or (N, X, Y, Z, C)",
            name=spec.name,
        )
    channels = values if values.ndim > SPACE else values[..., None]
    moved = np.moveaxis(channels[None], (1, 2, 3), spatial_axes(spec, SPACE))
    return np.ascontiguousarray(moved, np.dtype(spec.dtype))
