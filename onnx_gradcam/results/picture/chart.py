"""Charts: means with intervals, and curves. The colours differ for any colour vision, and the shapes as well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from onnx_gradcam.photos.opencv import cv2
from onnx_gradcam.results.picture.figure import LetterSizes, Lines, frame_lines
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.picture.text import FAINT, INK, PAPER, Colour, text_width, write

WIDTH, ROW, LEGEND, PLOT_HEIGHT, SIDE = 760, 44, 26, 300, 24
LETTERS = LetterSizes(title=22, text=16, small=13)
MARK_COLOURS: tuple[Colour, ...] = ((0, 114, 178), (105, 105, 112), (213, 94, 0), (0, 158, 115))
"""Blue, vermilion and green of Okabe and Ito 2008, and a grey."""
DASHES = (0, 12, 4, 8)  # the length of a dash in pixels; 0: a line without gaps
GRID_COLOUR: Colour = (225, 225, 225)
FEW_TICKS = 5


@dataclass(frozen=True)
class Mark:
    """A mean in a chart.

    Attributes:
        name: what it is of.
        look: its colour and shape: 0 is the one that counts, 1 to 3 stand beside it.
        value: the mean.
        low, high: the ends of its interval; None where it has none.
    """

    name: str
    look: int
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        """Return the mean and its interval in figures."""
        interval = "" if self.low is None or self.high is None else f"  [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.value:.3g}{interval}"


@dataclass(frozen=True)
class Trace:
    """A curve in a chart.

    Attributes:
        name: what it is of.
        look: its colour and dashes, as of a ``Mark``.
        x, y: its points.
    """

    name: str
    look: int
    x: Sequence[float]
    y: Sequence[float]


def mean_chart(marks: Sequence[Mark], lines: Lines) -> Picture:
    """Return means one below the other, each with its interval as a bar.

    Args:
        marks: the means.
        lines: what stands above and below.
    """
    left = SIDE + max(text_width(mark.name, LETTERS.text) for mark in marks) + 16
    right = WIDTH - SIDE - max(text_width(mark.text, LETTERS.text) for mark in marks) - 16
    low, high = _range([v for mark in marks for v in (mark.value, mark.low, mark.high) if v is not None])
    picture = _paper(ROW * len(marks) + 40)
    foot = ROW * len(marks) + 8

    def place(value: float) -> int:
        return round(left + (value - low) / (high - low) * (right - left))

    for tick in ticks(low, high):
        cv2.line(picture, (place(tick), 8), (place(tick), foot), GRID_COLOUR, 1, cv2.LINE_AA)
        _centred(picture, f"{tick:g}", (place(tick), foot + 20))
    for k, mark in enumerate(marks):
        y = 8 + ROW * k + ROW // 2
        write(picture, mark.name, (SIDE, y + 5), LETTERS.text, INK)
        if mark.low is not None and mark.high is not None:
            cv2.line(picture, (place(mark.low), y), (place(mark.high), y), MARK_COLOURS[mark.look], 4, cv2.LINE_AA)
        _draw_point(picture, (place(mark.value), y), mark.look)
        write(picture, mark.text, (right + 16, y + 5), LETTERS.text, INK)
    return frame_lines(picture, lines, LETTERS)


def curve_chart(traces: Sequence[Trace], lines: Lines, x_title: str) -> Picture:
    """Return curves over the same axis, with their names above.

    Args:
        traces: the curves; those with a lower look lie above.
        lines: what stands above and below.
        x_title: what the horizontal axis is.
    """
    x_low, x_high = _range([v for trace in traces for v in trace.x])
    y_low, y_high = _range([v for trace in traces for v in trace.y])
    top = LEGEND * len(traces) + 16
    foot = top + PLOT_HEIGHT
    left, right = SIDE + 44, WIDTH - SIDE
    picture = _paper(foot + 52)

    def place(x: float, y: float) -> tuple[int, int]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return round(left + across * (right - left)), round(foot - up * (foot - top))

    for tick in ticks(y_low, y_high):
        cv2.line(picture, place(x_low, tick), place(x_high, tick), GRID_COLOUR, 1, cv2.LINE_AA)
        write(picture, f"{tick:g}", (SIDE, place(x_low, tick)[1] + 5), LETTERS.small, FAINT)
    for tick in ticks(x_low, x_high):
        _centred(picture, f"{tick:g}", (place(tick, y_low)[0], foot + 20))
    _centred(picture, x_title, ((left + right) // 2, foot + 42))
    for k, trace in enumerate(traces):
        y = LEGEND * k + LEGEND // 2
        _draw_line(picture, [(left, y), (left + 36, y)], trace.look)
        write(picture, trace.name, (left + 48, y + 5), LETTERS.text, INK)
    for trace in sorted(traces, key=lambda trace: -trace.look):
        _draw_line(picture, [place(x, y) for x, y in zip(trace.x, trace.y, strict=True)], trace.look)
    return frame_lines(picture, lines, LETTERS)


def ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers from ``low`` to ``high``.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / FEW_TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis: of shares 0 and 1, of correlations −1 and 1, else 0 and the farthest value."""
    low, high = min(values), max(values)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= -1 and high <= 1:
        return -1.0, 1.0
    return min(low, 0.0) * 1.05, max(high, 0.0) * 1.05


def _paper(height: int) -> Picture:
    return np.full((height, WIDTH, 3), PAPER, np.uint8)


def _centred(picture: Picture, text: str, place: tuple[int, int]) -> None:
    x, y = place
    write(picture, text, (x - text_width(text, LETTERS.small) // 2, y), LETTERS.small, FAINT)


def _draw_point(picture: Picture, place: tuple[int, int], look: int) -> None:
    """Draw a disc, a square, a diamond or a triangle."""
    (x, y), r = place, 8
    corners = {
        1: [(-r, -r), (r, -r), (r, r), (-r, r)],
        2: [(0, -r - 3), (r + 3, 0), (0, r + 3), (-r - 3, 0)],
        3: [(0, -r - 1), (r + 2, r), (-r - 2, r)],
    }.get(look)
    if corners is None:
        cv2.circle(picture, place, r, MARK_COLOURS[look], -1, cv2.LINE_AA)
    else:
        cv2.fillPoly(picture, [np.array([(x + a, y + b) for a, b in corners])], MARK_COLOURS[look], cv2.LINE_AA)


def _draw_line(picture: Picture, points: Sequence[tuple[int, int]], look: int) -> None:
    """Draw a line, whole, dashed or dotted."""
    if not DASHES[look]:
        cv2.polylines(picture, [np.array(points)], False, MARK_COLOURS[look], 3, cv2.LINE_AA)
        return
    length, walked = float(DASHES[look]), 0.0
    for (x1, y1), (x2, y2) in pairwise(points):
        distance = math.hypot(x2 - x1, y2 - y1)
        for step in range(math.ceil(distance)):
            if int((walked + step) // length) % 2 == 0:
                share = step / distance
                at = round(x1 + share * (x2 - x1)), round(y1 + share * (y2 - y1))
                cv2.circle(picture, at, 1, MARK_COLOURS[look], -1, cv2.LINE_AA)
        walked += distance
