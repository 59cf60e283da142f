"""The pairs that agree least, with their maps: what a reader looks at first where two builds differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnx_gradcam.errors import OutputError, one_line
from onnx_gradcam.jobs.compare.pairs import Pair
from onnx_gradcam.results import portrait, titles
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.picture import figure
from onnx_gradcam.results.picture.figure import Panel
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.picture.style import PLAIN, Style

COLOURS = "A and B: each divided by its own maximum; A − B: orange where A has more, blue where B has more"


@dataclass(frozen=True, eq=False, repr=False)
class WorstPair:
    """Two maps that agree little, with all that they were made from.

    Attributes:
        pair: the numbers.
        a, b: the explanation of each model, of one row.
    """

    pair: Pair
    a: Explanation
    b: Explanation

    def __repr__(self) -> str:
        return one_line(self)

    @property
    def draws(self) -> bool:
        """Return whether the maps can be drawn: they have two spatial axes."""
        return self.a.heatmap.ndim == 3

    def figure(self, style: Style = PLAIN) -> Picture:
        """Return the map of A, that of B, and their difference, side by side.

        Args:
            style: how photo and maps are drawn, and whether there are captions. The photo is grey by default: one of
                the maps is signed.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            OutputError: the maps do not have two spatial axes.
        """
        if not self.draws:
            raise OutputError("maps without two spatial axes are not drawn", hint="a.heatmap and b.heatmap hold them")
        style = replace(style, photo=style.photo_under(signed=True))
        row = [_side(name, side, style) for name, side in (("A", self.a), ("B", self.b))]
        row.append(_difference(self.a, self.b, style))
        cautions = tuple(dict.fromkeys([*_disagreement(self.pair), *_cautions(self.a), *_cautions(self.b)]))
        if not style.caption:
            return figure.bare(row, cautions)
        return figure.panels(row, figure.Lines(_title(self.pair, self.a), [COLOURS], cautions))


def worst_of(pairs: Iterable[Pair], count: int) -> list[Pair]:
    """Return the pairs that agree least, the worst first; pairs that were not measured, both maps blank, are left out.

    They are ordered by the correlation of their maps, and where that is the same by the distance of the peaks.
    """
    measured = [pair for pair in pairs if pair.pearson is not None]
    return sorted(measured, key=lambda pair: (pair.pearson, -(pair.distance or 0.0)))[:count]


def _side(name: str, side: Explanation, style: Style) -> Panel:
    picture, seen = side.picture(0), side.region(0)
    size = figure.panel_size(picture, figure.LONG_SIDE_IN_A_ROW)
    top = portrait.brightest_of(side, 0)
    first, how, *_, where = titles.title(side, 0)
    panel = figure.map_panel(
        picture,
        np.clip(portrait.level_of(side, 0, size) / top, -1, 1),
        seen=seen,
        signed=side.signed,
        long_side=figure.LONG_SIDE_IN_A_ROW,
        caption=[f"{name}: {Path(side.provenance.model).name}", first, how, where],
        scale=portrait.scale_of(side, 0, top),
        style=style,
    )
    if (box := side.box_of(0)) is not None:
        figure.draw_box(panel.picture, box, panel.picture.shape[1] / picture.shape[1])
    return panel


def _difference(a: Explanation, b: Explanation, style: Style) -> Panel:
    picture = a.picture(0)
    size = figure.panel_size(picture, figure.LONG_SIDE_IN_A_ROW)
    return figure.map_panel(
        picture,
        np.clip(figure.resize_map(a.heatmap[0] - b.heatmap[0], size), -1, 1),
        signed=True,
        long_side=figure.LONG_SIDE_IN_A_ROW,
        caption=["A − B"],
        style=style,
    )


def _title(pair: Pair, a: Explanation) -> list[str]:
    number = f" [{pair.image_index}]" if pair.image_index else ""
    numbers = f"pearson {pair.pearson:.3f}   iou {pair.iou:.3f}   distance {pair.distance:.3f}"
    return [f"{Path(pair.image).name}{number}: {a.name(0)}", f"{a.method}   {numbers}"]


def _disagreement(pair: Pair) -> list[str]:
    top1 = f"top-1 differs: class {pair.top1_a} in A, class {pair.top1_b} in B" if pair.top1_a != pair.top1_b else ""
    return list(filter(None, [top1, pair.note]))


def _cautions(side: Explanation) -> list[str]:
    return portrait.cautions(side, 0)
