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
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import MethodError, OnnxGradcamError, OutputError
from onnx_gradcam.methods.heatmap import normalise
from onnx_gradcam.photos.preprocess.choice import Choice
from onnx_gradcam.results.picture import overlay
from onnx_gradcam.results.picture.overlay import Picture

if TYPE_CHECKING:
    from onnx_gradcam.results.explanation import Explanation

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


@dataclass(frozen=True)
class Sheet:
    """What is written of one row: a picture, and the numbers of one or several maps.

    Attributes:
        row: its number.
        title: what was explained, in words.
        method, target: as file names have them.
        figure: draws the picture; None where maps cannot be drawn.
        maps: by what goes before ``.npy``, the explanations whose heatmap of the row is written.
    """

    row: int
    title: str
    method: str
    target: str
    figure: Callable[[], Picture] | None
    maps: Mapping[str, Explanation]


class Result(Protocol):
    """What can be written."""

    @property
    def warnings(self) -> Sequence[str]:
        """What the user should know."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the manifest records."""

    def sheets(self) -> Sequence[Sheet]:
        """What is written, row by row."""


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
        maps = [e for result in results for sheet in result.sheets() for e in sheet.maps.values()]
        scale = float(np.max([_units(e) for e in maps], initial=0)) or 1.0
    written = [write_rows(r, subject, folder, scale, overwrite) for r, subject in zip(results, of, strict=True)]
    return write_manifest(folder, results, written, errors=errors, request=request or {})


def write_rows(
    result: Result,
    subject: Subject,
    folder: Path,
    scale: str | float = "image",
    overwrite: bool = False,
) -> dict[str, Any]:
    """The PNG and the NPYs of every row; returns the manifest's entry for the subject."""
    rows = []
    for sheet in result.sheets():
        stem = _stem(sheet, subject)
        if sheet.figure is not None:
            _write(folder / f"{stem}.png", overlay.encode_png(sheet.figure()), overwrite)
        for part, explanation in sheet.maps.items():
            name = f"{stem}.{part}.npy" if part else f"{stem}.npy"
            _write(folder / name, _npy(_scaled(explanation, sheet.row, scale)), overwrite)
            files = {"part": part or None, "png": f"{stem}.png" if sheet.figure else None, "npy": name}
            if explanation.attribution is not None:
                beside = f"{name.removesuffix('.npy')}.attribution.npy"
                _write(folder / beside, _npy(explanation.attribution[sheet.row]), overwrite)
                files["attribution"] = beside
            rows.append({**_row(explanation, sheet.row), **files})
    preprocess = result.provenance.get("preprocess")
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


def _scaled(explanation: Explanation, row: int, scale: str | float) -> npt.NDArray[Any]:
    heatmap: npt.NDArray[Any] = explanation.heatmap[row]
    if scale == "image" or explanation.is_blank[row]:
        return heatmap
    rescaled: npt.NDArray[Any] = normalise(heatmap[None] * _units(explanation)[row], float(scale))[0]
    return rescaled


def _units(explanation: Explanation) -> npt.NDArray[np.float32]:
    """(R,) of what a heatmap is in the score's units where it is 1."""
    if explanation.scale is None or np.isnan(explanation.scale).any():
        raise MethodError(
            f"these maps of {explanation.method} have no scale in the score's units",
            where="several layers were fused" if len(explanation.layers) > 1 else "",
            hint="scale='image', or a single target layer",
            scale=explanation.scale,
        )
    units: npt.NDArray[np.float32] = explanation.scale
    return units


def _stem(sheet: Sheet, subject: Subject) -> str:
    index = next(iter(sheet.maps.values())).image_index
    image = f"-{int(index[sheet.row])}" if int(index.max(initial=0)) else ""
    return f"{subject.stem}{image}.{sheet.method}.{sheet.target}"


def slug(explanation: Explanation, row: int) -> str:
    """The target of a row as it stands in file names."""
    text = explanation.target(row)
    return _slug(f"minus {text[1:]}" if text.startswith("-") else text)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def _cell(explanation: Explanation, row: int) -> list[int] | None:
    if explanation.cell is None or (explanation.cell[row] < 0).any():
        return None
    return [int(k) for k in explanation.cell[row]]


def _row(explanation: Explanation, row: int) -> dict[str, Any]:
    return {
        "image_index": int(explanation.image_index[row]),
        "class_index": int(explanation.class_index[row]),
        "target": explanation.target(row),
        "label": explanation.label(row),
        "score": float(explanation.score[row]),
        "probability": _number(explanation.probability[row]),
        "cell": _cell(explanation, row),
        "box": explanation.box_of(row),
        "is_blank": bool(explanation.is_blank[row]),
        "scale": None if explanation.scale is None else _number(explanation.scale[row]),
        "seen": [int(v) for v in explanation.seen[row]],
    }


def _number(value: np.floating[Any]) -> float | None:
    return None if np.isnan(value) else float(value)


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
    first = dict(results[0].provenance) if results else {}
    source = first.pop("source", None)
    first.pop("preprocess", None)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "versions": first.pop("versions", {}),
        "model": {"path": source.name, "sha256": source.sha256()} if source else None,
        "request": request,
        **first,
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
