"""What is measured, piece by piece: a network, a method, a layer, scenes and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx_gradcam as ogc

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "models"
RESNET, VGG, VGG_GAP, INCEPTION = "scenes-resnet", "scenes-vgg", "scenes-vgg-gap", "scenes-inception"
CLASSIFIERS = (RESNET, VGG, VGG_GAP, INCEPTION)
PLACES = ("localisation-error", "localisation-error-30", "localisation-error-50", "localisation-error-top1", "pointing")
RANDOM_LAYERS = "cascading-randomisation"
OCCLUSION = "occlusion-correlation"

SCENES = 200  # of those with one object, and of those with two
FEW = 40  # scenes where a figure takes hundreds of runs
OF_LAYERS = 100


@dataclass(frozen=True)
class Piece:
    """One evaluation.

    Attributes:
        section: the part of the page in which it stands.
        model: the name of the network.
        method: the method of the maps.
        metrics: what is measured.
        scenes: how many scenes.
        objects: how many objects each scene has; all are explained.
        layer: the target layer.
        probability: whether the probability is explained, not the logit.
        attacked: whether the scenes are attacked first.
    """

    section: str
    model: str
    method: str
    metrics: tuple[str, ...]
    scenes: int
    objects: int = 1
    layer: str = "auto"
    probability: bool = False
    attacked: bool = False


def all_pieces() -> list[Piece]:
    """Return all that is measured, in the order of the page."""
    return [piece for section in (localisation, occlusion, discrimination, layers, scores, randomisation, attacks)
            for piece in section()]  # fmt: skip


def localisation() -> Iterator[Piece]:
    """Yield where the maps of scenes with one object lie."""
    for model in (RESNET, VGG, INCEPTION, VGG_GAP):
        yield Piece("localisation", model, "gradcam", PLACES, SCENES)
    yield Piece("localisation", VGG_GAP, "cam", PLACES, SCENES)
    for method in ("guided-gradcam", "saliency"):
        yield from (Piece("localisation", model, method, PLACES, SCENES) for model in (RESNET, VGG))


def occlusion() -> Iterator[Piece]:
    """Yield the rank correlation of maps with occlusion."""
    for model in (RESNET, VGG):
        for method in ("guided-gradcam", "guided-backprop", "gradcam"):
            yield Piece("occlusion", model, method, (OCCLUSION,), FEW)


def discrimination() -> Iterator[Piece]:
    """Yield how often the map of one of two objects has more of its energy there than the map of the other."""
    for model in (RESNET, VGG, INCEPTION):
        for method in ("gradcam", "guided-gradcam", "guided-backprop"):
            yield Piece("discrimination", model, method, ("discrimination", "pointing"), SCENES // 2, objects=2)


def layers() -> Iterator[Piece]:
    """Yield the maps of each layer of two networks, the shallowest first."""
    for model in (RESNET, VGG):
        for layer in layer_names(model):
            metrics = ("localisation-error", "pointing", "energy")
            yield Piece("layers", model, "gradcam", metrics, OF_LAYERS, layer=layer)


@cache
def layer_names(model: str) -> Sequence[str]:
    """Return the names of the candidate layers of a network, the shallowest first."""
    return tuple(layer.name for layer in reversed(ogc.layers(MODELS / f"{model}.onnx")))


def scores() -> Iterator[Piece]:
    """Yield the maps of the logit and of the probability, on scenes with two objects."""
    for model in (RESNET, VGG, INCEPTION):
        for probability in (False, True):
            metrics = ("localisation-error", "pointing")
            yield Piece("scores", model, "gradcam", metrics, SCENES // 2, objects=2, probability=probability)


def randomisation() -> Iterator[Piece]:
    """Yield how alike a map stays while layer after layer loses its weights."""
    for model in (RESNET, VGG):
        for method in ("gradcam", "guided-gradcam", "guided-backprop"):
            yield Piece("randomisation", model, method, (RANDOM_LAYERS,), FEW)


def attacks() -> Iterator[Piece]:
    """Yield where the map of the true class lies before and after an attack."""
    for model in (RESNET, VGG, INCEPTION):
        for attacked in (False, True):
            yield Piece("attacks", model, "gradcam", ("pointing", "energy"), SCENES // 2, attacked=attacked)
