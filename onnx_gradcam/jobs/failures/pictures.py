"""Mistakes on one page: a line for each, the photo and what speaks for and against both classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnx_gradcam.results.contact import LONG_SIDE, scales_of, thumbnails
from onnx_gradcam.results.picture import contact
from onnx_gradcam.results.picture.contact import Thumbnail
from onnx_gradcam.results.picture.figure import panel_size, resize_photo
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.picture.style import PLAIN, Style
from onnx_gradcam.results.side_by_side import SideBySide
from onnx_gradcam.results.titles import percentage

CELLS = 5
"""The photo, and two maps for each of two classes."""


def failure_sheet(
    mistakes: Sequence[tuple[str, str, str, SideBySide]], title: Sequence[str], style: Style = PLAIN
) -> Picture | None:
    """Return one picture of mistakes; None where no map can be drawn.

    Args:
        mistakes: for each the name of the photo, the predicted label, the true one, and what speaks for and against
            them, in two rows.
        title: the lines above.
        style: how photos and maps are drawn.
    """
    lines = [_line(*each) for each in mistakes if each[3].first.heatmap.ndim == 3]
    cells = [cell for line in lines for cell in line]
    if not cells:
        return None
    return contact.contact_sheet(cells, columns=CELLS, scales=scales_of(cells, "shared"), title=title, style=style)


def _line(name: str, predicted: str, true: str, sides: SideBySide) -> list[Thumbnail]:
    of_predicted, of_true = (thumbnails(_row(sides, row), name)[:2] for row in (0, 1))
    blank = [" (blank)" * bool(part.is_blank[row]) for row in (0, 1) for part in list(sides.parts.values())[:2]]
    each_label = (predicted, predicted, true, true)
    p = [percentage(float(sides.first.probability[row])) for row in (0, 1)]
    ends = (p[0], "", p[1], "")
    sides_of = ("for", "against", "for", "against")
    words = [f"{side} {label}{end}{b}" for side, label, end, b in zip(sides_of, each_label, ends, blank, strict=True)]
    roles = ["predicted", "predicted", "true", "true"]
    photo = sides.first.picture(0)
    first = resize_photo(photo, panel_size(photo, LONG_SIDE))
    plain = Thumbnail(first, None, None, False, None, name, f"{predicted}, and it is {true}")
    maps = [
        replace(each, caption=caption, name=role)
        for each, caption, role in zip([*of_predicted, *of_true], words, roles, strict=True)
    ]
    return [plain, *maps]


def _row(sides: SideBySide, row: int) -> SideBySide:
    return replace(sides, parts={name: part[row : row + 1] for name, part in sides.parts.items()})
