from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from onnx_gradcam.errors import InputError
from onnx_gradcam.overlay import BAR, HIDDEN_BRIGHTNESS, LONG_SIDE, MIN_WIDTH, encode_png, figure, overlay

Array = NDArray[Any]
TITLE = ["gradcam: tabby (281)  p 0.873", "score 12.3", "layer /layer4/Relu"]


def ramp(height: int, width: int) -> Array:
    return np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width)


def ink(picture: Array) -> Array:
    """Where there is something other than paper."""
    return (picture != 255).any(axis=2)


def colour(level: float) -> Array:
    """Inferno by matplotlib's definition at its ends and its middle (RGB, 0 to 255)."""
    return np.array({0.0: [0, 0, 4], 0.5: [188, 55, 84], 1.0: [252, 255, 164]}[level])


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_overlay_is_the_formula(level: float) -> None:
    image = np.full((2, 3, 3), (200, 100, 50), np.uint8)
    grey = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    a = 0.6 * (1 + 3 * level) / 4
    mixed = overlay(image, np.full((2, 3), level, np.float32), alpha=0.6)
    assert mixed.dtype == np.uint8
    np.testing.assert_allclose(mixed[1, 2], (1 - a) * grey + a * colour(level), atol=1.1)


def test_overlay_dims_what_was_not_seen() -> None:
    image = np.full((6, 8, 3), 200, np.uint8)
    heatmap = np.ones((6, 8), np.float32)
    mixed = overlay(image, heatmap, seen=(2, 1, 5, 4))
    hidden = np.ones((6, 8), bool)
    hidden[1:4, 2:5] = False
    np.testing.assert_array_equal(mixed[hidden], np.full((39, 3), round(HIDDEN_BRIGHTNESS * 200)))
    np.testing.assert_array_equal(mixed[~hidden], overlay(image, heatmap)[~hidden])
    assert mixed[~hidden].min() > 100


def test_more_evidence_is_lighter() -> None:
    """Whatever the colour vision, and in print: on black, lightness grows with the value."""
    mixed = overlay(np.zeros((1, 256, 3), np.uint8), ramp(1, 256))
    lightness = cv2.cvtColor(mixed.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0, :, 0]
    assert (np.diff(lightness[::8]) > 0).all()


def test_overlay_refuses_another_size() -> None:
    with pytest.raises(InputError, match=r"\(3, 3\) does not fit an image of \(2, 3\)"):
        overlay(np.zeros((2, 3, 3), np.uint8), np.zeros((3, 3)))


@pytest.mark.parametrize("size", [(64, 64), (300, 451), (900, 40), (40, 900), (3000, 4000), (500, 1), (1, 1)])
def test_figure_shows_the_whole_overlay(size: tuple[int, int]) -> None:
    """At the size it has, reduced or enlarged; beside it a bar from 1 at the top to 0 at the bottom."""
    image = np.full((*size, 3), 90, np.uint8)
    heatmap = np.ones(size, np.float32)
    picture = figure(image, heatmap, title=TITLE)
    height, width = (np.array(size) * np.clip(max(size), *LONG_SIDE) / max(size)).round().clip(1).astype(int)
    expected = overlay(image[:1, :1], heatmap[:1, :1])[0, 0].astype(int)
    shown = abs(picture - expected).max(axis=2) <= 1
    ys, xs = np.nonzero(shown)
    assert (ys.max() - ys.min() + 1, xs.max() - xs.min() + 1) == (height, width)
    assert shown.sum() == height * width
    assert picture.shape[1] >= MIN_WIDTH
    bar = picture[:, xs.max() + 13 : xs.max() + 13 + BAR]
    inked = np.nonzero(ink(bar).all(axis=1) & (np.ptp(bar, axis=1) == 0).all(axis=1))[0]
    assert inked.max() - inked.min() + 1 == max(height, 120)
    np.testing.assert_allclose(bar[inked.min(), 0], colour(1.0), atol=1)
    np.testing.assert_allclose(bar[inked.max(), 0], colour(0.0), atol=1)
    np.testing.assert_allclose(bar[(inked.min() + inked.max()) // 2, 0], colour(0.5), atol=3)


def test_figure_puts_the_map_where_it_belongs() -> None:
    """The brightest spot of the picture is the map's, through enlargement and layout."""
    image = np.zeros((20, 64, 3), np.uint8)
    heatmap = np.zeros((20, 64), np.float32)
    heatmap[15, 50] = 1
    picture = figure(image, heatmap, title=[])
    body = picture.astype(int).sum(axis=2)
    top = int(np.nonzero(ink(picture)[:, 20])[0].min())  # a column through the photo
    photo = body[top : top + 140, 16 : 16 + 448]
    y, x = np.unravel_index(photo.argmax(), photo.shape)
    assert (y // 7, x // 7) == (15, 50)


def test_title_lines_are_in_the_caption() -> None:
    image, heatmap = np.zeros((300, 451, 3), np.uint8), np.ones((300, 451), np.float32)
    plain, titled = figure(image, heatmap, title=[]), figure(image, heatmap, title=TITLE)
    head = titled[: len(titled) - len(plain) + 8]
    rows = ink(head).any(axis=1)
    assert np.count_nonzero(np.diff(np.r_[False, rows, False].astype(int)) == 1) >= 3  # three lines of text
    np.testing.assert_array_equal(titled[-len(plain) + 8 :], plain[8:])


def test_long_names_lose_their_middle() -> None:
    image, heatmap = np.zeros((300, 300, 3), np.uint8), np.ones((300, 300), np.float32)
    long = "layer /" + "block/" * 60
    ends = [
        figure(image, heatmap, title=[name])[:40] for name in (long + "Relu", long + "Gelu", "L" + long[1:] + "Relu")
    ]
    for head in ends:
        assert not ink(head)[:, :14].any()
        assert not ink(head)[:, -14:].any()
        assert ink(head)[:, 16:60].any()
        assert ink(head)[:, -60:-16].any()
    assert (ends[0] != ends[1]).any(), "the last letters are not shown"
    assert (ends[0] != ends[2]).any(), "the first letter is not shown"


def test_figure_says_that_a_map_is_blank_and_that_parts_were_not_seen() -> None:
    image, heatmap = np.full((100, 100, 3), 90, np.uint8), ramp(100, 100)
    full = figure(image, heatmap, title=TITLE)
    assert figure(image, heatmap, title=TITLE, seen=(0, 0, 100, 100)).shape == full.shape
    blank = figure(image, 0 * heatmap, title=TITLE)
    cropped = figure(image, heatmap, title=TITLE, seen=(10, 0, 90, 100))
    for noted in (blank, cropped):
        extra = len(noted) - len(full)
        assert extra > 10
        assert ink(noted[-extra:]).sum() > 200
    # the outline of what was seen, at the enlarged size
    outline = (cropped == 255).all(axis=2)
    top = int(np.nonzero(ink(cropped)[:, 20])[0].max()) - 300
    columns = np.nonzero(outline[top, 16 : 16 + 448])[0]
    assert columns.tolist() == [round(10 * 4.48), round(90 * 4.48) - 1]


def test_text_of_any_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV before 5 draws ASCII only: accents are dropped there, and nothing fails."""
    image, heatmap = np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.float32)
    figure(image, heatmap, title=["tulipán 猫"])
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    folded, plain = (figure(image, heatmap, title=[t]) for t in ("tulipán 猫", "tulipan ?"))
    np.testing.assert_array_equal(folded, plain)


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7)])
def test_encode_png(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    with Image.open(io.BytesIO(encode_png(image))) as opened:
        assert opened.format == "PNG"
        np.testing.assert_array_equal(np.asarray(opened), image)
