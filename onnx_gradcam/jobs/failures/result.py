"""The mistakes of a model, as plain data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_gradcam.jobs.explain import RESULTS
from onnx_gradcam.jobs.failures.pictures import failure_sheet
from onnx_gradcam.jobs.saving import save_document
from onnx_gradcam.results.journal import FAILURES
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.picture.style import PLAIN, Style
from onnx_gradcam.results.side_by_side import SideBySide

SCHEMA_OF_FAILURES = 1
SHEET = "failures.png"


@dataclass(frozen=True, eq=False)
class Failure:
    """A photo of which the model puts another class first than those that the data name.

    Attributes:
        image: the photo.
        predicted, true: the class that the model puts first, and of those that the data name the most probable.
        predicted_label, true_label: their labels.
        predicted_probability, true_probability: what the model gives them; their scores where it gives none.
        rank: how many classes the model puts before the true one.
        sides: what speaks for and what against them: two rows, the predicted class and the true one; None for the
            mistakes beyond the limit.
    """

    image: str
    predicted: int
    true: int
    predicted_label: str
    true_label: str
    predicted_probability: float
    true_probability: float
    rank: int
    sides: SideBySide | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return all but the maps, ready for JSON."""
        return {
            "image": self.image,
            "predicted": {
                "class_index": self.predicted,
                "label": self.predicted_label,
                "probability": self.predicted_probability,
            },
            "true": {"class_index": self.true, "label": self.true_label, "probability": self.true_probability},
            "rank": self.rank,
            "explained": self.sides is not None,
        }


@dataclass(frozen=True, eq=False, repr=False)
class FailureReport:
    """The mistakes of a model on labelled photos, the most confident first.

    Attributes:
        model: the model's name.
        sha256: of the model file.
        method: the method of the maps.
        photos: how many labelled photos were read.
        failures: the mistakes.
        errors: photos that could not be judged, each with the reason.
        warnings: what the user should know.
        versions: as in ``Provenance``.
        request: what was asked for, ready for JSON.
    """

    model: str
    sha256: str
    method: str
    photos: int
    failures: tuple[Failure, ...]
    errors: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.failures)

    def __repr__(self) -> str:
        return f"<FailureReport of {self.model!r}: {self}>"

    def __str__(self) -> str:
        """Return in one line how many mistakes there are."""
        if not self.failures:
            return f"no mistake on {self.photos} photos"
        share = 1 - len(self.failures) / self.photos
        shown = len(self.explained)
        which = "" if shown == len(self.failures) else f"; the {shown} most confident are explained"
        return f"{len(self.failures)} mistakes on {self.photos} photos (accuracy {share:.3f}){which}"

    @property
    def explained(self) -> tuple[Failure, ...]:
        """Return the mistakes with maps."""
        return tuple(failure for failure in self.failures if failure.sides is not None)

    def sheet(self, style: Style = PLAIN) -> Picture | None:
        """Return one picture of all explained mistakes, a line for each; None where no map can be drawn.

        Args:
            style: how photos and maps are drawn.

        Returns:
            (height, width, 3) uint8 RGB.
        """
        lines = [
            (Path(each.image).name, each.predicted_label, each.true_label, each.sides)
            for each in self.failures
            if each.sides is not None
        ]
        return failure_sheet(lines, (str(self), f"{self.method}, model {Path(self.model).name}", *self.warnings), style)

    def as_dict(self) -> dict[str, Any]:
        """Return the mistakes as JSON has them; its JSON Schema is described in ``docs/formats.md``."""
        return {
            "schema_version": SCHEMA_OF_FAILURES,
            "model": self.model,
            "sha256": self.sha256,
            "versions": dict(self.versions),
            "request": dict(self.request),
            "method": self.method,
            "photos": self.photos,
            "mistakes": len(self.failures),
            "rows": [each.as_dict() for each in self.failures],
            "png": None,
            "errors": [{"image": image, "error": error} for image, error in self.errors],
            "warnings": list(self.warnings),
            "files": {},
        }

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False, style: Style = PLAIN) -> Path:
        """Write the sheet, ``failures.png``, and ``failures.json`` last.

        Args:
            folder: where to write; it is made where it does not exist.
            overwrite: whether an earlier report is replaced.
            style: how photos and maps are drawn.

        Returns:
            The path of ``failures.json``.

        Raises:
            OutputError: the folder cannot be written, or holds such a report already.
        """
        sheet = self.sheet(style)
        pictures: dict[str, Picture | bytes] = {} if sheet is None else {SHEET: sheet}
        content = {**self.as_dict(), "png": None if sheet is None else SHEET}
        return save_document(content, FAILURES, pictures, Path(folder), overwrite)


def default_folder(model: str | os.PathLike[str], method: str) -> Path:
    """Return where mistakes go if the user names no folder: onnx-gradcam-out/<model>-<method>-failures."""
    return RESULTS / f"{Path(model).stem}-{method}-failures"
