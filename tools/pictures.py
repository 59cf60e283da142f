"""Draw the README's picture of Guided Grad-CAM: docs/images/guided.png.

    python tools/pictures.py

Rows: the classes star and heart of the same photo. Columns: Grad-CAM, guided backpropagation, Guided Grad-CAM.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import onnx_gradcam as ogc
from onnx_gradcam.results.picture.figure import Panel, map_panel, panels, picture_panel
from onnx_gradcam.results.picture.overlay import Picture, encode_png

ROOT = Path(__file__).resolve().parent.parent
MODEL, PHOTO = ROOT / "models" / "shapes-resnet.onnx", ROOT / "models" / "images" / "star-and-heart.png"
CLASSES = ("star", "heart")
SIDE = (320, 320)


def guided() -> Picture:
    with ogc.Explainer(MODEL, providers=["cpu"]) as explainer:
        rows = [_row(explainer, name) for name in CLASSES]
    return np.vstack([panels(row) for row in rows])


def _row(explainer: ogc.Explainer, name: str) -> list[Panel]:
    cam = explainer.explain_image(PHOTO, name, "gradcam")
    found = [
        map_panel(cam.picture(0), cam.heatmap[0], seen=cam.region(0), long_side=SIDE, caption=[f"Grad-CAM: {name}"])
    ]
    for title, method in (("guided backpropagation", "guided-backprop"), ("Guided Grad-CAM", "guided-gradcam")):
        explanation = explainer.explain_image(PHOTO, name, method)
        shown = explanation.detail(0)
        found.append(picture_panel(shown, seen=explanation.region(0), long_side=SIDE, caption=[f"{title}: {name}"]))
    return found


if __name__ == "__main__":
    (ROOT / "docs" / "images" / "guided.png").write_bytes(encode_png(guided()))
