"""The contact sheet of several results: the maps of all their rows, small, at one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import OutputError
from onnx_gradcam.results import portrait
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.picture import contact
from onnx_gradcam.results.picture.contact import THUMBNAIL, Thumbnail
from onnx_gradcam.results.picture.figure import panel_size, resize_photo
from onnx_gradcam.results.picture.overlay import Picture, Seen
from onnx_gradcam.results.picture.style import PLAIN, Style
from onnx_gradcam.results.scales import IMAGE, SHARED, Scales, map_unit, read_scale
from onnx_gradcam.results.side_by_side import SideBySide
from onnx_gradcam.results.titles import heading, percentage

Array = npt.NDArray[Any]
LONG_SIDE = (THUMBNAIL, THUMBNAIL)


def contact_sheet(
    results: Sequence[Explanation | SideBySide],
    names: Sequence[str] = (),
    *,
    scale: str | float = SHARED,
    style: Style = PLAIN,
) -> Picture:
    """Return the maps of all rows of several results on one page, small, at one scale.

    >>> from importlib.resources import files
    >>> import onnx_gradcam as ogc
    >>> demo = files("onnx_gradcam.models")
    >>> explainer = ogc.Explainer(demo / "shapes-resnet.onnx")
    >>> photos = [demo / "images" / name for name in ("cross.png", "drop.png")]
    >>> results = [explainer.explain_image(photo, target=ogc.TopK(2)) for photo in photos]
    >>> ogc.contact_sheet(results, [photo.name for photo in photos]).shape[2]
    3

    Args:
        results: at least one; those whose maps do not have two spatial axes are left out.
        names: what is written below the maps of each result; none: nothing.
        scale: "shared": the strongest colour is the largest value of all maps in the same unit; "image": the largest
            value of each map; or a number, in the score's units.
        style: how photos and maps are drawn.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        OutputError: no map can be drawn.
        MethodError: the scale is unknown.
    """
    called = list(names) or [""] * len(results)
    each = [thumbnails(result, name) for result, name in zip(results, called, strict=True)]
    flat = [thumbnail for of_result in each for thumbnail in of_result]
    if not flat:
        raise OutputError("no map can be drawn on a contact sheet", hint="the .npy files hold the numbers")
    return sheet_of(flat, title_of(results[0]), columns=max(map(len, each)), scale=scale, style=style)


def sheet_of(
    all_thumbnails: Sequence[Thumbnail],
    title: Sequence[str],
    *,
    columns: int,
    scale: str | float | Scales = SHARED,
    style: Style = PLAIN,
) -> Picture:
    """Return thumbnails on one page; those of one result stand in one line, unless there is one of each, or too many.

    Arguments as in ``contact_sheet``; ``columns``: how many thumbnails a result has.

    Raises:
        MethodError: the scale is unknown.
    """
    in_line = columns if 1 < columns <= contact.MOST_COLUMNS else 0
    scales = scales_of(all_thumbnails, scale)
    return contact.contact_sheet(all_thumbnails, columns=in_line, scales=scales, title=title, style=style)


def scales_of(all_thumbnails: Sequence[Thumbnail], scale: str | float | Scales) -> Scales | None:
    """Return for each unit the value of the strongest colour; None where each map has its own.

    Raises:
        MethodError: the scale is unknown.
    """
    if isinstance(scale, Mapping):
        return scale
    scale = read_scale(scale)
    if scale == IMAGE:
        return None
    peaks: dict[str, float] = {}
    for each in all_thumbnails:
        if each.unit is not None and each.level is not None:
            peaks[each.unit] = max(peaks.get(each.unit, 0.0), each.top)
    return peaks if scale == SHARED else dict.fromkeys(peaks, float(scale))


def title_of(result: Explanation | SideBySide) -> list[str]:
    """Return the lines above a contact sheet: the method, and where score and map were taken."""
    first = result.first if isinstance(result, SideBySide) else result
    _, _, score, _ = first.title(0)
    layers = " + ".join(layer.name for layer in first.layers)
    where = f"layer {layers}" if layers else f"input {first.attributed}"
    return [first.method, f"model {Path(first.provenance.model).name}", score, where]


def thumbnails(result: Explanation | SideBySide, name: str = "") -> list[Thumbnail]:
    """Return the small pictures of all rows of a result, of two sides three for each row; none for undrawn maps."""
    parts = list(result.parts.items()) if isinstance(result, SideBySide) else [("", result)]
    if parts[0][1].heatmap.ndim != 3:
        return []
    return [each for row in range(len(result)) for each in _of_row(parts, row, name)]


def _of_row(parts: Sequence[tuple[str, Explanation]], row: int, name: str) -> list[Thumbnail]:
    first = parts[0][1]
    picture = portrait.draw_detail(first, row) if first.has_detail else first.picture(row)
    photo = resize_photo(picture, panel_size(picture, LONG_SIDE))
    levels: list[Array | None] = [None]
    if not first.has_detail:
        levels = [*portrait.levels_of([part for _, part in parts], row, photo.shape[:2])]
    factor = photo.shape[1] / picture.shape[1]
    return [
        _thumbnail(part, row, photo, level, factor, (name, part_name))
        for (part_name, part), level in zip(parts, levels, strict=True)
    ]


def _thumbnail(
    part: Explanation, row: int, photo: Picture, level: Array | None, factor: float, names: tuple[str, str]
) -> Thumbnail:
    """Return the map of a row as a thumbnail; ``names``: of its photo, and of the part of its row."""
    name, part_name = names
    has_scale = level is not None and not np.isnan(part.scale[row])
    scale = float(part.scale[row]) if has_scale else 1.0
    p, box = percentage(float(part.probability[row])), part.box_of(row)
    return Thumbnail(
        photo=photo,
        level=None if level is None else level * np.float32(scale),
        unit=map_unit(part, row) if has_scale else None,
        signed=part.signed,
        seen=_scaled(part.region(row), factor),
        name=name,
        caption=f"{part_name}: {heading(part.label(row))}{p}" if part_name else f"{heading(part.label(row))}{p}",
        cautions=part.cautions(row) if part_name else [*portrait.cautions(part, row), *portrait.sanity(part)],
        box=None if box is None else (box[0] * factor, box[1] * factor, box[2] * factor, box[3] * factor),
        top=scale if part.is_blank[row] else scale * portrait.brightest_of(part, row),
    )


def _scaled(seen: Seen, factor: float) -> Seen:
    x1, y1, x2, y2 = (round(v * factor) for v in seen)
    return x1, y1, x2, y2
