"""The pictures: a heatmap over its photo, and the figure with caption and colour bar.

This module and ``image`` are the only ones that use cv2. All images are (H, W, 3) uint8 RGB. The photo is
shown in grey, so that every colour in the picture is evidence. The colours are "inferno" (van der Walt and
Smith): their lightness grows with the value, which reads the same with any colour vision and in print.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import InputError
from onnx_gradcam.opencv import cv2

Picture = NDArray[np.uint8]
Seen = tuple[int, int, int, int]

HIDDEN_BRIGHTNESS = 0.3
LONG_SIDE = (448, 1280)
"""A figure's photo is enlarged or reduced until its long side lies between these, in pixels."""
MARGIN, GAP, BAR, TICKS, MIN_WIDTH, MIN_BAR_HEIGHT = 16, 12, 18, 36, 480, 120
INK, FAINT, PAPER = (25, 25, 25), (110, 110, 110), 255
BLANK = "blank map: no positive evidence for this target"


def overlay(
    image: NDArray[np.uint8], heatmap: NDArray[Any], *, seen: Seen | None = None, alpha: float = 0.75
) -> Picture:
    """``heatmap`` (H, W), 0 to 1, in colour over ``image`` (H, W, 3) in grey.

    With v the heatmap, a = alpha · (1 + 3 v) / 4:  picture = (1 − a) · grey + a · colour(v). Outside ``seen``
    (x1, y1, x2, y2), where the model saw nothing, the photo is dimmed.

    Raises:
        InputError: the heatmap is not as high and as wide as the image.
    """
    if image.shape[:2] != heatmap.shape:
        what = f"a heatmap of {heatmap.shape} does not fit an image of {image.shape[:2]}"
        hint = "the image that was explained, at the heatmap's size"
        raise InputError(what, hint=hint, image=image.shape[:2], heatmap=heatmap.shape)
    level = np.clip(heatmap, 0, 1).astype(np.float32)
    opacity = (alpha / 4 * (1 + 3 * level))[:, :, None]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[:, :, None]
    mixed: NDArray[np.float32] = (1 - opacity) * grey + opacity * _colours()[np.rint(level * 255).astype(np.uint8)]
    if seen is not None:
        x1, y1, x2, y2 = seen
        dimmed = np.ones(heatmap.shape, bool)
        dimmed[y1:y2, x1:x2] = False
        mixed[dimmed] = HIDDEN_BRIGHTNESS * grey[dimmed]
    return np.rint(mixed).astype(np.uint8)


def figure(
    image: NDArray[np.uint8], heatmap: NDArray[Any], *, title: Sequence[str], seen: Seen | None = None
) -> Picture:
    """The overlay with a caption and a colour bar, legible for photos of any size, on white.

    ``title``: the lines above the picture, the first one larger; a line that is too long loses its middle.
    Below the picture stands what must not be overlooked: a blank map, a dimmed part that was not seen.

    Raises:
        InputError: as ``overlay``.
    """
    height, width = image.shape[:2]
    picture = _framed(image, heatmap, seen)
    tall, wide = max(picture.shape[0], MIN_BAR_HEIGHT), picture.shape[1] + GAP + BAR + TICKS
    canvas_width = max(wide + 2 * MARGIN, MIN_WIDTH)
    head = [_text(line, canvas_width, 0.65 if i == 0 else 0.5, INK) for i, line in enumerate(title)]
    foot = [] if heatmap.any() else [_text(BLANK, canvas_width, 0.5, INK)]
    if seen is not None and seen != (0, 0, width, height):
        foot.append(_text("dimmed: not seen by the model", canvas_width, 0.45, FAINT))
    body = np.full((tall, canvas_width, 3), PAPER, np.uint8)
    left, top = (canvas_width - wide) // 2, (tall - picture.shape[0]) // 2
    body[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    _draw_bar(body, left + picture.shape[1] + GAP)
    space = np.full((MARGIN // 2, canvas_width, 3), PAPER, np.uint8)
    return np.vstack([space, *head, space, body, space, *foot, space])


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """``image`` (H, W, 3) RGB or (H, W) grey, uint8, as the bytes of a PNG file."""
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    return cv2.imencode(".png", pixels)[1].tobytes()


def _colours() -> NDArray[np.float32]:
    """(256, 3) RGB, for 0 to 1."""
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)
    return table[:, 0, ::-1].astype(np.float32)


def _framed(image: NDArray[np.uint8], heatmap: NDArray[Any], seen: Seen | None) -> Picture:
    """The overlay at the figure's size, the part that the model saw outlined."""
    height, width = image.shape[:2]
    factor = min(max(1.0, LONG_SIDE[0] / max(height, width)), LONG_SIDE[1] / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    photo = cv2.resize(image, size, interpolation=method).astype(np.uint8)
    level = cv2.resize(heatmap.astype(np.float32), size, interpolation=method)
    if seen is None or seen == (0, 0, width, height):
        return overlay(photo, level)
    x1, y1, x2, y2 = (round(v * factor) for v in seen)
    picture = overlay(photo, level, seen=(x1, y1, x2, y2))
    cv2.rectangle(picture, (x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1)), (PAPER,) * 3, 1)
    return picture


def _draw_bar(body: Picture, left: int) -> None:
    height = len(body)
    levels = np.rint(np.linspace(255, 0, height)).astype(int)
    body[:, left : left + BAR] = _colours()[levels][:, None]
    for level, y in ((1.0, 9), (0.5, height // 2 + 5), (0.0, height - 1)):
        cv2.putText(body, f"{level:g}", (left + BAR + 6, y), *_font(0.45), INK, 1, cv2.LINE_AA)


def _font(size: float) -> tuple[int, float]:
    return cv2.FONT_HERSHEY_SIMPLEX, size


def _text(line: str, width: int, size: float, ink: tuple[int, int, int]) -> Picture:
    """One line of text on a strip of ``width``, its middle left out where it does not fit."""
    line = _drawable(line)
    strip = np.full((round(size * 42), width, 3), PAPER, np.uint8)
    kept, shown = len(line), line
    while kept > 8 and cv2.getTextSize(shown, *_font(size), 1)[0][0] > width - 2 * MARGIN:
        kept -= 1
        shown = f"{line[: kept // 2]}...{line[len(line) - (kept - kept // 2) :]}"
    cv2.putText(strip, shown, (MARGIN, round(size * 28)), *_font(size), ink, 1, cv2.LINE_AA)
    return strip


def _drawable(text: str) -> str:
    """OpenCV draws Unicode from version 5 on; before, what is not ASCII would come out as question marks."""
    if hasattr(cv2, "FontFace"):
        return text
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(letters).encode("ascii", "replace").decode()
