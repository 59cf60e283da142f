"""Text in pictures: one typeface for every script, on strips of paper.

OpenCV before version 5 draws ASCII only: accents are dropped there, and other letters become question marks.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from onnx_gradcam.photos.opencv import cv2
from onnx_gradcam.results.picture.overlay import Picture

Colour = tuple[int, int, int]
INK: Colour = (25, 25, 25)
FAINT: Colour = (110, 110, 110)
PAPER: Colour = (255, 255, 255)
TYPEFACE = "uni"  # OpenCV's other typefaces take digits and brackets from a second one
HERSHEY_HEIGHT = 30  # pixels between the lines of OpenCV's older letters at scale 1
LINE = 1.45  # distance of lines in units of the size of letters
DOTS = "..."
LEAST_LETTERS = 8
LIKE = str.maketrans({"×": "x", "·": "-", "−": "-", "∂": "d"})  # what our own lines have beyond ASCII


def text_width(text: str, size: int) -> int:
    """Return the width of a text in pixels; ``size`` is the height of a line of letters."""
    text = _drawable(text)
    if _typeface() is None:
        return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size / HERSHEY_HEIGHT, 1)[0][0])
    return int(cv2.getTextSize((0, 0), text, (0, 0), _typeface(), size)[2])


def write(picture: Picture, text: str, place: tuple[int, int], size: int, ink: Colour = INK) -> None:
    """Write a text into a picture, from ``place`` (x, y) at the foot of its first letter."""
    text = _drawable(text)
    if _typeface() is None:
        scale = size / HERSHEY_HEIGHT
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
    else:
        cv2.putText(picture, text, place, ink, _typeface(), size)


def strip(text: str, width: int, size: int, ink: Colour = INK, *, margin: int = 0, paper: Colour = PAPER) -> Picture:
    """Return one line of text on a strip of ``width`` pixels; a line that is too long loses its middle."""
    height = round(size * LINE)
    line: Picture = np.full((height, width, 3), paper, np.uint8)
    write(line, fit(text, width - 2 * margin, size), (margin, round(height * 0.72)), size, ink)
    return line


def fit(text: str, width: int, size: int) -> str:
    """Return a text without its middle where it is wider than ``width`` pixels.

    >>> fit("a short line", 1000, 16)
    'a short line'
    """
    if text_width(text, size) <= width:
        return text
    low, high = LEAST_LETTERS, max(LEAST_LETTERS, len(text) - 1)
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(_without_middle(text, middle), size) <= width:
            low = middle
        else:
            high = middle - 1
    return _without_middle(text, low)


def wrap(parts: Sequence[str], width: int, size: int, between: str = "  ·  ") -> list[str]:
    """Return parts as lines of at most ``width`` pixels: as many parts in a line as fit, words where one does not."""
    lines: list[str] = []
    for part in parts:
        for k, word in enumerate([part] if text_width(part, size) <= width else part.split()):
            joined = f"{lines[-1]}{' ' if k else between}{word}" if lines else word
            if lines and text_width(joined, size) <= width:
                lines[-1] = joined
            else:
                lines.append(word)
    return lines


def upright(text: str, height: int, size: int, ink: Colour = FAINT) -> Picture:
    """Return a text that reads from the foot to the top of a strip of ``height`` pixels, in its middle."""
    text = fit(text, height, size)
    line: Picture = np.full((round(size * LINE), height, 3), PAPER, np.uint8)
    write(line, text, ((height - text_width(text, size)) // 2, round(len(line) * 0.72)), size, ink)
    return np.ascontiguousarray(np.rot90(line))


def _without_middle(text: str, kept: int) -> str:
    return f"{text[: kept - kept // 2]}{DOTS}{text[len(text) - kept // 2 :]}"


@cache
def _typeface() -> Any:
    """Return OpenCV's typeface for all scripts, None before version 5."""
    return cv2.FontFace(TYPEFACE) if hasattr(cv2, "FontFace") else None


def _drawable(text: str) -> str:
    """Return a text that OpenCV can draw: Unicode from version 5 on, ASCII in older versions."""
    if _typeface() is not None:
        return text
    letters = (c for c in unicodedata.normalize("NFKD", text.translate(LIKE)) if not unicodedata.combining(c))
    return "".join(letters).encode("ascii", "replace").decode()
