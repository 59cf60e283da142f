"""How the pictures of a run are drawn, and the scale that its maps share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx_gradcam.errors import OnnxGradcamError
from onnx_gradcam.results.caption import Caption
from onnx_gradcam.results.contact import sheet_of, thumbnails, title_of
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.picture.contact import Thumbnail
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.picture.style import PLAIN, Style
from onnx_gradcam.results.scales import IMAGE, SHARED, Scales, join_peaks, read_scale
from onnx_gradcam.results.side_by_side import SideBySide

Result = Explanation | SideBySide | Caption
CLOSE = 1e-5  # scales are float32, and another run rounds differently
PAGE = 60
"""How many maps stand on a page of a contact sheet, or a few more: those of one image are not parted."""


@dataclass(frozen=True)
class Pictures:
    """What a user wants of the pictures, as plain data.

    Attributes:
        photo, colormap, alpha, caption: as for ``Style``.
        scale: "image", "shared" or a number as text; None: each file has its own scale, a contact sheet one.
        sheet: whether a contact sheet is written, too.
    """

    photo: str | None = None
    colormap: str = PLAIN.colormap
    alpha: float = PLAIN.alpha
    caption: bool = True
    scale: str | None = None
    sheet: bool = False

    @property
    def style(self) -> Style:
        """Return the style. Raises ``OutputError`` for an unknown name."""
        return Style(self.photo, self.colormap, self.alpha, self.caption)

    @property
    def file_scale(self) -> str | float:
        """Return the scale of maps in files of their own. Raises ``MethodError`` for an unknown one."""
        return read_scale(self.scale or IMAGE)

    @property
    def sheet_scale(self) -> str | float:
        """Return the scale of a contact sheet. Raises ``MethodError`` for an unknown one."""
        return read_scale(self.scale or SHARED)

    def check(self) -> None:
        """Check all words.

        Raises:
            OutputError: a name is unknown, or the opacity is out of its range.
            MethodError: the scale is unknown.
        """
        _ = self.style, self.file_scale


def scales_of_run(
    pictures: Pictures, explain_all: Callable[[], Iterable[Result | OnnxGradcamError]]
) -> float | Scales | None:
    """Return the scale of all maps of a run: a number, or for "shared" the largest value of each unit; None: its own.

    Args:
        pictures: what the user wants.
        explain_all: explains every image, for "shared"; those that cannot be explained are left out here, and named
            when the results are written.

    Raises:
        MethodError: the maps have no scale in the score's units.
    """
    scale = pictures.file_scale
    if scale == SHARED:
        return join_peaks(result.peaks() for result in explain_all() if not isinstance(result, OnnxGradcamError))
    return None if isinstance(scale, str) else scale


def has_scale(entry: Mapping[str, Any], scales: float | Scales | None) -> bool:
    """Tell whether the maps of an image, as the manifest names them, were written at the scale of a run."""
    if scales is None:
        return True
    numbers = list(scales.values()) if isinstance(scales, Mapping) else [scales]
    return all(
        row["is_blank"] or any(math.isclose(row["scale"], number, rel_tol=CLOSE) for number in numbers)
        for row in entry["rows"]
    )


@dataclass
class Pages:
    """The pages of a contact sheet while a run goes on: no more than one page of thumbnails is held.

    Attributes:
        pictures: how they are drawn.
        scales: the scale of the run, where it has one.
        waiting: the thumbnails that stand on no page yet.
        title: the lines above each page.
        columns: how many maps an image has.
    """

    pictures: Pictures
    scales: float | Scales | None = None
    waiting: list[Thumbnail] = field(default_factory=list)
    title: Sequence[str] = ()
    columns: int = 1

    def add(self, result: Result, name: str) -> list[Picture]:
        """Take the maps of an image where a contact sheet is wanted, and return a page where one is full."""
        if not self.pictures.sheet:
            return []
        shown = result.explanation if isinstance(result, Caption) else result
        small = thumbnails(shown, name)
        self.title = self.title or title_of(shown)
        self.columns = max(self.columns, len(small))
        self.waiting += small
        return self.rest() if len(self.waiting) >= PAGE else []

    def rest(self) -> list[Picture]:
        """Return a page of the maps that stand on none yet; none where there are no such maps."""
        if not self.waiting:
            return []
        scale = self.pictures.sheet_scale if self.scales is None else self.scales
        page = sheet_of(self.waiting, self.title, columns=self.columns, scale=scale, style=self.pictures.style)
        self.waiting, self.columns = [], 1
        return [page]
