"""Contact sheets: many small pictures on one page, at one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.results.picture.figure import (
    GAP,
    MARGIN,
    MIN_WIDTH,
    Box,
    LetterSizes,
    Lines,
    Scale,
    caution_band,
    draw_bar,
    draw_box,
    frame_lines,
    in_middle,
    outline,
)
from onnx_gradcam.results.picture.overlay import Picture, Seen, overlay
from onnx_gradcam.results.picture.style import PLAIN, Style
from onnx_gradcam.results.picture.text import FAINT, INK, PAPER, strip

THUMBNAIL = 240
"""The long side of a photo on a contact sheet, in pixels."""
MOST_COLUMNS = 6
SIZES = LetterSizes(title=20, text=14, small=12)
BAR_HEIGHT = 240
ROUNDING = 1e-6
ONE_SCALE = "one scale: the same colour is the same value in all maps"
OWN_SCALE = "each map at its own scale: the same colour is another value in each"


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A small picture of one map.

    Attributes:
        photo: (h, w, 3) uint8 RGB, or the picture itself where there is no map.
        level: (h, w) float32, the map in ``unit``, or in [−1, 1] where it has none; None for a picture that is drawn.
        unit: what the values are in; None for fused layers, whose maps have no scale.
        signed: whether the map has negative values.
        seen: (x1, y1, x2, y2), the part that the model saw, in pixels of the thumbnail; None: all of it.
        name: where the photo comes from.
        caption: what is explained.
        cautions: what changes how the map must be read.
        top: the value of the strongest colour where the map has a scale of its own.
        box: x1, y1, x2, y2 in pixels of the thumbnail, a box that is drawn.
    """

    photo: Picture
    level: NDArray[Any] | None
    unit: str | None
    signed: bool
    seen: Seen | None
    name: str
    caption: str
    cautions: Sequence[str] = ()
    top: float = 1.0
    box: Box | None = None


def contact_sheet(
    thumbnails: Sequence[Thumbnail],
    *,
    columns: int = 0,
    scales: Mapping[str, float] | None = None,
    title: Sequence[str] = (),
    style: Style = PLAIN,
) -> Picture:
    """Return thumbnails on one page.

    Args:
        thumbnails: at least one, line by line.
        columns: how many stand in a line; 0: as many as make the page about square.
        scales: for each unit the value of the strongest colour; None: each map has its own.
        title: the lines above.
        style: how photos and maps are drawn.
    """
    style = replace(style, photo=style.photo_under(any(thumbnail.signed for thumbnail in thumbnails)))
    of_all = _of_all(thumbnails)
    columns = min(columns or _columns(len(thumbnails)), len(thumbnails))
    widest = max(thumbnail.photo.shape[1] for thumbnail in thumbnails)
    lines = [thumbnails[k : k + columns] for k in range(0, len(thumbnails), columns)]
    tallest = [max(thumbnail.photo.shape[0] for thumbnail in line) for line in lines]
    cells = [
        [_cell(_without(each, of_all), widest, tall, scales, style) for each in line]
        for line, tall in zip(lines, tallest, strict=True)
    ]
    body = np.vstack([_line(line, columns, widest) for line in cells])
    bars = _bars(thumbnails, scales, style)
    tall = max(len(body), *(len(bar) for bar in bars)) if bars else len(body)
    space = np.full((tall, MARGIN, 3), PAPER, np.uint8)
    page = np.hstack([space, _extend(body, tall), *(_extend(bar, tall) for bar in bars), space])
    if page.shape[1] < MIN_WIDTH:
        page = in_middle(page, MIN_WIDTH, tall)
    notes = [ONE_SCALE if scales else OWN_SCALE] if any(t.level is not None for t in thumbnails) else []
    return frame_lines(page, Lines(title, notes, [*of_all, *_clipped(thumbnails, scales)]), SIZES)


def _of_all(thumbnails: Sequence[Thumbnail]) -> list[str]:
    """Return the cautions that every thumbnail has: they are said once."""
    return [line for line in thumbnails[0].cautions if all(line in each.cautions for each in thumbnails)]


def _without(thumbnail: Thumbnail, cautions: Sequence[str]) -> Thumbnail:
    return replace(thumbnail, cautions=[line for line in thumbnail.cautions if line not in cautions])


def _clipped(thumbnails: Sequence[Thumbnail], scales: Mapping[str, float] | None) -> list[str]:
    """Return a caution for each unit with values above its scale."""
    tops: dict[str, float] = {}
    for each in thumbnails:
        tops[each.unit or ""] = max(tops.get(each.unit or "", 0.0), each.top)
    over = [scale for unit, scale in (scales or {}).items() if tops.get(unit, 0.0) > scale * (1 + ROUNDING)]
    return [f"values above {scale:.3g} have the same colour" for scale in over]


def _columns(count: int) -> int:
    return min(MOST_COLUMNS, int(np.ceil(np.sqrt(count))))


def _cell(thumbnail: Thumbnail, wide: int, tall: int, scales: Mapping[str, float] | None, style: Style) -> Picture:
    picture = in_middle(_draw(thumbnail, scales, style), wide, tall)
    words = [
        strip(thumbnail.caption, wide, SIZES.text, INK),
        *([strip(thumbnail.name, wide, SIZES.small, FAINT)] if thumbnail.name else []),
        *caution_band(thumbnail.cautions, wide, SIZES.small, margin=GAP // 2),
    ]
    space = np.full((GAP, wide, 3), PAPER, np.uint8)
    return np.vstack([picture, *words, space])


def _draw(thumbnail: Thumbnail, scales: Mapping[str, float] | None, style: Style) -> Picture:
    level = thumbnail.level
    if level is None:
        return thumbnail.photo
    top = (scales or {}).get(thumbnail.unit or "", thumbnail.top)
    picture = overlay(
        thumbnail.photo, np.clip(level / top, -1, 1), seen=thumbnail.seen, signed=thumbnail.signed, style=style
    )
    if thumbnail.seen is not None and thumbnail.seen != (0, 0, level.shape[1], level.shape[0]):
        outline(picture, thumbnail.seen, 1)
    if thumbnail.box is not None:
        draw_box(picture, thumbnail.box, 1, thickness=1)
    return picture


def _line(cells: Sequence[Picture], columns: int, wide: int) -> Picture:
    tall = max(len(cell) for cell in cells)
    empty = np.full((tall, wide, 3), PAPER, np.uint8)
    all_cells = [*(_extend(cell, tall) for cell in cells), *[empty] * (columns - len(cells))]
    space = np.full((tall, GAP, 3), PAPER, np.uint8)
    return np.hstack([all_cells[0], *(part for cell in all_cells[1:] for part in (space, cell))])


def _bars(thumbnails: Sequence[Thumbnail], scales: Mapping[str, float] | None, style: Style) -> list[Picture]:
    """Return a colour bar for each unit, and for each of the two kinds of colours."""
    kinds = dict.fromkeys((each.unit, each.signed) for each in thumbnails if each.level is not None)
    known = scales or {}
    tops = dict.fromkeys((Scale(known[u], u) if u and u in known else Scale(), signed) for u, signed in kinds)
    return [draw_bar(scale.bar(BAR_HEIGHT, signed, style), BAR_HEIGHT, SIZES.small) for scale, signed in tops]


def _extend(picture: Picture, tall: int) -> Picture:
    """Return a picture with paper below it, ``tall`` pixels tall."""
    below = np.full((tall - len(picture), picture.shape[1], 3), PAPER, np.uint8)
    return np.vstack([picture, below])
