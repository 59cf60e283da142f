"""A comparison in a folder: the pictures of its worst pairs, and ``comparison.json``, which names them, last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx_gradcam.errors import OutputError
from onnx_gradcam.jobs.compare.worst import WorstPair
from onnx_gradcam.results import journal
from onnx_gradcam.results.files import slug
from onnx_gradcam.results.picture.overlay import encode_png
from onnx_gradcam.results.picture.style import Style

COMPARISON = "comparison.json"
PLACE = ("image", "image_index", "view_index", "target")


def check_comparison_folder(folder: Path, overwrite: bool) -> None:
    """Raise ``OutputError`` where a folder cannot be made, or holds a comparison already; call it before any work."""
    if (folder / COMPARISON).exists() and not overwrite:
        raise OutputError(
            f"{str(folder)!r} already holds a comparison",
            hint="--overwrite, or another folder with -o DIR",
            folder=folder,
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def save_comparison(
    content: Mapping[str, Any], worst: Sequence[WorstPair], folder: Path, overwrite: bool, style: Style
) -> Path:
    """Write the pictures of the worst pairs, then ``comparison.json``; what an earlier comparison wrote is removed.

    Args:
        content: the comparison as JSON has it; pictures and files are filled in.
        worst: the pairs that are drawn, the worst first.
        folder: where to write.
        overwrite: whether an earlier comparison is replaced.
        style: how pictures are drawn.

    Returns:
        The path of ``comparison.json``.

    Raises:
        OutputError: the folder cannot be written, or holds a comparison already.
    """
    check_comparison_folder(folder, overwrite)
    drawn = {each.pair: each for each in worst if each.draws}
    names = {pair: f"worst-{number:02}.{_stem(pair.image)}.png" for number, pair in enumerate(drawn, start=1)}
    pictures = {names[pair]: encode_png(each.figure(style)) for pair, each in drawn.items()}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in pictures.items()}
    by_place = {tuple(getattr(pair, key) for key in PLACE): name for pair, name in names.items()}
    pairs = [{**pair, "picture": by_place.get(tuple(pair[key] for key in PLACE))} for pair in content["pairs"]]
    path = folder / COMPARISON
    journal.remove(folder, _earlier(path))
    for name, data in pictures.items():
        _write(folder / name, data)
    _write(path, journal.encode_json({**content, "pairs": pairs, "files": hashes}, indent=2) + b"\n")
    return path


def _stem(image: str) -> str:
    return slug(Path(image).stem)


def _earlier(path: Path) -> Mapping[str, str]:
    """Return the files that an earlier comparison wrote, with their hashes."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise OutputError(
            f"{str(path)!r} is no comparison of this tool, and would be in the way",
            hint="another folder with -o DIR",
            path=path,
        )
    files: Mapping[str, str] = content["files"]
    return files


def _write(path: Path, data: bytes) -> None:
    """Write a file under another name, then rename it: so it is there whole or not at all."""
    part = path.with_name(journal.PART)
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {str(path)!r}: {error.strerror}", hint="another folder with -o DIR", path=path)
