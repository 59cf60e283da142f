"""The pictures of the pages about attacks, mistakes and bias; ``gallery.py`` writes them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
from bias_study import MODELS, PHOTOS
from shapes import CLASSES, single_object

import onnx_gradcam as ogc
from onnx_gradcam.jobs.attack.pictures import attack_picture
from onnx_gradcam.results.contact import sheet_of, thumbnails, title_of
from onnx_gradcam.results.picture.overlay import Picture

SHAPES = Path(__file__).resolve().parent.parent / "models"
MODEL = SHAPES / "shapes-resnet.onnx"
SMALL, SMALL_SEED, SMALL_SCENES = (0.06, 0.12), 77, 60
"""The radius of objects smaller than those of the training, and the scenes in which mistakes are looked for."""
NARROW = 720


def attack_cross() -> Picture:
    """Return what ``attack --attack pgd`` draws for one demo photo."""
    with ogc.Explainer(MODEL, providers=["cpu"]) as explainer:
        result = ogc.attack(explainer, SHAPES / "images" / "cross.png", method="pgd")
        classes = ogc.Classes([int(result.before[0]), int(result.after[0])])
        before, after = (explainer.explain(x, classes) for x in (result.x, result.adversarial))
    picture = attack_picture(result, before, after, "cross.png")
    assert picture is not None
    return _narrower(picture)


def bias() -> Picture:
    """Return the same four photos, explained by the biased model and by the other one."""
    paths = sorted(PHOTOS.glob("*.png"))
    pages = []
    for model in MODELS.values():
        with ogc.Explainer(model, providers=["cpu"]) as explainer:
            results = [explainer.explain_image(path) for path in paths]
        cells = [cell for path, result in zip(paths, results, strict=True) for cell in thumbnails(result, path.stem)]
        pages.append(sheet_of(cells, title_of(results[0])[:2], columns=len(paths)))
    width = max(page.shape[1] for page in pages)
    return _narrower(
        np.concatenate(
            [np.pad(page, ((0, 0), (0, width - page.shape[1]), (0, 0)), constant_values=255) for page in pages]
        )
    )


def mistakes() -> Picture:
    """Return what ``explain --failures`` draws for scenes whose objects are smaller than those of the training."""
    rng = np.random.default_rng(SMALL_SEED)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(SMALL_SCENES):
            scene = single_object(rng, (96, 96), SMALL)
            path = Path(folder) / CLASSES[scene.labels[0]] / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), scene.image[..., ::-1])
        sheet = ogc.failures(MODEL, folder, limit=3, providers=["cpu"]).sheet()
    assert sheet is not None
    return _narrower(sheet)


def _narrower(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    return cv2.resize(picture, (NARROW, height * NARROW // width), interpolation=cv2.INTER_AREA).astype(np.uint8)
