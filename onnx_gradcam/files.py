"""Results on disk: a PNG and an NPY for each row, and ``manifest.json`` last. Whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam import overlay
from onnx_gradcam.cam.heatmap import normalise
from onnx_gradcam.errors import OnnxGradcamError, OutputError
from onnx_gradcam.preprocess import Choice
from onnx_gradcam.runtime import versions

if TYPE_CHECKING:
    from onnx_gradcam.explanation import Explanation

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


def save(
    explanations: Sequence[Explanation],
    folder: Path,
    *,
    of: Sequence[Subject] | None = None,
    scale: str | float = "image",
    overwrite: bool = False,
    errors: Sequence[tuple[str, OnnxGradcamError]] = (),
    request: dict[str, Any] | None = None,
) -> Path:
    """Write all explanations into ``folder``, the manifest last; returns the manifest's path.

    Raises ``OutputError`` where the folder cannot be written or a result exists.
    """
    check_folder(folder, overwrite)
    of = of or [
        Subject("explanation" if len(explanations) == 1 else f"explanation-{i}") for i in range(len(explanations))
    ]
    if scale == "shared":
        scale = max(float(np.max(layer.cam, initial=0)) for e in explanations for layer in e.layers) or 1.0
    results = [write_rows(e, subject, folder, scale, overwrite) for e, subject in zip(explanations, of, strict=True)]
    return write_manifest(folder, explanations, results, errors=errors, request=request or {})


def write_rows(
    explanation: Explanation,
    subject: Subject,
    folder: Path,
    scale: str | float = "image",
    overwrite: bool = False,
) -> dict[str, Any]:
    """The PNG and NPY of every row; returns the manifest's entry for the subject."""
    rows = []
    for row in range(len(explanation)):
        heatmap = _scaled(explanation, row, scale)
        stem = _stem(explanation, subject, row)
        if explanation.heatmap.ndim == 3:
            _write(folder / f"{stem}.png", overlay.encode_png(explanation.figure(row=row)), overwrite)
        buffer = io.BytesIO()
        np.save(buffer, heatmap)
        _write(folder / f"{stem}.npy", buffer.getvalue(), overwrite)
        rows.append(_row(explanation, row, stem))
    preprocess = explanation.provenance.get("preprocess")
    return {
        "image": subject.path,
        "sha256": subject.sha256,
        "rows": rows,
        "preprocess": _choice(preprocess) if preprocess else None,
        "warnings": list(explanation.warnings),
    }


def _scaled(explanation: Explanation, row: int, scale: str | float) -> npt.NDArray[Any]:
    heatmap: npt.NDArray[Any] = explanation.heatmap[row]
    if scale == "image" or explanation.is_blank[row]:
        return heatmap
    peak = max(float(np.abs(layer.cam[row]).max()) for layer in explanation.layers)
    rescaled: npt.NDArray[Any] = normalise(heatmap[None] * np.float32(peak), float(scale))[0]
    return rescaled


def _stem(explanation: Explanation, subject: Subject, row: int) -> str:
    image = f"-{int(explanation.image_index[row])}" if int(explanation.image_index.max(initial=0)) else ""
    method = explanation.method.replace(" ", "-")
    return f"{subject.stem}{image}.{method}.{_slug(str(int(explanation.class_index[row])))}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def _row(explanation: Explanation, row: int, stem: str) -> dict[str, Any]:
    probability = float(explanation.probability[row])
    return {
        "image_index": int(explanation.image_index[row]),
        "class_index": int(explanation.class_index[row]),
        "label": explanation.label(row),
        "score": float(explanation.score[row]),
        "probability": None if np.isnan(probability) else probability,
        "cell": None if explanation.cell is None else [int(k) for k in explanation.cell[row]],
        "is_blank": bool(explanation.is_blank[row]),
        "seen": [int(v) for v in explanation.seen[row]],
        "png": f"{stem}.png" if explanation.heatmap.ndim == 3 else None,
        "npy": f"{stem}.npy",
    }


def _choice(choice: Choice) -> dict[str, Any]:
    return {k: {"value": v, "source": choice.sources.get(k, "")} for k, v in asdict(choice.preprocess).items()}


def write_manifest(
    folder: Path,
    explanations: Sequence[Explanation],
    results: Sequence[dict[str, Any]],
    *,
    errors: Sequence[tuple[str, OnnxGradcamError]],
    request: dict[str, Any],
) -> Path:
    """``manifest.json``, described by the JSON Schema in ``docs/formats.md``."""
    first = dict(explanations[0].provenance) if explanations else {}
    source = first.pop("source", None)
    first.pop("preprocess", None)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "versions": versions(),
        "model": {"path": source.name, "sha256": source.sha256()} if source else None,
        "request": request,
        **first,
        "results": list(results),
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
