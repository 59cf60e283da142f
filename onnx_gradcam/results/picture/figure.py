"""The figures: pictures in a row, with captions and colour bars, on white.

All pictures are (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.photos.opencv import cv2
from onnx_gradcam.results.picture.overlay import Picture, Seen, overlay, scale_colours

Box = tuple[float, float, float, float]
LONG_SIDE = (448, 1280)
"""The least and the largest long side of a photo in a figure, in pixels: it is enlarged or reduced to fit."""
LONG_SIDE_IN_A_ROW = (448, 640)
"""The same for a photo that stands beside others."""
MARGIN, GAP, BAR, TICKS, MIN_WIDTH, MIN_PANEL_WIDTH, MIN_BAR_HEIGHT = 16, 12, 18, 36, 480, 320, 120
INK, FAINT, PAPER = (25, 25, 25), (110, 110, 110), 255
TITLE_SIZE, TEXT_SIZE, NOTE_SIZE = 0.65, 0.5, 0.45
BLANK = "blank map: no positive evidence for this target"
SIGNED = "orange speaks for the target, blue against it"
NOT_SEEN = "dimmed: not seen by the model"
OUTLIERS = 0.005
CLIPPED = "the strongest 0.5 % of the pixels have the same colour"
FRAMED = "outside the frame: not seen by the model"


@dataclass(frozen=True)
class Bar:
    """A colour bar.

    Attributes:
        colours: (n, 3) uint8 RGB, from its lower to its upper end.
        ticks: the texts beside it, at equal distances from its lower to its upper end.
    """

    colours: Picture
    ticks: Sequence[str]


@dataclass(frozen=True)
class Panel:
    """A picture in a figure.

    Attributes:
        picture: (H, W, 3) uint8 RGB.
        caption: the lines above it.
        bar: the colour bar to its right; None for none.
    """

    picture: Picture
    caption: Sequence[str] = ()
    bar: Bar | None = None


def panels(row: Sequence[Panel], *, title: Sequence[str] = (), notes: Sequence[str] = ()) -> Picture:
    """Return panels side by side under one title, on white.

    A line that is too long loses its middle.

    Args:
        row: the panels, from left to right.
        title: the lines above all panels; the first one is larger.
        notes: the lines below all panels.
    """
    least = MIN_WIDTH - 2 * MARGIN if len(row) == 1 else MIN_PANEL_WIDTH
    lines = max(len(panel.caption) for panel in row)
    tall = max(MIN_BAR_HEIGHT, *(panel.picture.shape[0] for panel in row))
    columns = [_column(panel, least, lines, tall) for panel in row]
    between = np.full((len(columns[0]), MARGIN, 3), PAPER, np.uint8)
    body = np.hstack([between, *(part for column in columns for part in (column, between))])
    width = body.shape[1]
    head = [_text(line, width, TITLE_SIZE if i == 0 else TEXT_SIZE, INK) for i, line in enumerate(title)]
    foot = [_text(line, width, NOTE_SIZE, FAINT) for line in notes]
    space = np.full((MARGIN // 2, width, 3), PAPER, np.uint8)
    return np.vstack([space, *head, space, body, space, *foot, space])


def map_panel(
    image: NDArray[np.uint8],
    heatmap: NDArray[Any],
    *,
    seen: Seen | None = None,
    signed: bool = False,
    long_side: tuple[int, int] = LONG_SIDE,
    caption: Sequence[str] = (),
    top: str = "1",
) -> Panel:
    """Return the overlay of a map as a panel.

    Args:
        image: (H, W, 3) uint8 RGB.
        heatmap: (H, W) in [0, 1], or [−1, 1] if ``signed``.
        seen: (x1, y1, x2, y2), the part of the image that the model saw, which is outlined; None: all of it.
        signed: whether the map has negative values.
        long_side: the least and the largest long side of the picture, in pixels.
        caption: the lines above the picture.
        top: the text at the upper end of the colour bar.

    Raises:
        InputError: the heatmap does not have the size of the image.
    """
    picture = _draw_outlined(image, heatmap, seen, signed, long_side)
    height = max(MIN_BAR_HEIGHT, len(picture))
    ticks = (f"-{top}", "0", top) if signed else ("0", "0.5" if top == "1" else "", top)
    return Panel(picture, caption, Bar(scale_colours(height, signed), ticks))


def picture_panel(
    picture: Picture, *, seen: Seen | None = None, long_side: tuple[int, int] = LONG_SIDE, caption: Sequence[str] = ()
) -> Panel:
    """Return a picture as a panel, with the part that the model saw outlined; other arguments as in ``map_panel``."""
    factor, size, method = _fit_long_side(picture, long_side)
    resized = cv2.resize(picture, size, interpolation=method).astype(np.uint8)
    if seen is not None and unseen_note(picture, seen):
        _outline(resized, seen, factor)
    return Panel(resized, caption)


def figure(
    image: NDArray[np.uint8],
    heatmap: NDArray[Any],
    *,
    title: Sequence[str],
    seen: Seen | None = None,
    box: Box | None = None,
    signed: bool = False,
    blank: str = BLANK,
    brightest: float = 1.0,
) -> Picture:
    """Return the overlay of a map with a caption and a colour bar, on white, legible for photos of any size.

    Below the picture stands what a reader must know: that the map is blank, what the colours of a signed map mean, that
    the model did not see the dimmed part.

    Args:
        image: (H, W, 3) uint8 RGB.
        heatmap: (H, W) in [0, 1], or [−1, 1] if ``signed``.
        title: the lines above the picture; the first one is larger.
        seen: (x1, y1, x2, y2), the part of the image that the model saw; None: all of it.
        box: x1, y1, x2, y2 in the image's pixels, a box that is drawn.
        signed: whether the map has negative values.
        blank: the line below a blank map.
        brightest: the value with the strongest colour, which stands at the colour bar; larger values get this colour.

    Raises:
        InputError: the heatmap does not have the size of the image.
    """
    blank_note = [] if heatmap.any() else [blank]
    notes = [
        *blank_note,
        *([SIGNED] if signed else []),
        *([CLIPPED] if brightest < 1 else []),
        *unseen_note(image, seen),
    ]
    clipped = np.clip(heatmap / brightest, -1, 1)
    panel = map_panel(image, clipped, seen=seen, signed=signed, top=f"{brightest:.2g}")
    if box is not None:
        _draw_box(panel.picture, box, _fit_long_side(image, LONG_SIDE)[0])
    return panels([panel], title=title, notes=notes)


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


def _column(panel: Panel, least: int, lines: int, tall: int) -> Picture:
    """Return a panel as a column: ``lines`` lines of caption, and the picture in the middle of ``tall`` pixels."""
    height, width = panel.picture.shape[:2]
    beside = 0 if panel.bar is None else GAP + BAR + max(TICKS, 6 + max(map(_width, panel.bar.ticks)))
    wide = max(width + beside, least)
    left, top = (wide - width - beside) // 2, (tall - height) // 2
    body = np.full((tall, wide, 3), PAPER, np.uint8)
    body[top : top + height, left : left + width] = panel.picture
    if panel.bar is not None:
        _draw_bar(body, left + width + GAP, panel.bar)
    blank = [""] * (lines - len(panel.caption))
    return np.vstack([*(_text(line, wide, TEXT_SIZE, INK, margin=0) for line in [*panel.caption, *blank]), body])


def _draw_outlined(
    image: NDArray[np.uint8], heatmap: NDArray[Any], seen: Seen | None, signed: bool, long_side: tuple[int, int]
) -> Picture:
    """Return the overlay at the size that it has in the figure, with the part that the model saw outlined."""
    factor, size, method = _fit_long_side(image, long_side)
    photo = cv2.resize(image, size, interpolation=method).astype(np.uint8)
    level = cv2.resize(heatmap.astype(np.float32), size, interpolation=method)
    if seen is None or not unseen_note(image, seen):
        return overlay(photo, level, signed=signed)
    x1, y1, x2, y2 = (round(v * factor) for v in seen)
    picture = overlay(photo, level, seen=(x1, y1, x2, y2), signed=signed)
    _outline(picture, seen, factor)
    return picture


def _fit_long_side(image: NDArray[np.uint8], long_side: tuple[int, int]) -> tuple[float, tuple[int, int], int]:
    """Return factor, (width, height) and interpolation that bring the long side between two numbers of pixels."""
    height, width = image.shape[:2]
    factor = min(max(1.0, long_side[0] / max(height, width)), long_side[1] / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return factor, size, cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR


def _outline(picture: Picture, seen: Seen, factor: float) -> None:
    x1, y1, x2, y2 = (round(v * factor) for v in seen)
    cv2.rectangle(picture, (x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1)), (PAPER,) * 3, 1)


def _draw_box(picture: Picture, box: Box, factor: float) -> None:
    """Draw a box as a white line on a dark line, which can be seen on every background."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = (
        round(float(np.clip(v * factor, 0, m - 1))) for v, m in zip(box, (width, height) * 2, strict=True)
    )
    for ink, thickness in ((INK, 4), ((PAPER,) * 3, 2)):
        cv2.rectangle(picture, (x1, y1), (x2, y2), ink, thickness)


def _draw_bar(body: Picture, left: int, bar: Bar) -> None:
    height = len(body)
    body[:, left : left + BAR] = bar.colours[np.rint(np.linspace(len(bar.colours) - 1, 0, height)).astype(int)][:, None]
    lowest, highest = height - 1, 9
    for tick, y in zip(bar.ticks, np.linspace(lowest, highest, len(bar.ticks)), strict=True):
        cv2.putText(body, tick, (left + BAR + 6, round(y)), *_font(NOTE_SIZE), INK, 1, cv2.LINE_AA)


def _font(size: float) -> tuple[int, float]:
    return cv2.FONT_HERSHEY_SIMPLEX, size


def _width(text: str, size: float = NOTE_SIZE) -> int:
    return int(cv2.getTextSize(text, *_font(size), 1)[0][0])


def _text(line: str, width: int, size: float, ink: tuple[int, int, int], margin: int = MARGIN) -> Picture:
    """Return one line of text on a strip of ``width``, without its middle where it does not fit."""
    line = _drawable(line)
    strip = np.full((round(size * 42), width, 3), PAPER, np.uint8)
    kept, text = len(line), line
    while kept > 8 and _width(text, size) > width - 2 * margin:
        kept -= 1
        text = f"{line[: kept // 2]}...{line[len(line) - (kept - kept // 2) :]}"
    cv2.putText(strip, text, (margin, round(size * 28)), *_font(size), ink, 1, cv2.LINE_AA)
    return strip


def _drawable(text: str) -> str:
    """Return a text that OpenCV can draw: Unicode from version 5 on, ASCII in older versions."""
    if hasattr(cv2, "FontFace"):
        return text
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(letters).encode("ascii", "replace").decode()
