"""An explanation in words and numbers, without its arrays: what manifest, ``as_dict`` and a notebook show of it."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_gradcam.methods.table import options_for_json
from onnx_gradcam.photos.opencv import cv2
from onnx_gradcam.results import figures
from onnx_gradcam.results.picture import overlay
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.records import nan_to_none
from onnx_gradcam.results.scales import at_one_scale

if TYPE_CHECKING:
    from onnx_gradcam.results.explanation import Explanation

NOTEBOOK_SIDE = 640  # pixels: larger pictures would make a notebook of many rows too heavy to open


def row_record(explanation: Explanation, row: int) -> dict[str, Any]:
    """Return what the manifest says of a row, ready for JSON."""
    e = explanation
    return {
        "image_index": int(e.image_index[row]),
        "view_index": int(e.view_index[row]),
        "class_index": int(e.class_index[row]),
        "target": e.target(row),
        "label": e.label(row),
        "score": float(e.score[row]),
        "probability": nan_to_none(e.probability[row]),
        "made_of": e.made_of(row) or None,
        "question": e.question(row) or None,
        "cautions": list(e.cautions(row)),
        "cell": _cell(e, row),
        "box": e.box_of(row),
        "is_blank": bool(e.is_blank[row]),
        "scale": nan_to_none(e.scale[row]),
        "seen": [int(v) for v in e.seen[row]],
        "tiles": _tiles(e, row),
        "completeness": None if e.completeness is None else e.completeness.of_row(row),
    }


def account(explanation: Explanation) -> dict[str, Any]:
    """Return what the manifest says of model, score, layers and method, ready for JSON."""
    recipe, rectifiers = explanation.recipe, explanation.rectifiers
    return {
        **explanation.provenance.as_dict(),
        "attributed": explanation.attributed or None,
        "method": recipe.method,
        "counterfactual": recipe.counterfactual,
        "signed": recipe.signed,
        "smooth": list(recipe.smooth),
        "levels": recipe.levels,
        "options": options_for_json(recipe),
        "rectifiers": None if rectifiers is None else asdict(rectifiers),
    }


def explanation_page(explanation: Explanation) -> str:
    """Return an explanation as HTML: the picture of every row, or its words where it has none, and the warnings.

    The pictures stand side by side, and have one scale.
    """
    draws = figures.is_drawn(explanation)
    drawn, numbers = at_one_scale(explanation), range(len(explanation))
    rows = ((explanation.title(row), drawn.figure(row=row) if draws else None) for row in numbers)
    return page(rows, explanation.warnings)


def page(rows: Iterable[tuple[Sequence[str], Picture | None]], warnings: Sequence[str]) -> str:
    """Return rows, each with its words and its picture, as HTML, and the warnings below them."""
    figures = "".join(_figure(" · ".join(filter(None, words)), picture) for words, picture in rows)
    sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in warnings)
    below = f"<ul>{sentences}</ul>" if warnings else ""
    return f'<div><div style="display:flex;flex-wrap:wrap;gap:8px">{figures}</div>{below}</div>'


def _figure(words: str, picture: Picture | None) -> str:
    text = html.escape(words)
    if picture is None:
        return f'<figure style="margin:0"><figcaption>{text}</figcaption></figure>'
    data = base64.b64encode(overlay.encode_png(_shrunk(picture))).decode()
    image = f'<img style="max-width:100%" alt="{text}" src="data:image/png;base64,{data}">'
    return f'<figure style="margin:0">{image}</figure>'


def _shrunk(picture: Picture) -> Picture:
    """Return a picture whose longer side has at most ``NOTEBOOK_SIDE`` pixels."""
    share = NOTEBOOK_SIDE / max(picture.shape[:2])
    if share >= 1:
        return picture
    height, width = (max(1, round(side * share)) for side in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))


def _tiles(explanation: Explanation, row: int) -> list[dict[str, Any]] | None:
    """Return the tiles that the map of a row was joined from, each with its score; None for a whole photo."""
    tiles = explanation.frame.tiles
    if tiles is None:
        return None
    return [
        {"box": box, "score": float(score), "probability": nan_to_none(probability)}
        for box, score, probability in zip(
            tiles.boxes.tolist(), tiles.score[:, row], tiles.probability[:, row], strict=True
        )
    ]


def _cell(explanation: Explanation, row: int) -> list[int] | None:
    if explanation.cell is None or (explanation.cell[row] < 0).any():
        return None
    return [int(k) for k in explanation.cell[row]]
