"""A comparison in a folder: the pictures of its worst pairs, and ``comparison.json``, which names them, last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx_gradcam.jobs.compare.worst import WorstPair
from onnx_gradcam.jobs.saving import check_document_folder, save_document
from onnx_gradcam.results.files import slug
from onnx_gradcam.results.journal import COMPARISON
from onnx_gradcam.results.picture.style import Style

PLACE = ("image", "image_index", "view_index", "target")


def check_comparison_folder(folder: Path, overwrite: bool) -> None:
    """Raise ``OutputError`` where a folder cannot be made, or holds a comparison already; call it before any work."""
    check_document_folder(folder, COMPARISON, overwrite)


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
    pictures = {names[pair]: each.figure(style) for pair, each in drawn.items()}
    by_place = {tuple(getattr(pair, key) for key in PLACE): name for pair, name in names.items()}
    pairs = [{**pair, "picture": by_place.get(tuple(pair[key] for key in PLACE))} for pair in content["pairs"]]
    return save_document({**content, "pairs": pairs}, COMPARISON, pictures, folder, overwrite)


def _stem(image: str) -> str:
    return slug(Path(image).stem)
