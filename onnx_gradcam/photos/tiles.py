"""A photo in tiles, and maps of tiles joined to one without seams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import InputError, one_line

Float = NDArray[np.float32]
DEFAULT_OVERLAP = 4
"""Without a number of its own the overlap is one part in so many of a tile."""


@dataclass(frozen=True)
class Tiling:
    """How a photo is cut into tiles.

    >>> Tiling.read("512,128")
    Tiling(size=512, overlap=128)

    Attributes:
        size: the side of a tile, in pixels of the photo.
        overlap: how many pixels two neighbours share, at most half of a tile.

    Raises:
        InputError: a number is out of its range.
    """

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if not (self.size >= 1 and 0 <= self.overlap <= self.size // 2):
            what = f"tiles of {self.size} pixels cannot share {self.overlap}"
            raise InputError(what, hint="a size of 1 or more, and an overlap of at most half of it", tiling=self)

    @classmethod
    def read(cls, text: str) -> Tiling:
        """Return the tiling that a text SIZE or SIZE,OVERLAP says. Raises ``InputError`` for another text."""
        size, comma, overlap = text.partition(",")
        if not size.strip().isdecimal() or (comma and not overlap.strip().isdecimal()):
            raise InputError(f"--tile {text!r} is not SIZE or SIZE,OVERLAP", hint="--tile 512,128", tile=text)
        return cls(int(size), int(overlap) if comma else int(size) // DEFAULT_OVERLAP)

    def boxes(self, height: int, width: int) -> NDArray[np.int64]:
        """Return the tiles of a photo, (T, 4) int64: x1, y1, x2, y2 in its pixels, row by row.

        All have the full size, the last ones in a row share more; a side that is shorter than a tile has one.
        """
        ys, xs = (list(self._spans(length)) for length in (height, width))
        return np.array([(x1, y1, x2, y2) for (y1, y2), (x1, x2) in product(ys, xs)])

    def _spans(self, length: int) -> Iterator[tuple[int, int]]:
        step, start = self.size - self.overlap, 0
        while start + self.size < length:
            yield start, start + self.size
            start += step
        yield max(0, length - self.size), length

    def weight(self, box: NDArray[np.int64], height: int, width: int) -> Float:
        """Return how much each pixel of a tile counts, (h, w) float32 in [0, 1].

        Toward a neighbour it falls from 1 to 0 over the middle half of the overlap: the outermost quarter counts
        nothing, where a tile lacks what lies beyond its border. At the border of the photo it stays 1.
        """
        x1, y1, x2, y2 = (int(v) for v in box)
        return np.outer(self._ramp(y1, y2, height), self._ramp(x1, x2, width)).astype(np.float32)

    def _ramp(self, start: int, end: int, length: int) -> NDArray[np.float64]:
        middles = np.arange(end - start) + 0.5
        quarter = max(self.overlap / 4, 1e-6)
        before = np.clip((middles - quarter) / (2 * quarter), 0, 1) if start > 0 else 1.0
        after = np.clip((end - start - middles - quarter) / (2 * quarter), 0, 1) if end < length else 1.0
        return np.ones(end - start) * before * after


@dataclass(frozen=True, eq=False, repr=False)
class Tiles:
    """The tiles that a map was joined from.

    Attributes:
        tiling: their size and their overlap.
        boxes: (T, 4) int64, x1, y1, x2, y2 in pixels of the photo.
        score: (T, R) float32, the score of each row in each tile.
        probability: (T, R) float32; NaN where there is none.
    """

    tiling: Tiling
    boxes: NDArray[np.int64]
    score: Float
    probability: Float

    def __repr__(self) -> str:
        return one_line(self)

    def rows(self, rows: NDArray[Any]) -> Tiles:
        """Return the tiles of some of the rows."""
        return Tiles(self.tiling, self.boxes, self.score[:, rows], self.probability[:, rows])


class Canvas:
    """A map that grows tile by tile: it holds two arrays of the photo's size a row, however many tiles there are.

    Args:
        tiling: how the photo is cut.
        height, width: of the photo.
    """

    def __init__(self, tiling: Tiling, height: int, width: int) -> None:
        self._tiling, self._height, self._width = tiling, height, width
        self._sum: Float | None = None
        self._weight = np.zeros((height, width), np.float32)

    def add(self, box: NDArray[np.int64], maps: NDArray[Any]) -> None:
        """Add the maps of a tile, (R, h, w) in the units of the score."""
        x1, y1, x2, y2 = (int(v) for v in box)
        weight = self._tiling.weight(box, self._height, self._width)
        if self._sum is None:
            self._sum = np.zeros((len(maps), self._height, self._width), np.float32)
        self._sum[:, y1:y2, x1:x2] += maps * weight
        self._weight[y1:y2, x1:x2] += weight

    def joined(self) -> Float:
        """Return the joined maps, (R, height, width) float32."""
        assert self._sum is not None
        return np.asarray(self._sum / np.maximum(self._weight, np.finfo(np.float32).tiny), np.float32)
