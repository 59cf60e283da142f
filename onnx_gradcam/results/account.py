"""An explanation in words and numbers, without its arrays: what manifest, ``as_dict`` and a notebook show of it."""

from __future__ import annotations

import base64
import html
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from onnx_gradcam.methods.table import options_for_json
from onnx_gradcam.results.picture import overlay
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.records import nan_to_none

if TYPE_CHECKING:
    from onnx_gradcam.results.explanation import Explanation

NOTEBOOK_SIDE = 640  # pixels: larger pictures would make a notebook of many rows too heavy to open


def row_record(explanation: Explanation, row: int) -> dict[str, Any]:
    """Return what the manifest says of a row, ready for JSON."""
    e = explanation
    return {
        "image_index": int(e.image_index[row]),
        "class_index": int(e.class_index[row]),
        "target": e.target(row),
        "label": e.label(row),
        "score": float(e.score[row]),
        "probability": nan_to_none(e.probability[row]),
        "made_of": e.made_of(row) or None,
        "cautions": list(e.cautions(row)),
        "cell": _cell(e, row),
        "box": e.box_of(row),
        "is_blank": bool(e.is_blank[row]),
        "scale": nan_to_none(e.scale[row]),
        "seen": [int(v) for v in e.seen[row]],
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
        "options": options_for_json(recipe),
        "rectifiers": None if rectifiers is None else asdict(rectifiers),
    }


def page(explanation: Explanation) -> str:
    """Return an explanation as HTML: the picture of every row with its words, then the warnings."""
    rows = "".join(_cell_of_page(explanation, row) for row in range(len(explanation)))
    warnings = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in explanation.warnings)
    below = f"<ul>{warnings}</ul>" if warnings else ""
    return f'<div><div style="display:flex;flex-wrap:wrap;gap:8px">{rows}</div>{below}</div>'


def _cell_of_page(explanation: Explanation, row: int) -> str:
    words = html.escape(" · ".join(filter(None, explanation.title(row))))
    if explanation.heatmap.ndim != 3:
        return f"<figure style='margin:0'><figcaption>{words}</figcaption></figure>"
    data = base64.b64encode(overlay.encode_png(_shrunk(explanation.figure(row=row)))).decode()
    image = f'<img style="max-width:100%" alt="{words}" src="data:image/png;base64,{data}">'
    return f"<figure style='margin:0'>{image}</figure>"


def _shrunk(picture: Picture) -> Picture:
    """Return a picture whose longer side has at most ``NOTEBOOK_SIDE`` pixels."""
    share = NOTEBOOK_SIDE / max(picture.shape[:2])
    if share >= 1:
        return picture
    height, width = (max(1, round(side * share)) for side in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))


def _cell(explanation: Explanation, row: int) -> list[int] | None:
    if explanation.cell is None or (explanation.cell[row] < 0).any():
        return None
    return [int(k) for k in explanation.cell[row]]
