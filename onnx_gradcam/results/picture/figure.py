"""The figures: pictures in a row, with captions and colour bars, on white.

All pictures are (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.photos.opencv import cv2
from onnx_gradcam.results.picture.overlay import Picture, Seen, overlay, require_size, scale_colours
from onnx_gradcam.results.picture.style import PLAIN, Style
from onnx_gradcam.results.picture.text import FAINT, INK, PAPER, Colour, strip, text_width, upright, wrap, write

Box = tuple[float, float, float, float]
Size = tuple[int, int]
LONG_SIDE = (448, 1280)
"""The least and the largest long side of a photo in a figure, in pixels: it is enlarged or reduced to fit."""
LONG_SIDE_IN_A_ROW = (448, 640)
"""The same for a photo that stands beside others."""
MARGIN, GAP, BAR, MIN_WIDTH, MIN_PANEL_WIDTH, MIN_BAR_HEIGHT = 16, 12, 18, 480, 320, 120
PIXELS_SHOWN = 4  # a photo that is enlarged by this factor or more shows its pixels as squares
TITLE_SHARE, TITLE_SIZES = 0.036, (19, 34)  # the height of the title as a share of the width of a panel, in pixels
TEXT_SHARE, SMALL_SHARE, LEAST_SIZE = 0.78, 0.64, 12
SIGNED = "orange speaks for the target, blue against it"
NOT_SEEN = "dark: not seen by the model"
OUTLIERS = 0.005
CLIPPED = "the strongest 0.5 % of the pixels have the same colour"
FRAMED = "outside the frame: not seen by the model"
OF_MAXIMUM = "share of the maximum"
CAUTION_INK: Colour = (102, 60, 0)
CAUTION_PAPER: Colour = (255, 236, 179)


@dataclass(frozen=True)
class Bar:
    """A colour bar.

    Attributes:
        colours: (n, 3) uint8 RGB, from its lower to its upper end.
        ticks: the texts beside it, at equal distances from its lower to its upper end.
        unit: what the ticks are in; "" for nothing.
    """

    colours: Picture
    ticks: Sequence[str]
    unit: str = ""


@dataclass(frozen=True)
class Panel:
    """A picture in a figure.

    Attributes:
        picture: (H, W, 3) uint8 RGB.
        caption: the lines above it, the first in ink.
        bar: the colour bar to its right; None for none.
    """

    picture: Picture
    caption: Sequence[str] = ()
    bar: Bar | None = None


@dataclass(frozen=True)
class Lines:
    """The lines around pictures.

    Attributes:
        title: the lines above: what is explained, in large letters, how, and in small letters where.
        notes: the small lines below.
        cautions: what changes how the picture must be read, on a band of colour.
    """

    title: Sequence[str] = ()
    notes: Sequence[str] = ()
    cautions: Sequence[str] = ()


@dataclass(frozen=True)
class Scale:
    """What the colours of a map stand for.

    Attributes:
        top: the value of the strongest colour; None: a share of the map's maximum.
        unit: what it is in: "logit".
    """

    top: float | None = None
    unit: str = ""

    def bar(self, height: int, signed: bool, style: Style = PLAIN) -> Bar:
        """Return the colour bar."""
        top, unit = (1.0, OF_MAXIMUM) if self.top is None else (self.top, self.unit)
        low = f"-{top:.3g}" if signed else "0"
        middle = "0" if signed else f"{top / 2:.2g}"
        return Bar(scale_colours(height, signed, style.colormap), (low, middle, f"{top:.3g}"), unit)


class LetterSizes(NamedTuple):
    """The heights of letters, in pixels."""

    title: int
    text: int
    small: int


NO_LINES = Lines()
OWN_MAXIMUM = Scale()


def panels(row: Sequence[Panel], lines: Lines = NO_LINES) -> Picture:
    """Return panels side by side under one title, on white. A line that is too long loses its middle.

    Args:
        row: the panels, from left to right.
        lines: title, notes and cautions; letters grow with the width of the panels.
    """
    sizes = _sizes(max(panel.picture.shape[1] for panel in row))
    least = MIN_WIDTH - 2 * MARGIN if len(row) == 1 else MIN_PANEL_WIDTH
    count = max(len(panel.caption) for panel in row)
    tall = max(MIN_BAR_HEIGHT, *(panel.picture.shape[0] for panel in row))
    columns = [_column(panel, least, count, tall, sizes) for panel in row]
    between = np.full((len(columns[0]), MARGIN, 3), PAPER, np.uint8)
    body = np.hstack([between, *(part for column in columns for part in (column, between))])
    return frame_lines(body, lines, sizes)


def frame_lines(body: Picture, lines: Lines, sizes: LetterSizes) -> Picture:
    """Return a picture with its title above, and its notes and cautions below."""
    width = body.shape[1]
    looks = [(sizes.title, INK), (sizes.text, INK)]
    head = [
        strip(line, width, *(looks[k] if k < len(looks) else (sizes.small, FAINT)), margin=MARGIN)
        for k, line in enumerate(lines.title)
    ]
    inner = width - 2 * MARGIN
    foot = [strip(line, width, sizes.small, FAINT, margin=MARGIN) for line in wrap(lines.notes, inner, sizes.small)]
    space = np.full((MARGIN // 2, width, 3), PAPER, np.uint8)
    return np.vstack(
        [
            space,
            *head,
            space,
            body,
            space,
            *foot,
            *([space] if foot else []),
            *caution_band(lines.cautions, width, sizes.small),
        ]
    )


def caution_band(cautions: Sequence[str], width: int, size: int, margin: int = MARGIN) -> list[Picture]:
    """Return the strips of a band of colour that says what changes how a picture must be read; none for nothing."""
    lines = wrap(cautions, width - 2 * margin, size)
    edge = np.full((size // 3, width, 3), CAUTION_PAPER, np.uint8)
    written = [strip(line, width, size, CAUTION_INK, margin=margin, paper=CAUTION_PAPER) for line in lines]
    return [edge, *written, edge] if lines else []


def map_panel(
    image: NDArray[np.uint8],
    heatmap: NDArray[Any],
    *,
    seen: Seen | None = None,
    signed: bool = False,
    long_side: tuple[int, int] = LONG_SIDE,
    caption: Sequence[str] = (),
    scale: Scale = OWN_MAXIMUM,
    style: Style = PLAIN,
) -> Panel:
    """Return the overlay of a map as a panel.

    Args:
        image: (H, W, 3) uint8 RGB.
        heatmap: in [0, 1], or [−1, 1] if ``signed``: (H, W), or of the size that the picture has in the panel.
        seen: (x1, y1, x2, y2), the part of the image that the model saw, which is outlined; None: all of it.
        signed: whether the map has negative values.
        long_side: the least and the largest long side of the picture, in pixels.
        caption: the lines above the picture.
        scale: what the colours stand for.
        style: how photo and map are drawn.

    Raises:
        InputError: the heatmap has another size.
    """
    picture = _draw_outlined(image, heatmap, seen, signed, long_side, style)
    return Panel(picture, caption, scale.bar(max(MIN_BAR_HEIGHT, len(picture)), signed, style))


def picture_panel(
    picture: Picture, *, seen: Seen | None = None, long_side: tuple[int, int] = LONG_SIDE, caption: Sequence[str] = ()
) -> Panel:
    """Return a picture as a panel, with the part that the model saw outlined; other arguments as in ``map_panel``."""
    resized = resize_photo(picture, panel_size(picture, long_side))
    if seen is not None and unseen_note(picture, seen):
        outline(resized, seen, len(resized) / len(picture))
    return Panel(resized, caption)


def figure(
    image: NDArray[np.uint8],
    heatmap: NDArray[Any],
    lines: Lines,
    *,
    seen: Seen | None = None,
    box: Box | None = None,
    signed: bool = False,
    scale: Scale = OWN_MAXIMUM,
    style: Style = PLAIN,
) -> Picture:
    """Return the overlay of a map with a caption and a colour bar, on white, legible for photos of any size.

    Below the picture stands what a reader must know beside ``lines``: what the colours of a signed map mean, that the
    model did not see the dark part.

    Args:
        image: (H, W, 3) uint8 RGB.
        heatmap: as in ``map_panel``.
        lines: title, notes and cautions.
        seen: (x1, y1, x2, y2), the part of the image that the model saw; None: all of it.
        box: x1, y1, x2, y2 in the image's pixels, a box that is drawn.
        signed: whether the map has negative values.
        scale: what the colours stand for.
        style: how photo and map are drawn; without caption there are only the overlay and the cautions.

    Raises:
        InputError: the heatmap has another size.
    """
    panel = map_panel(image, heatmap, seen=seen, signed=signed, scale=scale, style=style)
    if box is not None:
        draw_box(panel.picture, box, panel.picture.shape[1] / image.shape[1])
    if not style.caption:
        return bare([panel], lines.cautions)
    notes = [*lines.notes, *([SIGNED] if signed else []), *unseen_note(image, seen)]
    return panels([panel], Lines(lines.title, notes, lines.cautions))


def bare(row: Sequence[Panel], cautions: Sequence[str]) -> Picture:
    """Return panels side by side without captions and colour bars, and below them the cautions."""
    tall = max(panel.picture.shape[0] for panel in row)
    space = np.full((tall, GAP, 3), PAPER, np.uint8)
    each = [in_middle(panel.picture, panel.picture.shape[1], tall) for panel in row]
    body = np.hstack([each[0], *(part for picture in each[1:] for part in (space, picture))])
    return np.vstack([body, *caution_band(cautions, body.shape[1], _sizes(body.shape[1]).small)])


def brightest(heatmap: NDArray[Any], seen: Seen) -> float:
    """Return the value, at most 1, that all but the share ``OUTLIERS`` of the seen pixels stay below.

    Beside a single peak of a map of the input the rest would be black. It is 1 where no more pixels
    than this share are above 0.
    """
    x1, y1, x2, y2 = seen
    value = float(np.quantile(np.abs(heatmap[y1:y2, x1:x2]), 1 - OUTLIERS))
    return min(value, 1.0) or 1.0


def unseen_note(image: NDArray[np.uint8], seen: Seen | None) -> list[str]:
    """Return the note for an image that the model did not see as a whole; none for others."""
    height, width = image.shape[:2]
    return [] if seen is None or seen == (0, 0, width, height) else [NOT_SEEN]


def panel_size(image: NDArray[np.uint8], long_side: tuple[int, int] = LONG_SIDE) -> Size:
    """Return (height, width) of an image whose long side is brought between two numbers of pixels."""
    height, width = image.shape[:2]
    longest = max(height, width)
    factor = min(max(1.0, long_side[0] / longest), long_side[1] / longest)
    return max(1, round(height * factor)), max(1, round(width * factor))


def resize_photo(image: NDArray[np.uint8], size: Size) -> Picture:
    """Return an image at another size; the pixels of one that is enlarged much stay squares."""
    factor = max(size) / max(image.shape[:2])
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST if factor >= PIXELS_SHOWN else cv2.INTER_CUBIC
    return (
        image.copy() if size == image.shape[:2] else cv2.resize(image, size[::-1], interpolation=kind).astype(np.uint8)
    )


def resize_map(heatmap: NDArray[Any], size: Size) -> NDArray[Any]:
    """Return a map (H, W) at another size (height, width)."""
    if heatmap.shape == size:
        return heatmap
    kind = cv2.INTER_AREA if max(size) < max(heatmap.shape) else cv2.INTER_LINEAR
    return cv2.resize(heatmap.astype(np.float32), size[::-1], interpolation=kind)


def draw_box(picture: Picture, box: Box, factor: float, thickness: int = 2) -> None:
    """Draw a box as a white line on a dark line, which can be seen on every background."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = (
        round(float(np.clip(v * factor, 0, m - 1))) for v, m in zip(box, (width, height) * 2, strict=True)
    )
    for ink, width_of_line in ((INK, 2 * thickness), (PAPER, thickness)):
        cv2.rectangle(picture, (x1, y1), (x2, y2), ink, width_of_line)


def _sizes(width: int) -> LetterSizes:
    title = int(np.clip(round(width * TITLE_SHARE), *TITLE_SIZES))
    text, small = (max(LEAST_SIZE, round(title * share)) for share in (TEXT_SHARE, SMALL_SHARE))
    return LetterSizes(title, text, small)


def in_middle(picture: Picture, wide: int, tall: int) -> Picture:
    """Return a picture in the middle of a larger sheet of paper."""
    height, width = picture.shape[:2]
    left, top = (wide - width) // 2, (tall - height) // 2
    sheet = np.full((tall, wide, 3), PAPER, np.uint8)
    sheet[top : top + height, left : left + width] = picture
    return sheet


def _column(panel: Panel, least: int, count: int, tall: int, sizes: LetterSizes) -> Picture:
    """Return a panel as a column: ``count`` lines of caption, and the picture in the middle of ``tall`` pixels."""
    width = panel.picture.shape[1]
    beside = [] if panel.bar is None else [draw_bar(panel.bar, tall, sizes.small)]
    parts = np.hstack([in_middle(panel.picture, width, tall), *beside])
    wide = max(parts.shape[1], least)
    looks = [(sizes.text, INK), *[(sizes.small, FAINT)] * count]
    lines = [*panel.caption, *[""] * (count - len(panel.caption))]
    captions = [strip(line, wide, *look) for line, look in zip(lines, looks, strict=False)]
    return np.vstack([*captions, in_middle(parts, wide, tall)])


def _draw_outlined(
    image: NDArray[np.uint8],
    heatmap: NDArray[Any],
    seen: Seen | None,
    signed: bool,
    long_side: tuple[int, int],
    style: Style,
) -> Picture:
    """Return the overlay at the size that it has in the figure, with the part that the model saw outlined."""
    size = panel_size(image, long_side)
    if heatmap.shape != size:
        require_size(image, heatmap)
    level = resize_map(heatmap, size)
    photo = resize_photo(image, size)
    if seen is None or not unseen_note(image, seen):
        return overlay(photo, level, signed=signed, style=style)
    factor = size[1] / image.shape[1]
    x1, y1, x2, y2 = (round(v * factor) for v in seen)
    picture = overlay(photo, level, seen=(x1, y1, x2, y2), signed=signed, style=style)
    outline(picture, seen, factor)
    return picture


def outline(picture: Picture, seen: Seen, factor: float) -> None:
    """Draw a white line around the part that the model saw, given in pixels that are ``factor`` times as large."""
    x1, y1, x2, y2 = (round(v * factor) for v in seen)
    cv2.rectangle(picture, (x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1)), PAPER, 1)


def draw_bar(bar: Bar, height: int, size: int) -> Picture:
    """Return a colour bar with its ticks and its unit, as a strip of ``height`` pixels."""
    ticks = max(map(partial(text_width, size=size), bar.ticks))
    strip_of_bar = np.full((height, GAP + BAR + GAP // 2 + ticks, 3), PAPER, np.uint8)
    rows = np.rint(np.linspace(len(bar.colours) - 1, 0, height)).astype(int)
    strip_of_bar[:, GAP : GAP + BAR] = bar.colours[rows][:, None]
    for tick, y in zip(bar.ticks, np.linspace(height - 2, size * 0.8, len(bar.ticks)), strict=True):
        write(strip_of_bar, tick, (GAP + BAR + GAP // 2, round(y)), size)
    return np.hstack([strip_of_bar, *([upright(bar.unit, height, size)] if bar.unit else [])])
