"""The tables of what tools/same_results.py records: models, requests to ``explain``, and commands.

The names of cases are part of a recording: two recordings are compared case by case, by these names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import onnx_gradcam as ogc

DEMO = Path(__file__).resolve().parent.parent / "models"


def zoo_folder() -> Path | None:
    """Return the folder that $ONNX_GRADCAM_ZOO names, or None where it is not set."""
    folder = os.environ.get("ONNX_GRADCAM_ZOO")
    return Path(folder).resolve() if folder else None


# --- models ------------------------------------------------------------------------------------------------

GREY: dict[str, Any] = {
    "channels": "L",
    "scale": 1 / 255,
    "mean": [0.0],
    "std": [1.0],
    "layout": "NCHW",
    "dtype": "float32",
}
SHAPES: dict[str, Any] = {
    **GREY,
    "channels": "RGB",
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "size": [96, 96],
    "resize": "stretch",
}
HEAVY = ("deeplab-dm05", "niivue-3d")
"""Models that take minutes: one request has to do."""


@dataclass(frozen=True)
class Model:
    """A model that is recorded.

    Attributes:
        path: its file; the stem is its name in the recording.
        task: what it is for: "classify", "detect" …
        preprocess: how a photo becomes its input, as ``explain_image`` takes it.
        photo: the photo that it is shown.
    """

    path: Path
    task: str
    preprocess: Mapping[str, Any]
    photo: Path

    @property
    def is_heavy(self) -> bool:
        """Tell whether the model takes minutes."""
        return self.path.stem in HEAVY

    @property
    def is_volume(self) -> bool:
        """Tell whether the model takes volumes instead of photos."""
        return bool(self.preprocess["layout"] == "NCDHW")


def models() -> list[Model]:
    """Return the demo models, and those of the zoo where it is there."""
    zoo = zoo_folder()
    return [*demo_models(), *(zoo_models(zoo) if zoo else ())]


def demo_models() -> Iterator[Model]:
    """Yield the models that the package carries for its photos."""
    for name in ("inception", "resnet", "vgg"):
        path = DEMO / f"shapes-{name}.onnx"
        yield Model(path, "classify", SHAPES, DEMO / "images" / "cross.png")


def zoo_models(zoo: Path) -> Iterator[Model]:
    """Yield the models that ``zoo.json`` lists, each with a photo of what it knows."""
    for name, entry in json.loads((zoo / "zoo.json").read_text("utf-8")).items():
        photo = next(iter(entry.get("expect", {})), "mesonet/real00240.jpg")
        yield Model(zoo / entry["file"], entry["task"].split()[0], zoo_preprocess(name, entry), zoo / "images" / photo)


def zoo_preprocess(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a photo becomes the input of a model of the zoo: as its entry says, else grey and small."""
    size = [28, 28] if "mnist" in name else [64, 64]
    preprocess = {**GREY, "size": size, "resize": "stretch"} | {key: entry[key] for key in SHAPES if key in entry}
    is_imagenet = entry.get("labels") == "imagenet-1k.txt"
    return preprocess | {"resize": "crop" if is_imagenet else preprocess["resize"].partition(",")[0]}


# --- requests ----------------------------------------------------------------------------------------------

NOISE: dict[str, Any] = {"samples": 2, "noise": 0.1, "seed": 3}
METHODS: dict[str, dict[str, Any]] = {
    **{
        name: {"method": name}
        for name in """gradcam gradcam++ xgradcam hirescam elementwise layercam cam eigencam eigengradcam shapleycam
        saliency input-x-gradient guided-backprop deconvolution fullgrad guided-gradcam guided-layercam
        guided-eigencam""".split()
    },
    "integrated-gradients": {"method": "integrated-gradients", "steps": 3},
    **{
        name: {"method": name, **NOISE}
        for name in "smooth-gradcam++ guided-smooth-gradcam++ smoothgrad squaregrad vargrad".split()
    },
}
FEW_METHODS = ("gradcam", "saliency", "guided-gradcam")
SMOOTHINGS: dict[str, dict[str, Any]] = {
    "smooth-aug": {"smooth": "aug"},
    "smooth-noise": {"smooth": "noise", **NOISE},
    "smooth-eigen": {"smooth": "eigen"},
    "smooth-two": {"smooth": ("aug", "eigen"), "method": "gradcam++"},
}
REFUSED: dict[str, dict[str, Any]] = {
    "no-method": {"method": "grad"},
    "no-option": {"steps": 3},
    "no-fusion": {"fusion": "sum"},
    "no-two": {"smooth": ("aug", "noise")},
    "no-blur": {"smooth": "blur"},
    "no-few": {"smooth": "noise", "samples": 0},
}
TARGETS: dict[str, Any] = {
    "index": 1,
    "topk": ogc.TopK(2),
    "classes": ogc.Classes([1, 0]),
    "each": ogc.Each([0, ogc.Probability()]),
    "logprobability": ogc.LogProbability(0),
    "difference": ogc.Difference(None, 0),
    "finer": ogc.Finer(),
    "far": 9999,
    "output": ogc.Output(1, -1),
    "label": "star",
    "synonym": "goldfish",
    "many": [0, 1, 1],
    "no": ogc.Classes([]),
    "box": ogc.Box(210, None, "class", 1),
    "point": ogc.Box(point=(150, 160)),
    "objectness": ogc.Box(point=(150, 160), what="objectness"),
    "iou": ogc.Box(what="iou", box=(60, 80, 200, 230)),
    "region": ogc.Region(),
    "mask": ogc.Region(0, mask=np.tri(320)),
    "part": ogc.Region(1, box=(40, 40, 200, 200)),
}
TARGETS_OF_TWO: dict[str, Any] = {"batch-list": [1, ogc.Probability(0)], "batch-topk": ogc.TopK(2)}
"""Targets for two images."""


@dataclass(frozen=True)
class Request:
    """A call of ``explain``.

    Attributes:
        keywords: its arguments after the images.
        images: how many images it is given, 1 or 2.
        with_photo: whether ``explain_image`` is called with the same arguments, too.
    """

    keywords: Mapping[str, Any]
    images: int = 1
    with_photo: bool = False


def requests(model: Model) -> dict[str, Request]:
    """Return what ``explain`` is called with for a model, by the name of the case."""
    if model.is_heavy:
        return {"gradcam": Request({}, with_photo=True)}
    both = {name: Request(keywords, with_photo=True) for name, keywords in {**METHODS, **SMOOTHINGS}.items()}
    refused = {name: Request(keywords) for name, keywords in REFUSED.items()}
    return {**both, **refused, **target_requests(), **variants(model.task)}


def target_requests() -> dict[str, Request]:
    """Return the requests that differ in the target only."""
    one = {name: Request({"target": target}, with_photo=True) for name, target in TARGETS.items()}
    two = {name: Request({"target": target}, 2, with_photo=True) for name, target in TARGETS_OF_TWO.items()}
    return {f"target-{name}": request for name, request in {**one, **two}.items()}


def variants(task: str) -> dict[str, Request]:
    """Return the methods on two images, signed, and against the target; of models with many scores a few methods."""
    names = METHODS if task == "classify" else FEW_METHODS
    plain = {name: Request(METHODS[name]) for name in names}
    smooth = {name: Request(keywords) for name, keywords in SMOOTHINGS.items()}
    return {
        **{f"batch-{name}": replace(request, images=2) for name, request in {**plain, **smooth}.items()},
        **{f"signed-{name}": Request({**request.keywords, "signed": True}) for name, request in plain.items()},
        **{f"against-{name}": Request({**r.keywords, "counterfactual": True}) for name, r in plain.items()},
    }


# --- commands ----------------------------------------------------------------------------------------------

RESNET = "explain {demo}/shapes-resnet.onnx {demo}/images/cross.png"
YOLOX = "explain {zoo}/models/yolox-nano.onnx {zoo}/images/darknet-dog.jpg"
SINET = "explain {zoo}/models/sinet-softmax.onnx {zoo}/images/wolves.jpg"
SQUEEZENETS = "compare {zoo}/models/squeezenet-fp16.onnx {zoo}/models/squeezenet-fp32-from-fp16.onnx {demo}/images"
COMMANDS = {
    "demo": ["demo -o out", "demo -o out"],
    "verify": ["verify {demo}/shapes-vgg.onnx", "verify {zoo}/models/winml-mnist.onnx"],
    "compare": [f"{SQUEEZENETS} --json", f"{SQUEEZENETS} --require pearson:p05>=1.1"],
    "repeat": [f"{RESNET} {{demo}}/images -o out --target top2 --json", "explain --from out/manifest.json"],
    "resnet": [
        f"{RESNET} -o 0 --both",
        f"{RESNET} -o 1 --true star",
        f"{RESNET} -o 2 --signed --method cam",
        f"{RESNET} -o 3 --method guided-gradcam",
        f"{RESNET} -o 4 --method smoothgrad --option samples=2",
        f"{RESNET} -o 5 --target prob:cross --target finer:0",
    ],
    "places": [
        f"{YOLOX} -o 0 --target cell:9",
        f"{YOLOX} -o 1 --target point:16@220,380",
        f"{YOLOX} -o 2 --target objectness:9",
        f"{SINET} -o 3 --target argmax:1",
        f"{SINET} -o 4 --target box:1@200,90,300,200",
    ],
    "refused": [
        f"{RESNET} --target cat",
        f"{RESNET} --method a",
        f"{RESNET} --layer a",
        f"{RESNET} --option a",
        f"{RESNET} --grid 1",
    ],
}
"""By case the command lines that are run one after the other in one folder."""


def commands() -> dict[str, list[list[str]]]:
    """Return by case the arguments of each command line; those that need the zoo only where it is there."""
    zoo = zoo_folder()
    lines = {case: [line for line in lines if zoo or "{zoo}" not in line] for case, lines in COMMANDS.items()}
    tables = {case: [arguments(line, zoo) for line in kept] for case, kept in lines.items() if kept}
    return tables | {f"inspect-{model.path.stem}": [["inspect", str(model.path)]] for model in models()}


def arguments(line: str, zoo: Path | None) -> list[str]:
    """Return the words of a command line with the folders of the models filled in."""
    return [word.format(demo=DEMO, zoo=zoo) for word in line.split()]
