"""Where the maps lie: on the zoo's photos, and on drawn scenes whose objects are known.

    python tools/localisation.py [--scenes 500] [--energy 200] [--json]

The photos are those of the zoo (ONNX_GRADCAM_ZOO names its folder), with the boxes of its README: a detector's, checked
by eye. The scenes hold two objects of different classes, each explained; ``models/shapes-resnet.onnx`` is judged beside
the same network with random weights, and beside the centre point. Of the attributions that every demo model gives for
``--energy`` of the scenes, the share of the energy (the sum of squares) on each object is counted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent))

from shapes import Scene, two_objects

import onnx_gradcam as ogc
from onnx_gradcam.photos.tensor import to_tensor

MODEL = Path(__file__).resolve().parent.parent / "models" / "shapes-resnet.onnx"
MODELS = tuple(MODEL.with_name(f"shapes-{name}.onnx") for name in ("inception", "resnet", "vgg"))
ATTRIBUTIONS = ("guided-gradcam", "guided-backprop", "saliency")
SCENES, SCENES_SEED, WEIGHTS_SEED = 500, 0, 0
ENERGY_SCENES, MARGIN = 200, 2
PIECE = 50  # scenes at a time

Box = tuple[int, int, int, int]


# Photos.


@dataclass(frozen=True)
class Boxed:
    """``box`` (x1, y1, x2, y2) in pixels of the photo; ``classes``: the ImageNet classes that such an object has."""

    photo: str
    thing: str
    box: Box
    classes: tuple[int, ...]


DOGS = tuple(range(151, 269))
BOXES = (  # the giraffe is left out: ImageNet has no such class
    Boxed("chelsea.png", "cat", (2, 1, 402, 293), (281, 282, 283, 284, 285)),
    Boxed("coffee.png", "cup", (171, 17, 425, 322), (504, 967, 968)),
    Boxed("both.png", "dog", (78, 14, 165, 149), DOGS),
    Boxed("darknet-dog.jpg", "dog", (132, 221, 310, 542), DOGS),
    Boxed("darknet-dog.jpg", "bicycle", (131, 140, 568, 420), (444, 671)),
    Boxed("darknet-dog.jpg", "car", (468, 75, 693, 172), (436, 468, 511, 609, 627, 656, 661, 717, 751, 817)),
    Boxed("darknet-giraffe.jpg", "zebra", (249, 205, 426, 432), (340,)),
    Boxed("chicken.jpg", "bird", (260, 141, 473, 394), (7, 8)),
)
UNBOXED = ("stm-mobilenetv2-035-tfs", "mesonet")  # flowers and faces: none of their photos has a box
ON_BOXES = "squeezenet-fp32-from-fp16"
# Of the pixels' spread zoo.json says only that its repository divides by it, and by 255.
SPREADS = {"sinet-softmax": (62.93 * 255, 62.82 * 255, 66.58 * 255)}


@dataclass(frozen=True)
class Evidence:
    """Where one map lies. ``peak`` (x, y): its maximum, in pixels of the photo.

    ``area``: the share of the box in what the model saw; ``evidence``: its share in the heatmap's sum. Both None where
    no box is known.
    """

    model: str
    photo: str
    thing: str
    label: str
    probability: float
    peak: tuple[int, int]
    area: float | None = None
    evidence: float | None = None
    peak_in_box: bool | None = None


def photo_rows(zoo: Path) -> Iterator[Evidence]:
    index = json.loads((zoo / "zoo.json").read_text("utf-8"))
    entry = index[ON_BOXES]
    with ogc.Explainer(zoo / entry["file"], labels="imagenet", providers=["cpu"]) as explainer:
        for boxed in BOXES:
            path, spec = zoo / "images" / boxed.photo, declared(entry)
            scores = next(iter(explainer.explain_image(path, preprocess=spec).outputs.values())).ravel()
            likeliest = max(boxed.classes, key=lambda c: scores[c])
            explanation = explainer.explain_image(path, likeliest, preprocess=spec)
            yield evidence(ON_BOXES, boxed.photo, explanation, boxed)
    for name in UNBOXED:
        entry = index[name]
        with ogc.Explainer(zoo / entry["file"], labels=entry["labels"], providers=["cpu"]) as explainer:
            for photo in entry["expect"]:
                explanation = explainer.explain_image(zoo / "images" / photo, preprocess=declared(entry))
                yield evidence(name, photo, explanation)


def declared(entry: Mapping[str, Any]) -> ogc.Preprocess:
    """The preprocessing that zoo.json states; its README adds the crop of the ImageNet models."""
    is_imagenet = entry.get("labels") == "imagenet-1k.txt"
    mean, std = (tuple(map(float, entry[key])) for key in ("mean", "std"))
    std = SPREADS.get(Path(entry["file"]).stem, std)
    return ogc.Preprocess(
        tuple(entry["size"]), "crop" if is_imagenet else "stretch", 256 if is_imagenet else None,
        entry["scale"], mean, std, entry["channels"], entry["layout"], entry["dtype"],
    )  # fmt: skip


def evidence(model: str, photo: str, explanation: ogc.Explanation, boxed: Boxed | None = None) -> Evidence:
    heatmap = explanation.heatmap[0]
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    row = model, photo, boxed.thing if boxed else "", explanation.label(0), float(explanation.probability[0])
    peak = int(x), int(y)
    if boxed is None:
        return Evidence(*row, peak)
    inside = filled(boxed.box, heatmap.shape)
    seen = filled(explanation.seen[0], heatmap.shape)
    area = float((inside & seen).sum() / seen.sum())
    share = float(heatmap[inside].sum() / heatmap.sum())
    return Evidence(*row, peak, area, share, bool(inside[y, x]))


def filled(box: Sequence[int], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    x1, y1, x2, y2 = box
    mask = np.zeros(shape, bool)
    mask[y1:y2, x1:x2] = True
    return mask


# Scenes.


@dataclass(frozen=True)
class Rates:
    """How often the point chosen for class c lies on object c, on the other object, elsewhere (or nowhere: blank)."""

    own: float
    other: float
    elsewhere: float


def draw(count: int) -> list[Scene]:
    rng = np.random.default_rng(SCENES_SEED)
    return [two_objects(rng) for _ in range(count)]


def tensors(explainer: ogc.Explainer, scenes: Iterable[Scene]) -> NDArray[np.float32]:
    spec = explainer.preprocessing().preprocess
    return np.concatenate([to_tensor(scene.image, spec)[0] for scene in scenes])


def explained(
    explainer: ogc.Explainer, scenes: Sequence[Scene], method: str = "gradcam"
) -> Iterator[tuple[int, Sequence[Scene], ogc.Explanation]]:
    """(k, scenes, their explanation for the class of object k), some scenes at a time."""
    for start in range(0, len(scenes), PIECE):
        piece = scenes[start : start + PIECE]
        x = tensors(explainer, piece)
        for k in (0, 1):
            yield k, piece, explainer.explain(x, [scene.labels[k] for scene in piece], method)


def pointing(explainer: ogc.Explainer, scenes: Sequence[Scene]) -> Rates:
    """The map's maximum, for both classes of each scene."""
    hits = []
    for k, piece, explanation in explained(explainer, scenes):
        for scene, heatmap, is_blank in zip(piece, explanation.heatmap, explanation.is_blank, strict=True):
            at = np.unravel_index(heatmap.argmax(), heatmap.shape)
            hits.append(hit(scene, k, at) if not is_blank else (False, False))
    return rates(hits)


def centre_point(scenes: Sequence[Scene]) -> Rates:
    return rates([hit(s, k, (s.image.shape[0] // 2, s.image.shape[1] // 2)) for s in scenes for k in (0, 1)])


def hit(scene: Scene, k: int, at: Sequence[Any]) -> tuple[bool, bool]:
    """Whether a pixel (y, x) is on object k, and whether it is on the other one."""
    y, x = at
    return bool(scene.masks[k, y, x]), bool(scene.masks[1 - k, y, x])


def rates(hits: Sequence[tuple[bool, bool]]) -> Rates:
    own, other = np.mean(hits, axis=0).tolist()
    return Rates(own, other, 1 - own - other)


@dataclass(frozen=True)
class Energy:
    """Where the energy Σ a² of an attribution for class c lies: mean shares of all maps that are not blank.

    ``inside``: on object c; ``own``: on it or within ``MARGIN`` pixels of it, since an edge has pixels on both sides of
    the outline; ``other``: the same of the other object; ``elsewhere``: the rest. ``blank``: the share of blank maps.
    """

    inside: float
    own: float
    other: float
    elsewhere: float
    blank: float


def energy(explainer: ogc.Explainer, scenes: Sequence[Scene], method: str) -> Energy:
    shares, blank = [], 0
    for k, piece, explanation in explained(explainer, scenes, method):
        assert explanation.attribution is not None
        for scene, attribution in zip(piece, explanation.attribution, strict=True):
            squares = np.square(attribution, dtype=np.float64).sum(axis=0)
            if squares.any():
                shares.append(energy_shares(squares, scene.masks[k], scene.masks[1 - k]))
            else:
                blank += 1
    inside, own, other = np.mean(shares, axis=0).tolist()
    return Energy(inside, own, other, 1 - own - other, blank / (len(shares) + blank))


def energy_shares(squares: NDArray[Any], own: NDArray[np.bool_], other: NDArray[np.bool_]) -> list[float]:
    """On the object, on it with its margin, and on the other with its; where margins meet, half each."""
    wide, beside = widened(own), widened(other)
    meet = wide & beside
    parts = [own, wide & ~meet, beside & ~meet, meet]
    inside, alone, apart, shared = (float(squares[part].sum() / squares.sum()) for part in parts)
    return [inside, alone + shared / 2, apart + shared / 2]


def widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels whose distance from the mask is ``MARGIN`` or less."""
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near: NDArray[np.bool_] = away <= MARGIN
    return near


def energy_results(count: int, models: Sequence[Path] = MODELS) -> dict[str, dict[str, Any]]:
    """By model and method, on the first scenes."""
    scenes, found = draw(count), {}
    for path in models:
        with ogc.Explainer(path, providers=["cpu"]) as explainer:
            found[path.stem] = {method: asdict(energy(explainer, scenes, method)) for method in ATTRIBUTIONS}
    return found


def random_weights(path: Path) -> onnx.ModelProto:
    """The same network untrained: weights N(0, 2 / fan-in) (He et al. 2015), biases 0."""
    rng = np.random.default_rng(WEIGHTS_SEED)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        trained = numpy_helper.to_array(tensor)
        if trained.dtype == np.float32:
            scale = math.sqrt(2 / np.prod(trained.shape[1:])) if trained.ndim > 1 else 0.0
            weights = (rng.standard_normal(trained.shape) * scale).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    return model


def cam_deviation(explainer: ogc.Explainer, scenes: Sequence[Scene]) -> float:
    """The largest |CAM − Grad-CAM · H · W| of a map, as a share of the CAM's maximum."""
    worst = 0.0
    pairs = zip(explained(explainer, scenes), explained(explainer, scenes, "cam"), strict=True)
    for (_, _, gradcam), (_, _, cam) in pairs:
        area = math.prod(cam.cam.shape[1:])
        difference = np.abs(cam.cam - gradcam.cam * area).max(axis=(1, 2))
        largest = cam.cam.max(axis=(1, 2))
        worst = max(worst, float((difference / np.where(largest > 0, largest, 1)).max()))
    return worst


def scene_results(count: int) -> dict[str, Any]:
    scenes = draw(count)
    random = random_weights(MODEL)
    with ogc.Explainer(MODEL, providers=["cpu"]) as trained, ogc.Explainer(random, providers=["cpu"]) as untrained:
        return {
            "model": MODEL.stem,
            "scenes": count,
            "largest object": max(float(scene.masks.mean(axis=(1, 2)).max()) for scene in scenes),
            "rates": {
                "trained": asdict(pointing(trained, scenes)),
                "random weights": asdict(pointing(untrained, scenes)),
                "centre point": asdict(centre_point(scenes)),
            },
            "cam deviation": cam_deviation(trained, scenes),
        }


# The program.


def photo_table(rows: Iterable[Evidence]) -> Iterator[str]:
    head = f"{'model':27}{'photo':22}{'object':9}{'class':20}{'p':>6}"
    yield head + f"{'box/seen':>10}{'evidence':>10}{'peak':>10}  in box"
    for row in rows:
        shares = ["-" if v is None else f"{v:.2f}" for v in (row.area, row.evidence)]
        verdict = "no box known" if row.peak_in_box is None else "yes" if row.peak_in_box else "no"
        note = ", proves nothing" if row.area and row.area > 0.5 else ""
        yield (
            f"{row.model:27}{row.photo:22}{row.thing:9}{row.label[:19]:20}{row.probability:6.3f}"
            f"{shares[0]:>10}{shares[1]:>10}{'{},{}'.format(*row.peak):>10}  {verdict}{note}"
        )


def scene_table(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{found['model']}, {found['scenes']} scenes of two objects, none above {found['largest object']:.1%} of it"
    yield f"{'maximum for class c lies':27}{'on object c':>13}{'on the other':>14}{'elsewhere':>11}"
    for name, r in found["rates"].items():
        yield f"{name:27}{r['own']:13.1%}{r['other']:14.1%}{r['elsewhere']:11.1%}"
    yield f"largest |CAM - Grad-CAM * H * W| / max CAM: {found['cam deviation']:.1e}"


def energy_table(count: int, found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield f"energy (sum of squares) of the attribution for class c, {count} scenes, two classes each"
    names = ("on object c", f"+ {MARGIN} px", "other + same", "elsewhere", "blank maps")
    yield f"{'model':18}{'method':16}{''.join(f'{name:>14}' for name in names)}"
    for model, methods in found.items():
        for method, shares in methods.items():
            yield f"{model:18}{method:16}{''.join(f'{share:14.1%}' for share in shares.values())}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--energy", type=int, default=ENERGY_SCENES, help="scenes whose attributions are judged")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the tables")
    options = parser.parse_args()
    zoo = os.environ.get("ONNX_GRADCAM_ZOO")
    photos = list(photo_rows(Path(zoo))) if zoo else []
    scenes = scene_results(options.scenes)
    energies = energy_results(options.energy)
    if options.json:
        print(
            json.dumps(
                {"photos": [asdict(row) for row in photos], "scenes": scenes, "energy": energies},
                indent=2,
                allow_nan=False,
            )
        )
        return
    print("\n".join(photo_table(photos) if zoo else ["photos: ONNX_GRADCAM_ZOO is not set"]), end="\n\n")
    print("\n".join(scene_table(scenes)), end="\n\n")
    print("\n".join(energy_table(options.energy, energies)))


if __name__ == "__main__":
    main()
