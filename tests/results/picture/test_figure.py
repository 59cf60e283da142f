"""The figures: pictures in a row with captions and colour bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_gradcam.results.picture import figure as figure_module
from onnx_gradcam.results.picture import text
from onnx_gradcam.results.picture.figure import (
    BAR,
    CAUTION_PAPER,
    LONG_SIDE,
    LONG_SIDE_IN_A_ROW,
    MARGIN,
    MIN_WIDTH,
    Bar,
    Lines,
    Panel,
    Scale,
    brightest,
    figure,
    map_panel,
    panels,
)
from onnx_gradcam.results.picture.overlay import overlay
from onnx_gradcam.results.picture.style import Style

Array = NDArray[Any]
TITLE = ["tabby (281)  p 0.873", "gradcam, logit 12.3", "score logits", "layer /layer4/Relu"]
TITLED = Lines(TITLE)


def ramp(height: int, width: int) -> Array:
    return np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width)


def ink(picture: Array) -> Array:
    """Where there is something other than paper."""
    return (picture != 255).any(axis=2)


def colour(level: float) -> Array:
    """Inferno by matplotlib's definition at its ends and its middle (RGB, 0 to 255)."""
    return np.array({0.0: [0, 0, 4], 0.5: [188, 55, 84], 1.0: [252, 255, 164]}[level])


@pytest.mark.parametrize("size", [(64, 64), (300, 451), (900, 40), (40, 900), (3000, 4000), (500, 1), (1, 1)])
def test_figure_shows_the_whole_overlay(size: tuple[int, int]) -> None:
    """At the size it has, reduced or enlarged; beside it a bar from 1 at the top to 0 at the bottom."""
    image = np.full((*size, 3), 90, np.uint8)
    heatmap = np.ones(size, np.float32)
    picture = figure(image, heatmap, TITLED)
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
    picture = figure(image, heatmap, Lines())
    body = picture.astype(int).sum(axis=2)
    top = int(np.nonzero(ink(picture)[:, 20])[0].min())  # a column through the photo
    photo = body[top : top + 140, 16 : 16 + 448]
    y, x = np.unravel_index(photo.argmax(), photo.shape)
    assert (y // 7, x // 7) == (15, 50)


def test_title_lines_are_in_the_caption() -> None:
    image, heatmap = np.zeros((300, 451, 3), np.uint8), np.ones((300, 451), np.float32)
    plain, titled = figure(image, heatmap, Lines()), figure(image, heatmap, TITLED)
    head = titled[: len(titled) - len(plain) + 8]
    rows = ink(head).any(axis=1)
    assert np.count_nonzero(np.diff(np.r_[False, rows, False].astype(int)) == 1) >= 4  # four lines of text
    np.testing.assert_array_equal(titled[-len(plain) + 8 :], plain[8:])


def test_long_names_lose_their_middle() -> None:
    image, heatmap = np.zeros((300, 300, 3), np.uint8), np.ones((300, 300), np.float32)
    long = "layer /" + "block/" * 60
    ends = [
        figure(image, heatmap, Lines([name]))[:40] for name in (long + "Relu", long + "Gelu", "L" + long[1:] + "Relu")
    ]
    for head in ends:
        assert not ink(head)[:, :14].any()
        assert not ink(head)[:, -14:].any()
        assert ink(head)[:, 16:60].any()
        assert ink(head)[:, -60:-16].any()
    assert (ends[0] != ends[1]).any(), "the last letters are not shown"
    assert (ends[0] != ends[2]).any(), "the first letter is not shown"


def test_figure_says_what_two_colours_mean_and_that_parts_were_not_seen() -> None:
    image, heatmap = np.full((100, 100, 3), 90, np.uint8), ramp(100, 100)
    full = figure(image, heatmap, TITLED)
    assert len(figure(image, heatmap, TITLED, signed=True)) > len(full) + 10
    assert figure(image, heatmap, TITLED, seen=(0, 0, 100, 100)).shape == full.shape
    cropped = figure(image, heatmap, TITLED, seen=(10, 0, 90, 100))
    extra = len(cropped) - len(full)
    assert extra > 10
    assert ink(cropped[-extra:]).sum() > 200
    # the outline of what was seen, at the enlarged size
    outline = (cropped == 255).all(axis=2)
    top = int(np.nonzero(ink(cropped)[:, 20])[0].max()) - 300
    columns = np.nonzero(outline[top, 16 : 16 + 448])[0]
    assert columns.tolist() == [round(10 * 4.48), round(90 * 4.48) - 1]


@pytest.mark.parametrize("caption", [True, False])
def test_cautions_stand_in_the_picture_on_a_band_of_colour(caption: bool) -> None:
    """Also without a caption: only the overlay, and below it the cautions; each of them can be read."""
    image, heatmap = np.full((100, 100, 3), 90, np.uint8), ramp(100, 100)
    style = Style(caption=caption)
    plain = figure(image, heatmap, TITLED, style=style)
    warned = figure(image, heatmap, Lines(TITLE, cautions=["nothing detected"]), style=style)
    longer = figure(
        image, heatmap, Lines(TITLE, cautions=["nothing detected", "guessed preprocessing " * 4]), style=style
    )
    assert plain.shape[1] == warned.shape[1] >= 448
    band = (warned == CAUTION_PAPER).all(axis=2)
    assert not (plain == CAUTION_PAPER).all(axis=2).any()
    np.testing.assert_array_equal(warned[: len(plain)], plain)
    assert band[len(plain) :, 0].all()
    assert (~band[len(plain) :]).sum() > 200, "letters"
    assert len(longer) > len(warned) + 10, "another line"


def test_without_caption_there_is_only_the_overlay() -> None:
    image, heatmap = np.full((300, 451, 3), 90, np.uint8), ramp(300, 451)
    picture = figure(image, heatmap, TITLED, style=Style(caption=False))
    np.testing.assert_array_equal(picture, overlay(image, heatmap))


@pytest.mark.parametrize(("width", "size"), [(40, 19), (448, 19), (800, 29), (1280, 34)])
def test_letters_grow_with_the_photo(width: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    write = text.write

    def noted(picture: Array, line: str, place: tuple[int, int], size: int, ink: text.Colour = text.INK) -> None:
        sizes.append(size)
        write(picture, line, place, size, ink)

    monkeypatch.setattr(text, "write", noted)
    monkeypatch.setattr(figure_module, "write", noted)
    figure(np.zeros((448, width, 3), np.uint8), np.zeros((448, width), np.float32), TITLED)
    title, how, where, layer = sizes[4:8]  # after the colour bar
    assert title == size
    assert title > how > where == layer >= 12, "class and p first, names of tensors small"


@pytest.mark.parametrize(
    ("scale", "signed", "ticks", "unit"),
    [
        (Scale(), False, ("0", "0.5", "1"), "share of the maximum"),
        (Scale(0.1318, "logit"), False, ("0", "0.066", "0.132"), "logit"),
        (Scale(0.1318, "logit"), True, ("-0.132", "0", "0.132"), "logit"),
        (Scale(1234.5, "score"), False, ("0", "6.2e+02", "1.23e+03"), "score"),
    ],
)
def test_the_bar_has_numbers_and_their_unit(scale: Scale, signed: bool, ticks: tuple[str, ...], unit: str) -> None:
    bar = scale.bar(120, signed)
    assert (tuple(bar.ticks), bar.unit) == (ticks, unit)


def test_pixels_of_a_tiny_photo_stay_squares() -> None:
    """28 × 28 pixels, each 16 × 16 in the figure."""
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    picture = figure(image, np.zeros((28, 28), np.float32), Lines(), style=Style(caption=False))
    np.testing.assert_array_equal(picture, image.repeat(16, axis=0).repeat(16, axis=1))


def test_text_of_any_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV before 5 draws ASCII only: accents are dropped there, and nothing fails."""
    image, heatmap = np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.float32)
    figure(image, heatmap, Lines(["tulipán 猫"]))
    monkeypatch.setattr(text, "_typeface", lambda: None)
    folded, plain = (figure(image, heatmap, Lines([t])) for t in ("tulipán 猫", "tulipan ?"))
    np.testing.assert_array_equal(folded, plain)
    signs, letters = (figure(image, heatmap, Lines([t])) for t in ("4 × 4 · ∂y − 1", "4 x 4 - dy - 1"))
    np.testing.assert_array_equal(signs, letters)


def flat(colour: tuple[int, int, int], height: int = 40, width: int = 400) -> Array:
    return np.full((height, width, 3), colour, np.uint8)


def places(picture: Array, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The rectangle (x1, y1, x2, y2) that has a colour."""
    ys, xs = np.nonzero((picture == colour).all(axis=2))
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def test_panels_stand_in_a_row_as_they_are() -> None:
    red, green = (200, 10, 10), (10, 200, 10)
    row = [Panel(flat(red)), Panel(flat(green, 300, 350), caption=["one line", "and another"])]
    picture = panels(row, Lines(["a title"], ["a note"]))
    a, b = places(picture, red), places(picture, green)
    assert (a[2] - a[0], a[3] - a[1]) == (400, 40)
    assert (b[2] - b[0], b[3] - b[1]) == (350, 300)
    assert a[0] == MARGIN
    assert b[0] == a[2] + MARGIN
    assert a[1] + 20 == b[1] + 150, "their middles are level"
    caption = ink(picture[: b[1]])
    assert not caption[40:, : a[2]].any(), "the first has no caption, and what lies above it is the title"
    assert caption[40:, b[0] :].sum() > 100


def test_a_panel_has_the_bar_that_it_is_given() -> None:
    colours = np.array([(1, 2, 3), (60, 70, 80)], np.uint8)
    ticks = ("low", "a rather long word")
    picture = panels([Panel(flat((200, 10, 10))), Panel(flat((10, 200, 10)), bar=Bar(colours, ticks))])
    low, high = places(picture, (1, 2, 3)), places(picture, (60, 70, 80))
    assert high[1] < low[1], "from its lower to its upper end"
    assert low[2] - low[0] == high[2] - high[0] == BAR
    assert ink(picture[:, low[2] : -MARGIN]).any()
    assert not ink(picture[:, -MARGIN:]).any(), "a long word has its room"


def test_a_signed_map_in_a_panel() -> None:
    """Negative on the left, positive on the right, its bar from −1 to 1."""
    heatmap = np.zeros((100, 100), np.float32)
    heatmap[:, :30], heatmap[:, 70:] = -1, 1
    panel = map_panel(np.full((100, 100, 3), 80, np.uint8), heatmap, signed=True, long_side=LONG_SIDE_IN_A_ROW)
    side = LONG_SIDE_IN_A_ROW[0]
    assert panel.picture.shape == (side, side, 3)
    against, middle, positive = panel.picture[side // 2, [20, side // 2, side - 20]].astype(int)
    assert against[2] > against[0] + 50, "blue"
    assert positive[0] > positive[2] + 50, "red"
    np.testing.assert_array_equal(middle, [80, 80, 80])
    assert panel.bar is not None
    assert panel.bar.ticks == ("-1", "0", "1")
    np.testing.assert_array_equal(panel.bar.colours[[0, -1]], [(0, 114, 178), (213, 94, 0)])


def test_a_map_with_a_single_peak_is_drawn_up_to_its_brightest_part() -> None:
    """Level by level: 0.2 is the strongest colour, and 0.1 half of it, beside one pixel of 1."""
    heatmap = np.full((40, 50), 0.1)
    heatmap[:20] = 0.2
    heatmap[30, 30] = 1
    whole = (0, 0, 50, 40)
    assert brightest(heatmap, whole) == 0.2
    assert brightest(-heatmap, whole) == 0.2
    assert brightest(heatmap, (0, 20, 50, 40)) == 0.1


def test_blank_and_plain_maps_have_no_outliers() -> None:
    assert brightest(np.zeros((4, 5)), (0, 0, 5, 4)) == 1
    assert brightest(np.ones((4, 5)), (0, 0, 5, 4)) == 1
