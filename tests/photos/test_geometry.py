"""Maps come back to the pixels of the photo."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from photos import (
    MODEL_SIZES,
    MODES,
    PHOTO_SIZES,
    RAW,
    Array,
    encoded,
    noise,
    stored_sideways,
)

from onnx_gradcam.photos.decode import decode
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.photos.preprocess.choice import PRESETS
from onnx_gradcam.photos.tensor import to_tensor

# --- geometry: the way back


def slow_to_photo(heatmap: Array, geometry: Geometry) -> Array:
    """Bilinear at each photo pixel's centre, border cells extended, 0 where the centre was not seen."""
    out = np.zeros(geometry.photo)
    for y, x in np.ndindex(*geometry.photo):
        place = []
        for at, s, o, m, n in zip((y, x), geometry.scale, geometry.offset, geometry.model, heatmap.shape, strict=True):
            model = (at + 0.5) * s + o
            if not 0 <= model < m:
                break
            place.append(min(max(model * n / m - 0.5, 0.0), n - 1.0))
        else:
            v, u = place
            i, j = min(int(v), max(heatmap.shape[0] - 2, 0)), min(int(u), max(heatmap.shape[1] - 2, 0))
            f, g = v - i, u - j
            i2, j2 = min(i + 1, heatmap.shape[0] - 1), min(j + 1, heatmap.shape[1] - 1)
            top = (1 - g) * heatmap[i, j] + g * heatmap[i, j2]
            out[y, x] = (1 - f) * top + f * ((1 - g) * heatmap[i2, j] + g * heatmap[i2, j2])
    return out


@pytest.mark.parametrize(("mode", "photo"), list(itertools.product(MODES, PHOTO_SIZES[:3])))
def test_to_photo_is_bilinear(mode: str, photo: tuple[int, int]) -> None:
    for size, grid in zip(MODEL_SIZES, ((7, 7), (5, 3), (1, 4)), strict=True):
        _, geometry = to_tensor(noise(*photo), replace(RAW, size=size, **MODES[mode]))
        heatmap = np.random.default_rng(1).random(grid, np.float32)
        result = geometry.to_photo(heatmap)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, slow_to_photo(heatmap, geometry), atol=2e-6)
        x1, y1, x2, y2 = geometry.seen
        outside = result.copy()
        outside[y1:y2, x1:x2] = 0
        assert not outside.any()


def test_seen_by_hand() -> None:
    image = noise(300, 451)
    cases = {  # torchvision: 300 × 451 → 256 × 384, at (16, 80): 80/384·451 = 93.96 … 304/384·451 = 357.04
        "imagenet": (replace(PRESETS["imagenet"]), (94, 19, 357, 281)),
        "stretch": (PRESETS["tf"], (0, 0, 451, 300)),
        "letterbox": (replace(PRESETS["tf"], resize="letterbox"), (0, 0, 451, 300)),
        "fill": (
            replace(PRESETS["imagenet"], shorter=None),
            (75, 0, 376, 300),
        ),  # 224 × 336, at 56: 75.2 … 375.8
    }
    for name, (spec, seen) in cases.items():
        assert to_tensor(image, spec)[1].seen == seen, name


def test_to_photo_averages_when_the_photo_is_smaller() -> None:
    """A lone pixel of a large map is not lost between the samples: each axis weighs it (1 − d/8) / 8."""
    _, geometry = to_tensor(noise(8, 8), replace(RAW, size=(64, 64)))
    for y, x in ((31, 32), (37, 27), (20, 43)):
        heatmap = np.zeros((64, 64), np.float32)
        heatmap[y, x] = 1
        result = geometry.to_photo(heatmap)
        weight = [(1 - abs(v + 0.5 - (v // 8 * 8 + 4)) / 8) / 8 for v in (y, x)]
        assert result[y // 8, x // 8] == result.max() == pytest.approx(weight[0] * weight[1], rel=1e-5)
        assert result.sum() == pytest.approx(1 / 64, rel=1e-5)


def pooled(x: Array, grid: tuple[int, int]) -> Array:
    """The average of each cell."""
    return x.reshape(grid[0], x.shape[0] // grid[0], grid[1], -1).mean(axis=(1, 3))


GRIDS = [((56, 56), (7, 7)), ((45, 33), (5, 3)), ((48, 80), (6, 10))]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_bright_dot_comes_back_to_its_place(orientation: int) -> None:
    """20 positions × resize modes × odd sizes; brightness is the map, in full and on a grid of cells."""
    rng = np.random.default_rng(orientation)
    found, hidden = 0, 0
    for photo in ((97, 61), (61, 133)):
        for dot in rng.uniform([2, 2], [photo[0] - 2, photo[1] - 2], (10, 2)).astype(int):
            upright = np.zeros((*photo, 3), np.uint8)
            upright[dot[0] - 1 : dot[0] + 2, dot[1] - 1 : dot[1] + 2] = 255
            image = decode(encoded(stored_sideways(upright, orientation), "PNG", orientation))
            for (size, grid), mode in itertools.product(GRIDS, MODES):
                tensor, geometry = to_tensor(image, replace(RAW, size=size, pad=0.0, **MODES[mode]))
                brightness, pixel = tensor[0].mean(axis=0), 1 / np.array(geometry.scale)
                x1, y1, x2, y2 = geometry.seen
                beyond = np.maximum([y1, x1] - dot, dot - [y2 - 1, x2 - 1])
                if (beyond > 2 + 2 * np.maximum(pixel, 1)).any():
                    assert brightness.max() == 0, "what the crop hid is in the model's input"
                    hidden += 1
                if (beyond > -2).any():
                    continue
                cell = pixel * size / grid
                for heatmap, reach in ((brightness, pixel + 1), (pooled(brightness, grid), cell)):
                    peak = np.unravel_index(geometry.to_photo(heatmap).argmax(), photo)
                    assert (abs(np.array(peak) - dot) <= reach).all(), (mode, photo, size, dot, peak)
                    found += 1
    assert found > 300
    assert hidden > 10


def test_letterbox_in_the_corner_is_where_yolox_puts_the_photo() -> None:
    """YOLOX pads to the right and below; what the model saw is the whole photo."""
    spec = replace(PRESETS["yolox"], size=(64, 64))
    photo = np.full((60, 120, 3), 200, np.uint8)
    x, geometry = to_tensor(photo, spec)
    assert geometry.offset == (0.0, 0.0)
    assert geometry.seen == (0, 0, 120, 60)
    assert (x[0, :, :32] == 200).all()
    assert (x[0, :, 32:] == 114).all()


@pytest.mark.parametrize(
    ("size", "photo", "shape"),
    [((48, None), (100, 333), (48, 160)), ((None, 96), (100, 50), (192, 96)), ((48, None), (900, 3), (48, 1))],
)
def test_an_open_side_is_in_proportion_to_the_photo(
    size: tuple[int | None, int | None], photo: tuple[int, int], shape: tuple[int, int]
) -> None:
    spec = replace(PRESETS["tf"], size=size)
    x, geometry = to_tensor(np.zeros((*photo, 3), np.uint8), spec)
    assert x.shape == (1, 3, *shape)
    assert geometry.seen == (0, 0, photo[1], photo[0])
