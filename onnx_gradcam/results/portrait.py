"""The pictures of the rows of an explanation: overlay, figure with caption, fine detail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import OutputError
from onnx_gradcam.methods.perturbation.table import INPUT_METHODS
from onnx_gradcam.results import notes, titles
from onnx_gradcam.results.drawing import LayerCams, draw_attribution, draw_smoothly
from onnx_gradcam.results.frame import Frame
from onnx_gradcam.results.picture import detail
from onnx_gradcam.results.picture.figure import (
    CLIPPED,
    FRAMED,
    Lines,
    Scale,
    bare,
    brightest,
    figure,
    panel_size,
    panels,
    picture_panel,
    resize_map,
    unseen_note,
)
from onnx_gradcam.results.picture.overlay import Picture, overlay, require_size
from onnx_gradcam.results.picture.style import Style
from onnx_gradcam.results.scales import map_unit

if TYPE_CHECKING:
    from onnx_gradcam.results.explanation import Explanation

Array = npt.NDArray[Any]
Size = tuple[int, int]


def draw_overlay(explanation: Explanation, image: Any, row: int, style: Style) -> Picture:
    """Return the map of a row over its photo, or over ``image``, in the pixels of the heatmap."""
    picture = explanation.picture(row, image)
    require_size(picture, explanation.heatmap[row])
    level = level_of(explanation, row, picture.shape[:2])
    return overlay(picture, level, seen=explanation.region(row), signed=explanation.signed, style=style)


def draw_figure(explanation: Explanation, image: Any, row: int, style: Style) -> Picture:
    """Return the overlay of a row with its caption and a colour bar, or its fine detail where the method shows that."""
    if explanation.has_detail:
        return _detail_figure(explanation, row, style)
    picture = explanation.picture(row, image)
    require_size(picture, explanation.heatmap[row])
    level = level_of(explanation, row, panel_size(picture))
    top = brightest_of(explanation, row)
    remarks = [*([CLIPPED] if top < 1 else []), *cells_note(explanation, row), *tiles_note(explanation)]
    return figure(
        picture,
        np.clip(level / top, -1, 1),
        Lines(titles.title(explanation, row), remarks, cautions(explanation, row)),
        seen=explanation.region(row),
        box=explanation.box_of(row),
        signed=explanation.signed,
        scale=scale_of(explanation, row, top),
        style=style,
    )


def draw_detail(explanation: Explanation, row: int) -> Picture:
    """Return the attribution of a row as a picture of fine detail, in the pixels of the heatmap.

    Raises:
        OutputError: the picture of this method is its heatmap.
    """
    if not explanation.has_detail or explanation.attribution is None:
        raise OutputError(
            f"{explanation.method} has no picture of its own",
            hint="explanation.overlay(); guided-backprop, deconvolution and guided-gradcam have one",
        )
    values = draw_attribution(explanation.frame, explanation.attribution[row])
    return detail.picture(values, explanation.region(row))


def level_of(explanation: Explanation, row: int, size: Size) -> Array:
    """Return the map of a row for a picture of ``size`` (height, width): 1 is the scale of the explanation.

    A cam is drawn with a smooth kernel; an attribution has a value for each pixel already.
    """
    [level] = levels_of([explanation], row, size)
    return level


def levels_of(explanations: Sequence[Explanation], row: int, size: Size) -> list[Array]:
    """Return ``level_of`` for explanations that share one scale."""
    first = explanations[0]
    if first.attribution is not None or not first.layers:
        return [resize_map(explanation.heatmap[row], size) for explanation in explanations]
    which = np.array([row])
    parts: list[tuple[Frame, LayerCams]] = [
        (each.frame.rows(which), [layer.cam[which] for layer in each.layers]) for each in explanations
    ]
    return [drawn[0] for drawn in draw_smoothly(parts, size, first.scale[which])]


def brightest_of(explanation: Explanation, row: int) -> float:
    """Return the value of a heatmap with the strongest colour: 1, a little less for the grains of an input gradient."""
    is_smooth = bool(explanation.layers or explanation.frame.tiles) or explanation.recipe.method in INPUT_METHODS
    return 1.0 if is_smooth else brightest(explanation.heatmap[row], explanation.region(row))


def scale_of(explanation: Explanation, row: int, top: float = 1.0) -> Scale:
    """Return what the colours of a row stand for, up to ``top`` of its heatmap."""
    scale = float(explanation.scale[row])
    if np.isnan(scale):
        return Scale()
    return Scale(scale * top, map_unit(explanation, row))


def cautions(explanation: Explanation, row: int) -> list[str]:
    """Return what changes how the picture of a row must be read, a few words each."""
    blank = [notes.blank_line(explanation.method, explanation.layers)] if explanation.is_blank[row] else []
    return [*blank, *explanation.cautions(row)]


def sanity(explanation: Explanation) -> tuple[str, ...]:
    """Return the caution that fine detail says little about the class; none for other pictures."""
    return notes.SANITY if explanation.has_detail else ()


def cells_note(explanation: Explanation, row: int, drawn: str = "drawn smoothly") -> list[str]:
    """Return the note of how many cells a cam has, and how the picture is drawn between them; none for attributions."""
    if explanation.attribution is not None or not explanation.layers:
        return []
    grids = dict.fromkeys(" × ".join(map(str, layer.cam.shape[1:])) for layer in titles.layers_of_row(explanation, row))
    return [f"{' + '.join(grids)} cells, {drawn}"]


def tiles_note(explanation: Explanation) -> list[str]:
    """Return the note of the tiles that a map was joined from; none for a photo that was explained as a whole."""
    tiles = explanation.frame.tiles
    if tiles is None:
        return []
    return [f"{len(tiles.boxes)} tiles of {tiles.tiling.size} pixels, {tiles.tiling.overlap} of them shared"]


def _detail_figure(explanation: Explanation, row: int, style: Style) -> Picture:
    picture, seen = draw_detail(explanation, row), explanation.region(row)
    panel = picture_panel(picture, seen=seen)
    if not style.caption:
        return bare([panel], [*cautions(explanation, row), *sanity(explanation)])
    framed = [FRAMED] if unseen_note(picture, seen) else []
    remarks = [str(explanation.rectifiers), *framed]
    return panels(
        [panel], Lines(titles.title(explanation, row), remarks, [*cautions(explanation, row), *sanity(explanation)])
    )
