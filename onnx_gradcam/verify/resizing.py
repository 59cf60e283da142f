"""Resize in float64, as onnxruntime has it: with the length after rounding, and a copy where no length changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Attributes = Mapping[str, Any]
Axis = tuple[np.ndarray, np.ndarray]  # where in x each element of y is read, and whether that is on the axis


def resize(shape: tuple[int, ...], attributes: Attributes, x: np.ndarray, *more: np.ndarray) -> np.ndarray:
    """Resize axis by axis; ``more``: the region (two numbers for each axis), scales or (integers) sizes."""
    if x.shape == tuple(shape):
        return x.astype(np.float64)
    along = attributes.get("axes") or range(x.ndim)
    given = {"sizes" if a.dtype.kind == "i" else "scales" if len(a) == len(along) else "roi": a for a in more if a.size}
    y, inside = x.astype(np.float64), np.ones(shape, bool)
    for i, k in enumerate(along):
        size, count = x.shape[k], shape[k]
        scale = _scale(i, [x.shape[a] for a in along], given, attributes) or count / size
        region = (given["roi"][i], given["roi"][len(along) + i]) if "roi" in given else (0.0, 1.0)
        if size == count and scale == 1 and tuple(region) == (0.0, 1.0):
            continue
        mode = attributes.get("mode", "nearest")
        place = _places(size, count, scale, region, attributes, np.float32 if mode == "nearest" else np.float64)
        on_axis = (place >= 0) & (place <= size - 1)
        inside &= on_axis.reshape(-1, *[1] * (x.ndim - 1 - k % x.ndim))
        y = _read(y, place, k, size, mode, attributes)
    cropped = attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    return np.where(inside, y, attributes.get("extrapolation_value", 0.0)) if cropped else y


def _scale(i: int, lengths: list[int], given: Mapping[str, np.ndarray], attributes: Attributes) -> float | None:
    policy = attributes.get("keep_aspect_ratio_policy", "stretch")
    if "sizes" in given and policy != "stretch":
        ratios = [np.float32(s) / np.float32(n) for s, n in zip(given["sizes"], lengths, strict=True)]
        return float(min(ratios) if policy == "not_larger" else max(ratios))
    return None if "sizes" in given else float(given["scales"][i])


def _places(
    size: int, count: int, scale: float, region: tuple[float, float], attributes: Attributes, kind: type[np.floating]
) -> np.ndarray:
    i, step, half = np.arange(count, dtype=kind), kind(scale), kind(0.5)
    match attributes.get("coordinate_transformation_mode", "half_pixel"):
        case "asymmetric":
            place = i / step
        case "align_corners":
            place = i * kind(size - 1) / kind(max(count - 1, 1))
        case "pytorch_half_pixel" if count == 1:
            place = np.zeros(1)
        case "half_pixel_symmetric":
            missing = kind(size) / 2 * (1 - kind(count) / (step * kind(size)))
            place = (float(missing) + (np.arange(count) + 0.5) / float(step) - 0.5).astype(kind)
        case "tf_crop_and_resize":
            start, end = kind(region[0]), kind(region[1])
            place = (start + end) * kind(size - 1) / 2 + 0 * i
            if count > 1:
                place = start * kind(size - 1) + i * (end - start) * kind(size - 1) / kind(count - 1)
        case _:
            place = (i + half) / step - half
    return np.asarray(place, np.float64)


def _read(y: np.ndarray, place: np.ndarray, k: int, size: int, mode: str, attributes: Attributes) -> np.ndarray:
    """Σ weight · y over the elements near each place, those beyond the axis being its outer ones."""
    if mode == "nearest":
        tolerance = 0.5 + 1e-6
        rounding = {
            "round_prefer_floor": np.ceil(place - tolerance),
            "round_prefer_ceil": np.floor(place + tolerance),
            "floor": np.floor(place),
            "ceil": np.ceil(place),
        }[attributes.get("nearest_mode", "round_prefer_floor")]
        taps = [(rounding, np.ones_like(place))]
    elif mode == "linear":
        low = np.floor(place)
        taps = [(low, 1 - (place - low)), (low + 1, place - low)]
    else:
        low, a = np.floor(place), attributes.get("cubic_coeff_a", -0.75)
        taps = [(low + n, _keys(np.abs(place - low - n), a)) for n in (-1, 0, 1, 2)]
        if attributes.get("exclude_outside", 0):
            taps = [(at, w * ((at >= 0) & (at < size))) for at, w in taps]
            total = sum(w for _, w in taps)
            taps = [(at, w / total) for at, w in taps]
    trailing = [1] * (y.ndim - 1 - k % y.ndim)
    parts = [w.reshape(-1, *trailing) * np.take(y, np.clip(at, 0, size - 1).astype(int), axis=k) for at, w in taps]
    return np.asarray(sum(parts))


def _keys(distance: np.ndarray, a: float) -> np.ndarray:
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    return np.where(distance <= 1, near, far)
