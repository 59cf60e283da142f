"""Results on disk: a PNG and an NPY for each row, and ``manifest.json`` last. Whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import MethodError, OnnxGradcamError, OutputError
from onnx_gradcam.methods.heatmap import normalise
from onnx_gradcam.photos.preprocess.choice import Choice
from onnx_gradcam.results.picture import overlay
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.provenance import Provenance

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Subject:
    """What was explained: a name for its files, and, for files, path and sha256."""

    stem: str
    path: str | None = None
    sha256: str | None = None


def stems(paths: Sequence[Path]) -> list[str]:
    """A name for each file's results; equal stems get 8 hex digits of their path's hash."""
    plain = [path.stem for path in paths]
    return [
        stem if plain.count(stem) == 1 else f"{stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        for path, stem in zip(paths, plain, strict=True)
    ]


def sha256(path: Path) -> str:
    """The hash of a file, as hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_folder(folder: Path, overwrite: bool) -> None:
    """Before any work: raise ``OutputError`` where ``folder`` cannot be written or holds a result already."""
    if (folder / MANIFEST).exists() and not overwrite:
        raise OutputError(
            f"{str(folder)!r} holds results already",
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


@dataclass(frozen=True, eq=False)
class MapFile:
    """One map as it is written.

    Attributes:
        heatmap: (*size) float32 in [−1, 1].
        attribution: (*input shape) float32, for methods of the input.
        method: what made it, for messages.
        record: what the manifest says of it; the keys "scale", "is_blank" and "image_index" are read here, too.
    """

    heatmap: npt.NDArray[Any]
    attribution: npt.NDArray[Any] | None
    method: str
    record: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Sheet:
    """What is written of one row: a picture, and the numbers of one or several maps.

    Attributes:
        title: what was explained, in words.
        method, target: as file names have them.
        images: how many images the result is of: their numbers stand in file names where there are several.
        figure: draws the picture; None where maps cannot be drawn.
        maps: by what goes before ``.npy``.
    """

    title: str
    method: str
    target: str
    images: int
    figure: Callable[[], Picture] | None
    maps: Mapping[str, MapFile]


class Result(Protocol):
    """What can be written."""

    @property
    def warnings(self) -> Sequence[str]:
        """Return what the user should know, one sentence each."""

    @property
    def provenance(self) -> Provenance:
        """Return how the result came about."""

    def account(self) -> Mapping[str, Any]:
        """Return what the manifest says of model, score, layers and method."""

    def sheets(self) -> Sequence[Sheet]:
        """Return what is written, row by row."""


def save(
    results: Sequence[Result],
    folder: Path,
    *,
    of: Sequence[Subject] | None = None,
    scale: str | float = "image",
    overwrite: bool = False,
    errors: Sequence[tuple[str, OnnxGradcamError]] = (),
    request: dict[str, Any] | None = None,
) -> Path:
    """Write all results into ``folder``, the manifest last; returns the manifest's path.

    Raises ``OutputError`` where the folder cannot be written or a result exists.
    """
    check_folder(folder, overwrite)
    of = of or [Subject("explanation" if len(results) == 1 else f"explanation-{i}") for i in range(len(results))]
    if scale == "shared":
        maps = [entry for result in results for sheet in result.sheets() for entry in sheet.maps.values()]
        scale = max((_units(entry) for entry in maps), default=0.0) or 1.0
    written = [write_rows(r, subject, folder, scale, overwrite) for r, subject in zip(results, of, strict=True)]
    return write_manifest(folder, results, written, errors=errors, request=request or {})


def write_rows(
    result: Result,
    subject: Subject,
    folder: Path,
    scale: str | float = "image",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the PNG and the NPYs of every row, and return the manifest's entry for the subject."""
    rows = []
    for sheet in result.sheets():
        stem = _stem(sheet, subject)
        if sheet.figure is not None:
            _write(folder / f"{stem}.png", overlay.encode_png(sheet.figure()), overwrite)
        for part, entry in sheet.maps.items():
            name = f"{stem}.{part}.npy" if part else f"{stem}.npy"
            _write(folder / name, _npy(_scaled(entry, scale)), overwrite)
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
        "preprocess": _choice(preprocess) if preprocess else None,
        "warnings": list(result.warnings),
    }


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _scaled(entry: MapFile, scale: str | float) -> npt.NDArray[Any]:
    if scale == "image" or entry.record["is_blank"]:
        return entry.heatmap
    rescaled: npt.NDArray[Any] = normalise(entry.heatmap[None] * np.float32(_units(entry)), float(scale))[0]
    return rescaled


def _units(entry: MapFile) -> float:
    """Return what a heatmap is in the score's units where it is 1."""
    scale: float | None = entry.record["scale"]
    if scale is None:
        raise MethodError(
            f"these maps of {entry.method} have no scale in the score's units",
            where="several layers were fused",
            hint="scale='image', or a single target layer",
            scale=scale,
        )
    return scale


def _stem(sheet: Sheet, subject: Subject) -> str:
    index = next(iter(sheet.maps.values())).record["image_index"]
    image = f"-{index}" if sheet.images > 1 else ""
    return f"{subject.stem}{image}.{sheet.method}.{sheet.target}"


def slug(target: str) -> str:
    """Return a target as it stands in file names: of [a-z0-9-]."""
    return _slug(f"minus {target[1:]}" if target.startswith("-") else target)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def _choice(choice: Choice) -> dict[str, Any]:
    return {k: {"value": v, "source": choice.sources.get(k, "")} for k, v in asdict(choice.preprocess).items()}


def write_manifest(
    folder: Path,
    results: Sequence[Result],
    written: Sequence[dict[str, Any]],
    *,
    errors: Sequence[tuple[str, OnnxGradcamError]],
    request: dict[str, Any],
) -> Path:
    """``manifest.json``, described by the JSON Schema in ``docs/formats.md``."""
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
    _write(path, (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode(), overwrite=True)
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
    """Written aside, then renamed."""
    if path.exists() and not overwrite:
        raise OutputError(f"{str(path)!r} exists already", hint="--overwrite, or another folder with -o DIR", path=path)
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OutputError(f"cannot write {str(path)!r}: {error.strerror}", hint="another folder", path=path) from None
