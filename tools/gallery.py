"""Draw the pictures of the documentation, docs/images/*.jpg, from the demo models and their photos.

python tools/gallery.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from gallery_audits import attack_cross, bias, mistakes
from scenes import two_objects

import onnx_gradcam as ogc
from onnx_gradcam.jobs.evaluate.pictures import picture_of
from onnx_gradcam.results.picture.figure import Panel, map_panel, panel_size, panels, picture_panel
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.portrait import brightest_of, level_of

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
MODELS = ROOT / "models"
MODEL, PHOTO = MODELS / "shapes-resnet.onnx", MODELS / "images" / "star-and-heart.png"
CLASSES = ("star", "heart")
SIDE = (320, 320)
QUALITY, WIDEST = 76, 1100  # every picture stays below 60 kB
TRIANGLES = 22, 5  # the seed of a scene with two triangles
GREY = ogc.Style(photo="grey")  # the demo photos have loud colours: on grey every colour is evidence


def figure(target: str) -> Picture:
    """Return what ``explain --photo grey --scale shared`` writes for one of the two classes."""
    with ogc.Explainer(MODEL, providers=["cpu"]) as explainer:
        both_classes = explainer.explain_image(PHOTO, ogc.Classes(CLASSES))
    return both_classes.at_scale(both_classes.peaks()).figure(row=CLASSES.index(target), style=GREY)


def sides() -> Picture:
    """Return what ``--both`` writes."""
    return ogc.both(_explained("star")).figure()


def contrast() -> Picture:
    """Return what ``--true`` writes for a wrong prediction."""
    return ogc.contrast(_explained("star"), _explained("heart")).figure()


def signed() -> Picture:
    """Return one map with evidence for and against the class."""
    return _explained("star", signed=True).figure()


def methods() -> Picture:
    """Return the same class by six methods of a layer."""
    names = ["gradcam", "gradcam++", "hirescam", "layercam", "eigencam", "eigengradcam"]
    return _grid([_map(_explained("star", name), name) for name in names])


def layers() -> Picture:
    """Return the same class at four layers, the earliest first."""
    names = ["relu_1", "relu_2", "relu_4", "relu_6"]
    return _grid([_map(_explained("star", "layercam", layer=name), f"layercam at {name}") for name in names], columns=4)


def networks() -> Picture:
    """Return the same class by the three demo models."""
    names = ["shapes-resnet", "shapes-inception", "shapes-vgg"]
    return _grid([_map(_explained("star", model=MODELS / f"{name}.onnx"), name) for name in names])


def inputs() -> Picture:
    """Return the same class by methods of the input."""
    names = ["saliency", "smoothgrad", "integrated-gradients", "input-x-gradient", "fullgrad"]
    maps = [_map(_explained("star", name), name) for name in names]
    return _grid([*maps, _map(_explained("star"), "gradcam, for comparison")])


def guided() -> Picture:
    """Return both classes by Grad-CAM, by guided backpropagation, and by their product."""
    rows = [
        [
            _map(_explained(name), f"Grad-CAM: {name}"),
            *(_detail(name, m) for m in ("guided-backprop", "guided-gradcam")),
        ]
        for name in CLASSES
    ]
    return _grid([panel for row in rows for panel in row])


def sheet() -> Picture:
    """Return what ``explain --sheet`` writes: the two most probable classes of two photos, at one scale."""
    photos = [MODELS / "images" / f"{name}.png" for name in ("cross", "arrow-and-circle")]
    with ogc.Explainer(MODEL, providers=["cpu"]) as explainer:
        results = [explainer.explain_image(photo, ogc.TopK(2)) for photo in photos]
    return ogc.contact_sheet(results, [photo.name for photo in photos])


def scenes() -> Picture:
    """Return a scene with two objects of one outline, and the maps of their classes."""
    scene = two_objects(np.random.default_rng(TRIANGLES))
    with ogc.Explainer(MODELS / "scenes-resnet.onnx", providers=["cpu"]) as explainer:
        maps = [explainer.explain_image(scene.image, item.name, "gradcam") for item in scene.items]
    captions = [f"Grad-CAM: {item.name}" for item in scene.items]
    photo = picture_panel(scene.image, long_side=SIDE, caption=["a scene"])
    return panels([photo, *map(_map, maps, captions)])


def _explained(
    target: str, method: str = "gradcam", *, model: Path = MODEL, layer: str = "auto", signed: bool = False
) -> ogc.Explanation:
    with ogc.Explainer(model, layer, providers=["cpu"]) as explainer:
        return explainer.explain_image(PHOTO, target, method, signed=signed)


def _map(explanation: ogc.Explanation, caption: str) -> Panel:
    picture, seen = explanation.picture(0), explanation.region(0)
    level = np.clip(level_of(explanation, 0, panel_size(picture, SIDE)) / brightest_of(explanation, 0), -1, 1)
    return replace(map_panel(picture, level, seen=seen, long_side=SIDE, caption=[caption], style=GREY), bar=None)


def _detail(target: str, method: str) -> Panel:
    explanation = _explained(target, method)
    shown, seen = explanation.detail(0), explanation.region(0)
    return picture_panel(shown, seen=seen, long_side=SIDE, caption=[f"{method}: {target}"])


def _grid(cells: Sequence[Panel], columns: int = 3) -> Picture:
    return np.vstack([panels(cells[k : k + columns]) for k in range(0, len(cells), columns)])


def deletion() -> Picture:
    """Return the curve of deletion that ``evaluate`` writes for the demo photos."""
    (metric,) = ogc.evaluate(MODEL, MODELS / "images", ["deletion"], providers=["cpu"]).metrics
    return picture_of(metric, [f"{MODEL.name}, gradcam"])


def caption() -> Picture:
    """Return what ``--caption`` writes for a drawn scene."""
    with ogc.Explainer(MODELS / "shapes-caption.onnx", providers=["cpu"]) as explainer:
        return ogc.explain_caption(explainer, MODELS / "images-tasks" / "red-star-left-of-blue-heart.png").figure()


PICTURES: dict[str, Callable[[], Picture]] = {
    "star": lambda: figure("star"),
    "heart": lambda: figure("heart"),
    "both": sides,
    "star-or-heart": contrast,
    "signed": signed,
    "methods": methods,
    "layers": layers,
    "networks": networks,
    "inputs": inputs,
    "guided": guided,
    "sheet": sheet,
    "evaluation-deletion": deletion,
    "evaluation-scenes": scenes,
    "attack-cross": attack_cross,
    "bias": bias,
    "failures": mistakes,
    "caption": caption,
}


def encode(picture: Picture) -> bytes:
    """Return a picture (H, W, 3) uint8 RGB as JPEG, at most ``WIDEST`` pixels wide."""
    height, width = picture.shape[:2]
    if width > WIDEST:
        picture = cv2.resize(picture, (WIDEST, height * WIDEST // width), interpolation=cv2.INTER_AREA).astype(np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    _, data = cv2.imencode(".jpg", picture[:, :, ::-1], options)
    return data.tobytes()


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (IMAGES / f"{name}.jpg").write_bytes(encode(draw()))
