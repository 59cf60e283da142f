"""A text as its words, each on the colour of its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.results.picture.evidence import paper_bar, paper_colours
from onnx_gradcam.results.picture.figure import MIN_BAR_HEIGHT, Panel, Scale
from onnx_gradcam.results.picture.text import INK, PAPER, fit, text_width, write

WIDTH, LETTERS, LINE, PAD, GAP = 760, 22, 40, 5, 4
"""In pixels: the width of the text, the height of letters and of lines, the room inside of a word and between words."""

DARK = 130
"""Words on a colour whose mean is below this are white."""


def words_panel(words: Sequence[str], level: NDArray[Any], scale: Scale, signed: bool) -> Panel:
    """Return a text line by line, each word on the colour of its evidence.

    Args:
        words: one for each token.
        level: (n,) in [−1, 1], the map.
        scale: what the colours stand for.
        signed: whether the map has negative values.
    """
    shown = [fit(word, WIDTH - 2 * PAD, LETTERS) for word in words]
    places = _places([text_width(word, LETTERS) + 2 * PAD for word in shown])
    rows = places[-1][1] + 1
    picture = np.full((max(rows * LINE, MIN_BAR_HEIGHT), WIDTH, 3), PAPER, np.uint8)
    for word, (x, row), colour in zip(shown, places, paper_colours(level), strict=True):
        top = row * LINE + GAP
        picture[top : top + LINE - 2 * GAP, x : x + text_width(word, LETTERS) + 2 * PAD] = colour
        ink = PAPER if colour.mean() < DARK else INK
        write(picture, word, (x + PAD, top + round((LINE - 2 * GAP) * 0.72)), LETTERS, ink)
    return Panel(picture, (), paper_bar(scale, len(picture), signed))


def _places(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Return for words of these widths their places: x, and the number of the line."""
    places: list[tuple[int, int]] = []
    x, row = 0, 0
    for width in widths:
        if x and x + width > WIDTH:
            x, row = 0, row + 1
        places.append((x, row))
        x += width + GAP
    return places
