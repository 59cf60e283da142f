"""Where the maps of detectors and segmenters lie, by default options: energy in the box or mask beside its share.

    python tools/dense_localisation.py [--methods auto gradcam hirescam layercam] [--pictures DIR]

The models and photos are those of the zoo (ONNX_GRADCAM_ZOO names its folder). Of a detector's class the region is the
box that it gives itself, of a segmenter the mask in which the class wins; ``share`` is the region's share of what the
model saw, which is what a map that says nothing has; ``energy`` the share of the heatmap's sum that lies in it.
``peak`` says whether the maximum does. A map lies in the model's own region by being local, be it right or wrong: the
figures tell a map that has gone astray, not which method is best.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import cv2
import numpy as np
from localisation import declared, filled
from numpy.typing import NDArray

import onnx_gradcam as ogc

ZOO = "ONNX_GRADCAM_ZOO"
METHODS = ("auto",)
# COCO's classes on the zoo's photos
OBJECTS = {
    "darknet-dog.jpg": {"bicycle": 1, "car": 2, "dog": 16},
    "darknet-giraffe.jpg": {"giraffe": 23, "zebra": 22},
    "chelsea.png": {"cat": 15},
    "coffee.png": {"cup": 41},
    "both.png": {"dog": 16},
    "chicken.jpg": {"bird": 14},
}
DETECTORS = ("yolox-nano", "nanodet-m-320", "fastestdet")
SEGMENTERS = ("sinet-softmax", "deeplab-dm05")
FACES = "ultraface-320"
PORTRAITS, PERSON = ("mesonet/real00240.jpg", "mesonet/real00772.jpg"), 1
LEAST = 0.3  # probability of what is taken as detected


@dataclass(frozen=True)
class Lie:
    """Where one map lies; ``share``, ``energy``: of the region in what the model saw, and in the map's sum."""

    model: str
    photo: str
    thing: str
    method: str
    probability: float
    share: float
    energy: float
    is_peak_inside: bool


def lies(zoo: Path, methods: Sequence[str], pictures: Path | None = None) -> Iterator[Lie]:
    """Yield where the maps of the zoo's detectors and segmenters lie, model by model."""
    index = json.loads((zoo / "zoo.json").read_text("utf-8"))
    questions = [(m, photo, thing, c) for m in DETECTORS for photo, cs in OBJECTS.items() for thing, c in cs.items()]
    questions += [(m, photo, "person", PERSON) for m in (*SEGMENTERS, FACES) for photo in PORTRAITS]
    for model in dict.fromkeys(q[0] for q in questions):
        with ogc.Explainer(zoo / index[model]["file"], providers=["cpu"]) as explainer:
            form = declared(index[model])
            for _, photo, thing, class_index in (q for q in questions if q[0] == model):
                for method in methods:
                    path = zoo / "images" / photo
                    explanation = explainer.explain_image(path, class_index, method, preprocess=form)
                    region = region_of(explanation, class_index)
                    is_sure = model in SEGMENTERS or explanation.probability[0] >= LEAST
                    if region is None or not is_sure:
                        continue
                    if pictures is not None:
                        explanation.save(pictures / f"{model}-{path.stem}-{thing}-{method}")
                    yield lie(model, photo, thing, explanation, region)


def region_of(explanation: ogc.Explanation, class_index: int) -> NDArray[np.bool_] | None:
    """Return the detector's own box, or the segmenter's own mask, in the photo's pixels; None for neither."""
    shape = explanation.heatmap.shape[1:]
    if explanation.box is not None and np.isfinite(explanation.box[0]).all():
        x1, y1, x2, y2 = np.clip(np.round(explanation.box[0]), 0, None).astype(int)
        return filled((x1, y1, x2, y2), shape)
    (scores,) = (y for y in explanation.outputs.values() if y.ndim == 4)
    x1, y1, x2, y2 = explanation.seen[0]
    sized = cv2.resize(scores[0].transpose(1, 2, 0).astype(np.float32), (int(x2 - x1), int(y2 - y1)))
    mask = np.zeros(shape, bool)
    mask[y1:y2, x1:x2] = sized.argmax(axis=2) == class_index
    return mask if mask.any() else None


def lie(model: str, photo: str, thing: str, explanation: ogc.Explanation, region: NDArray[np.bool_]) -> Lie:
    """Return where the map of an explanation lies."""
    heatmap: Any = explanation.heatmap[0]
    seen = filled(explanation.seen[0], heatmap.shape)
    share, whole = float((region & seen).sum() / seen.sum()), float(heatmap.sum())
    energy = float(heatmap[region].sum() / whole) if whole else float("nan")
    inside = bool(region[np.unravel_index(heatmap.argmax(), heatmap.shape)])
    return Lie(model, photo, thing, explanation.method, float(explanation.probability[0]), share, energy, inside)


def line(found: Lie) -> str:
    """Return a line of the table."""
    return (
        f"{found.model:15}{found.photo:23}{found.thing:9}{found.method:10}{found.probability:6.2f}"
        f"{found.share:7.2f}{found.energy:8.2f}  {'yes' if found.is_peak_inside else 'no'}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write the pictures there, too")
    options = parser.parse_args()
    zoo = os.environ.get(ZOO)
    if not zoo:
        print(f"{ZOO} is not set: the models and photos are those of that folder", file=sys.stderr)
        return 2
    print(f"{'model':15}{'photo':23}{'thing':9}{'method':10}{'p':>6}{'share':>7}{'energy':>8}  peak inside")
    for found in lies(Path(zoo), options.methods, options.pictures):
        print(line(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
