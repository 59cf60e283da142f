"""Results on disk: a PNG and an NPY for each row, and ``manifest.json`` last. A file is written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import OnnxGradcamError, OutputError, one_line
from onnx_gradcam.results.picture import overlay
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.picture.style import PLAIN, Style
from onnx_gradcam.results.provenance import Provenance
from onnx_gradcam.results.scales import IMAGE, SHARED, Scales, join_peaks, read_scale

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Subject:
    """An image that was explained, as the manifest names it.

    Attributes:
        stem: the first part of the names of its files.
        path: where the image comes from; None for arrays.
        sha256: the hash of the image file, as hex digits; None for arrays.
    """

    stem: str
    path: str | None = None
    sha256: str | None = None


def stems(paths: Sequence[Path]) -> list[str]:
    """Return a name for the results of each file; equal names get 8 hex digits of the hash of their path."""
    names = [path.stem for path in paths]
    return [
        stem if names.count(stem) == 1 else f"{stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        for path, stem in zip(paths, names, strict=True)
    ]


def sha256(path: Path) -> str:
    """Return the sha256 of a file, as hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_folder(folder: Path, overwrite: bool) -> None:
    """Raise ``OutputError`` where ``folder`` cannot be written or holds results already; call it before any work."""
    if (folder / MANIFEST).exists() and not overwrite:
        raise OutputError(
            f"{str(folder)!r} already holds results",
            hint="--overwrite, or another folder with -o DIR",
            folder=folder,
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to {str(folder)!r}: {error.strerror}",
            hint="another folder with -o DIR",
            folder=folder,
        ) from None


@dataclass(frozen=True, eq=False, repr=False)
class MapFile:
    """One map as it is written to a file.

    Attributes:
        heatmap: (*size) float32 in [−1, 1].
        attribution: (*input shape) float32 for methods of the input; None for others.
        method: the method that made it, for messages.
        record: what the manifest says of it; "image_index" among it is read here, too.
    """

    heatmap: npt.NDArray[Any]
    attribution: npt.NDArray[Any] | None
    method: str
    record: Mapping[str, Any]

    def __repr__(self) -> str:
        return one_line(self)


@dataclass(frozen=True, eq=False)
class Sheet:
    """The files of one row: a picture, and the numbers of one or several maps.

    Attributes:
        title: what was explained, in words.
        method: the method as it stands in file names.
        target: the target as it stands in file names.
        images: how many images the result has; where there are several, their numbers stand in file names.
        figure: a function that draws the picture in a style; None where maps cannot be drawn.
        maps: the maps, by the part of the file name before ``.npy``; "" for a single map.
    """

    title: str
    method: str
    target: str
    images: int
    figure: Callable[[Style], Picture] | None
    maps: Mapping[str, MapFile]


class Result(Protocol):
    """A result that can be written."""

    @property
    def warnings(self) -> Sequence[str]:
        """Return what the user should know, one sentence each."""

    @property
    def provenance(self) -> Provenance:
        """Return the record of the model and the run that the result comes from."""

    def account(self) -> Mapping[str, Any]:
        """Return what the manifest says of model, score, layers and method."""

    def sheets(self) -> Sequence[Sheet]:
        """Return the files of each row."""

    def peaks(self) -> Scales:
        """Return for each unit of the maps their largest scale."""

    def at_scale(self, scale: float | Scales) -> Result:
        """Return the same maps with another scale."""


def save(
    results: Sequence[Result],
    folder: Path,
    *,
    of: Sequence[Subject] | None = None,
    scale: str | float = IMAGE,
    overwrite: bool = False,
    style: Style = PLAIN,
    errors: Sequence[tuple[str, OnnxGradcamError]] = (),
    request: dict[str, Any] | None = None,
) -> Path:
    """Write all results into a folder, the manifest last, and return the path of the manifest.

    Raises ``OutputError`` where the folder cannot be written or holds results already.
    """
    check_folder(folder, overwrite)
    of = of or [Subject("explanation" if len(results) == 1 else f"explanation-{i}") for i in range(len(results))]
    scale = read_scale(scale)
    scales = join_peaks(result.peaks() for result in results) if scale == SHARED else scale
    scaled = results if isinstance(scales, str) else [result.at_scale(scales) for result in results]
    written = [write_rows(r, subject, folder, overwrite, style) for r, subject in zip(scaled, of, strict=True)]
    return write_manifest(folder, results, written, errors=errors, request=request or {})


def write_rows(
    result: Result,
    subject: Subject,
    folder: Path,
    overwrite: bool = False,
    style: Style = PLAIN,
) -> dict[str, Any]:
    """Write the PNG and the NPYs of every row, and return the manifest's entry for the subject."""
    rows = []
    for sheet in result.sheets():
        stem = _stem(sheet, subject)
        if sheet.figure is not None:
            _write(folder / f"{stem}.png", overlay.encode_png(sheet.figure(style)), overwrite)
        for part, entry in sheet.maps.items():
            name = f"{stem}.{part}.npy" if part else f"{stem}.npy"
            _write(folder / name, _npy(entry.heatmap), overwrite)
            files = {"part": part or None, "png": f"{stem}.png" if sheet.figure else None, "npy": name}
            if entry.attribution is not None:
                beside = f"{name.removesuffix('.npy')}.attribution.npy"
                _write(folder / beside, _npy(entry.attribution), overwrite)
                files["attribution"] = beside
            rows.append({**entry.record, **files})
    preprocess = result.provenance.preprocess
    return {
        "image": subject.path,
        "sha256": subject.sha256,
        "rows": rows,
        "preprocess": preprocess.record() if preprocess else None,
        "warnings": list(result.warnings),
    }


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _stem(sheet: Sheet, subject: Subject) -> str:
    index = next(iter(sheet.maps.values())).record["image_index"]
    image = f"-{index}" if sheet.images > 1 else ""
    return f"{subject.stem}{image}.{sheet.method}.{sheet.target}"


def slug(target: str) -> str:
    """Return a target as it stands in file names, made of [a-z0-9-]."""
    return _slug(f"minus {target[1:]}" if target.startswith("-") else target)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def write_manifest(
    folder: Path,
    results: Sequence[Result],
    written: Sequence[dict[str, Any]],
    *,
    errors: Sequence[tuple[str, OnnxGradcamError]],
    request: dict[str, Any],
) -> Path:
    """Write ``manifest.json`` and return its path; its JSON Schema is described in ``docs/formats.md``."""
    account = dict(results[0].account()) if results else {}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "versions": account.pop("versions", {}),
        "model": account.pop("model", None),
        "request": request,
        **account,
        "results": list(written),
        "errors": [_error(name, error) for name, error in errors],
    }
    path = folder / MANIFEST
    _write(path, (json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(), overwrite=True)
    return path


def _error(image: str, error: OnnxGradcamError) -> dict[str, str]:
    return {
        "image": image,
        "error": type(error).__name__,
        "what": error.what,
        "where": error.where,
        "try": error.hint,
    }


def _write(path: Path, data: bytes, overwrite: bool) -> None:
    """Write a file under another name, then rename it: so it is there whole or not at all."""
    if path.exists() and not overwrite:
        raise OutputError(f"{str(path)!r} already exists", hint="--overwrite, or another folder with -o DIR", path=path)
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OutputError(f"cannot write {str(path)!r}: {error.strerror}", hint="another folder", path=path) from None
