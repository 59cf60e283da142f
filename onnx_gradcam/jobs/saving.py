"""Pictures in a folder, and last a JSON document that names them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx_gradcam.errors import OutputError
from onnx_gradcam.results import journal
from onnx_gradcam.results.picture.overlay import Picture, encode_png


def check_document_folder(folder: Path, name: str, overwrite: bool) -> None:
    """Raise ``OutputError`` where a folder cannot be made, or holds such a document already; call it before any work.

    Args:
        folder: where results go.
        name: the name of the document, "comparison.json".
        overwrite: whether an earlier one is replaced.
    """
    if (folder / name).exists() and not overwrite:
        kind = Path(name).stem
        raise OutputError(
            f"{str(folder)!r} already holds {'an' if kind[0] in 'aeio' else 'a'} {kind}",
            hint="--overwrite, or another folder with -o DIR",
            folder=folder,
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def save_document(
    content: Mapping[str, Any], name: str, beside: Mapping[str, Picture | bytes | Path], folder: Path, overwrite: bool
) -> Path:
    """Write pictures and other files, then the document; what an earlier one of this name wrote is removed.

    Args:
        content: the document; its "files" are filled in.
        name: its name.
        beside: pictures, the content of other files, or the paths of files that are there already, by their names.
        folder: where to write.
        overwrite: whether an earlier document is replaced.

    Returns:
        The path of the document.

    Raises:
        OutputError: the folder cannot be written, or holds such a document already.
    """
    check_document_folder(folder, name, overwrite)
    there = {file: journal.sha256(data) for file, data in beside.items() if isinstance(data, Path)}
    files = {
        file: data if isinstance(data, bytes) else encode_png(data)
        for file, data in beside.items()
        if not isinstance(data, Path)
    }
    path = folder / name
    journal.remove(folder, {file: digest for file, digest in _earlier(path).items() if file not in there})
    for file, data in files.items():
        _write(folder / file, data)
    hashes = {**there, **{file: hashlib.sha256(data).hexdigest() for file, data in files.items()}}
    _write(path, journal.encode_json({**content, "files": hashes}, indent=2) + b"\n")
    return path


def _earlier(path: Path) -> Mapping[str, str]:
    """Return the files that an earlier document wrote, with their hashes."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        kind = path.stem
        raise OutputError(
            f"{str(path)!r} is no {kind} of this tool, and would be in the way",
            hint="another folder with -o DIR",
            path=path,
        )
    files: Mapping[str, str] = content["files"]
    return files


def _write(path: Path, data: bytes) -> None:
    """Write a file under another name, then rename it: so it is there whole or not at all."""
    part = path.with_name(journal.PART)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {str(path)!r}: {error.strerror}", hint="another folder with -o DIR", path=path)
