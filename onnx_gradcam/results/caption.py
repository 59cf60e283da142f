"""A sentence about a photo, explained: the maps of all its words in one picture."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx_gradcam.errors import OutputError
from onnx_gradcam.results import account, contact, files, store
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.picture.contact import contact_sheet
from onnx_gradcam.results.picture.overlay import Picture, encode_png
from onnx_gradcam.results.picture.style import PLAIN, Style
from onnx_gradcam.results.provenance import Provenance
from onnx_gradcam.results.titles import percentage

COLUMNS = 5
"""How many maps stand in a line of the picture."""
SENTENCE = "sentence"


@dataclass(frozen=True, eq=False, repr=False)
class Caption:
    """The maps of a sentence: that of the whole, and that of each word.

    Attributes:
        explanation: one row for the sentence, then one for each word, in order. The scores are logits.
        words: the words.
        is_own: whether the model itself said the sentence.
    """

    explanation: Explanation
    words: tuple[str, ...]
    is_own: bool

    @property
    def text(self) -> str:
        """Return the sentence."""
        return " ".join(self.words)

    @property
    def whole(self) -> Explanation:
        """Return the explanation of the sentence as a whole, in one row."""
        return self.explanation[0]

    def word(self, number: int) -> Explanation:
        """Return the explanation of a word, in one row; words are counted from 0."""
        return self.explanation[1 + number]

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"<Caption {self.text!r} by {self.explanation.method}>"

    def figure(self, style: Style = PLAIN) -> Picture:
        """Return the maps of the sentence and of its words in one picture, in reading order.

        Each map has its own scale: the sum of the logits of all words would make theirs look weak.

        Args:
            style: how photo and maps are drawn.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            OutputError: the maps do not have two spatial axes.
        """
        thumbnails = contact.thumbnails(self.explanation)
        if not thumbnails:
            raise OutputError("maps without two spatial axes cannot be drawn", hint="the .npy files hold the numbers")
        return contact_sheet(thumbnails, columns=COLUMNS, title=self._title(), style=style)

    def _title(self) -> list[str]:
        who = "the model's own words" if self.is_own else "a given sentence"
        p = percentage(float(self.explanation.probability[0]))
        return [f"{self.text}{p}", who, *contact.title_of(self.explanation)]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what the user should know, one sentence each."""
        return self.explanation.warnings

    @property
    def provenance(self) -> Provenance:
        """Return the record of the model and the run that the maps come from."""
        return self.explanation.provenance

    def account(self) -> dict[str, Any]:
        """Return what the manifest says of model, score, layers and method, ready for JSON."""
        return self.explanation.account()

    def sheets(self) -> list[files.Sheet]:
        """Return what is written: one picture, and the map of the sentence and of each word."""
        names = [SENTENCE, *(f"{number}-{files.slug(word)}" for number, word in enumerate(self.words, 1))]
        return [
            files.Sheet(
                title=self.text,
                method=self.explanation.method.replace(" ", "-"),
                target=f"caption-{files.slug(self.text)}",
                images=1,
                figure=self.figure if self.explanation.heatmap.ndim == 3 else None,
                maps={name: self.explanation.map_file(row) for row, name in enumerate(names)},
            )
        ]

    def save(
        self,
        folder: str | os.PathLike[str],
        scale: str | float = "image",
        overwrite: bool = False,
        style: Style = PLAIN,
    ) -> Path:
        """Write one PNG, an NPY for the sentence and for each word, and ``manifest.json`` last.

        Args:
            folder: where to write; it is made where it does not exist.
            scale: as in ``Explanation.save``.
            overwrite: whether existing results are replaced.
            style: how photo and maps are drawn.

        Returns:
            The path of the manifest.

        Raises:
            OutputError: the folder cannot be written, or holds results already.
            MethodError: the scale is unknown, or the maps have no scale in the score's units.
        """
        return store.save([self], Path(folder), scale=scale, overwrite=overwrite, style=style)

    def at_scale(self, scale: float | Mapping[str, float]) -> Caption:
        """Return the same maps with another scale, as ``Explanation.at_scale``."""
        return replace(self, explanation=self.explanation.at_scale(scale))

    def peaks(self) -> Mapping[str, float]:
        """Return for each unit of the maps their largest scale, as ``Explanation.peaks``."""
        return self.explanation.peaks()

    def to_png(self, style: Style = PLAIN) -> bytes:
        """Return the picture as a PNG file. Raises ``OutputError`` as ``figure`` does."""
        return encode_png(self.figure(style))

    def as_dict(self) -> dict[str, Any]:
        """Return all but the arrays, ready for JSON: the sentence, and what ``Explanation.as_dict`` says of it."""
        return {"caption": self.text, "is_own": self.is_own, **self.explanation.as_dict()}

    def _repr_html_(self) -> str:
        draws = self.explanation.heatmap.ndim == 3
        return account.page([(self._title(), self.figure() if draws else None)], self.warnings)
