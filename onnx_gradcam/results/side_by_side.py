"""Several maps of the same photos in one picture, at one scale."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import one_line
from onnx_gradcam.results import account, files, portrait, store, titles
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.picture import figure
from onnx_gradcam.results.picture.figure import Panel
from onnx_gradcam.results.picture.overlay import Picture, encode_png
from onnx_gradcam.results.picture.style import PLAIN, Style
from onnx_gradcam.results.provenance import Provenance
from onnx_gradcam.results.scales import join_peaks

Array = npt.NDArray[Any]
BOTH, CONTRAST = "both", "contrast"
WEAK = 0.5
"""A difference whose largest magnitude lies below this share of the scale is drawn again, with its own scale."""
REMARKS = {
    BOTH: "on the right: what speaks for it minus what speaks against it",
    CONTRAST: "difference: the map of the score difference; orange speaks for the first, blue for the second",
}


@dataclass(frozen=True, eq=False, repr=False)
class SideBySide:
    """Three maps of each photo, drawn at one scale; R rows, one for each (image, target).

    Attributes:
        kind: "both" or "contrast".
        parts: three explanations of R rows each, by name, in order. In each row their heatmaps share one scale: the
            largest magnitude of the three is 1. Their ``scale`` is the same.
        remark: a line below the figure, "" for none.
        warnings: what the user should know, one sentence each.
    """

    kind: str
    parts: Mapping[str, Explanation]
    remark: str = ""
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.first)

    @property
    def first(self) -> Explanation:
        """Return the first explanation, which the others are compared with."""
        return next(iter(self.parts.values()))

    def figure(self, row: int = 0, style: Style = PLAIN) -> Picture:
        """Return the maps of a row in one picture, with captions and colour bars.

        Args:
            row: which row.
            style: how photo and maps are drawn, and whether there are captions. The photo is grey by default: one of
                the maps is signed.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            OutputError: the maps do not have two spatial axes.
        """
        style = replace(style, photo=style.photo_under(signed=True))
        photo, seen = self.first.picture(row), self.first.region(row)
        size = figure.panel_size(photo, figure.LONG_SIDE_IN_A_ROW)
        levels = portrait.levels_of(list(self.parts.values()), row, size)
        panels = [
            self._panel(row, part, level, self._caption(name, row), style)
            for (name, part), level in zip(self.parts.items(), levels, strict=True)
        ]
        last, level = list(self.parts.values())[-1], levels[-1]
        peak = float(np.abs(last.heatmap[row]).max())
        if 0 < peak < WEAK:
            caption = ["the same, with its own scale:", f"colours {1 / peak:.1f} times as strong"]
            panels.append(self._panel(row, last, np.clip(level / peak, -1, 1), caption, style, peak))
        if not style.caption:
            return figure.bare(panels, self.cautions(row))
        notes = [
            f"one scale; {REMARKS[self.kind]}",
            *portrait.cells_note(self.first, row),
            *figure.unseen_note(photo, seen),
        ]
        notes = [self.remark, *notes] if self.remark else notes
        return figure.panels(panels, figure.Lines(self._title(row), notes, self.cautions(row)))

    def cautions(self, row: int) -> tuple[str, ...]:
        """Return the lines that must stand in the picture of a row, since they change how its maps are read."""
        return tuple(dict.fromkeys(line for part in self.parts.values() for line in part.cautions(row)))

    @property
    def provenance(self) -> Provenance:
        """Return the record of the model and the run that the parts come from."""
        return self.first.provenance

    def account(self) -> dict[str, Any]:
        """Return what the manifest says of model, score, layers and method, ready for JSON."""
        return self.first.account()

    def sheets(self) -> list[files.Sheet]:
        """Return what is written: for each row one figure and the heatmaps of all parts."""
        draws = self.first.heatmap.ndim == 3
        method = self.first.method.replace(" ", "-")
        return [
            files.Sheet(
                title=self._sheet_title(row),
                method=f"{method}-both" if self.kind == BOTH else method,
                target=self._sheet_target(row),
                images=int(self.first.image_index.max(initial=0)) + 1,
                views=self.first.frame.views,
                figure=partial(self.figure, row) if draws else None,
                maps={name: part.map_file(row) for name, part in self.parts.items()},
            )
            for row in range(len(self))
        ]

    def _sheet_title(self, row: int) -> str:
        (name_a, a), (name_b, b) = list(self.parts.items())[:2]
        return a.label(row) if self.kind == BOTH else f"{name_a} {a.label(row)}, {name_b} {b.label(row)}"

    def _sheet_target(self, row: int) -> str:
        a, b = list(self.parts.values())[:2]
        first, second = (files.slug(part.target(row)) for part in (a, b))
        return first if self.kind == BOTH else f"{first}-vs-{second}"

    def save(
        self,
        folder: str | os.PathLike[str],
        overwrite: bool = False,
        scale: str | float = "image",
        style: Style = PLAIN,
    ) -> Path:
        """Write a PNG for each row and an NPY for each map, and ``manifest.json`` last.

        Args:
            folder: where to write; it is made where it does not exist.
            overwrite: whether existing results are replaced.
            scale: what the maps are divided by: the largest maximum of each row ("image") or of all rows ("shared"), or
                a number in the score's units.
            style: how photo and maps are drawn, and whether there are captions.

        Returns:
            The path of the manifest.

        Raises:
            OutputError: the folder cannot be written, or holds results already.
            MethodError: the scale is unknown, or the maps have no scale in the score's units.
        """
        return store.save([self], Path(folder), scale=scale, overwrite=overwrite, style=style)

    def at_scale(self, scale: float | Mapping[str, float]) -> SideBySide:
        """Return the same maps with another scale, as ``Explanation.at_scale``."""
        return replace(self, parts={k: part.at_scale(scale) for k, part in self.parts.items()})

    def peaks(self) -> Mapping[str, float]:
        """Return for each unit of the maps their largest scale, as ``Explanation.peaks``."""
        return join_peaks(part.peaks() for part in self.parts.values())

    def to_png(self, row: int = 0, style: Style = PLAIN) -> bytes:
        """Return the figure of a row as a PNG file. Raises ``OutputError`` as ``figure`` does."""
        return encode_png(self.figure(row, style))

    def as_dict(self) -> dict[str, Any]:
        """Return all but the arrays, ready for JSON: the account of the run, one record for each map, the warnings."""
        rows = [{**part.record(k), "part": name} for k in range(len(self)) for name, part in self.parts.items()]
        return {**self.account(), "rows": rows, "warnings": list(self.warnings)}

    def __repr__(self) -> str:
        return one_line(self)

    def _repr_html_(self) -> str:
        draws = self.first.heatmap.ndim == 3
        rows = ((self._title(row), self.figure(row) if draws else None) for row in range(len(self)))
        return account.page(rows, self.warnings)

    def _panel(
        self, row: int, part: Explanation, level: Array, caption: Sequence[str], style: Style, peak: float = 1
    ) -> Panel:
        photo, box = self.first.picture(row), part.box_of(row)
        panel = figure.map_panel(
            photo,
            level,
            seen=self.first.region(row),
            signed=part.signed,
            long_side=figure.LONG_SIDE_IN_A_ROW,
            caption=caption,
            scale=portrait.scale_of(self.first, row, peak),
            style=style,
        )
        if box is not None:
            figure.draw_box(panel.picture, box, panel.picture.shape[1] / photo.shape[1])
        return panel

    def _title(self, row: int) -> list[str]:
        names = [f"{name} {part.name(row)}" for name, part in list(self.parts.items())[:2]]
        first, how, *where = titles.title(self.first, row)
        return [first, how, *where] if self.kind == BOTH else [", ".join(names), self.first.method, *where]

    def _caption(self, name: str, row: int) -> list[str]:
        blank = " (blank)" * bool(self.parts[name].is_blank[row])
        if self.kind == BOTH:
            return [{"for": "speaks for it", "against": "speaks against it"}.get(name, "for minus against") + blank]
        part = self.parts[name]
        suffix = titles.percentage(float(part.probability[row]))
        target = "" if part is self.parts.get("difference") else f": {part.name(row)}"
        return [f"{name}{target}{blank}", f"score {float(part.score[row]):.3g}{suffix}"]
