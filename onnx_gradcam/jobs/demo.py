"""What `onnx-gradcam demo` explains: bundled models and images, through the same job as any other."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from onnx_gradcam.errors import InputError, nearest
from onnx_gradcam.explain.sentences import OWN
from onnx_gradcam.jobs.pictures import Pictures
from onnx_gradcam.jobs.request import Request
from onnx_gradcam.results.scales import IMAGE, SHARED

Requests = Mapping[str, Request]
"""What is run, by the folder of its results within that of the demo; one alone has "" and takes the folder itself."""


def folder() -> Path:
    """Return where the demo models and images are installed."""
    return Path(str(importlib.resources.files("onnx_gradcam.models")))


def requests(task: str, pictures: Pictures) -> Requests:
    """Return what is run to show a task.

    Raises:
        InputError: there is no such task.
    """
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}", hint=nearest(task, TASKS), task=task)
    return TASKS[task](pictures)


def _classify(pictures: Pictures) -> Requests:
    """Return the request for the two most probable classes of each demo photo."""
    return {"": _request("shapes-resnet.onnx", "images", _at_one_scale(pictures), targets=("top2",))}


def _bias(pictures: Pictures) -> Requests:
    """Return the same photos for a model that learnt a cue beside the class, and for one that did not."""
    of_all = _at_one_scale(pictures)
    return {name: _request(f"shapes-{name}.onnx", "images-bias", of_all) for name in ("biased", "debiased")}


def _at_one_scale(pictures: Pictures) -> Pictures:
    """Return pictures at one scale unless another is given.

    At its own scale the map of a class of p 0.007 would look like that of a class of p 0.976.
    """
    return replace(pictures, scale=pictures.scale or SHARED)


def _caption(pictures: Pictures) -> Requests:
    """Return the request for what a model says of drawn scenes, word by word; each map has its own scale."""
    return {"": replace(_of_scenes("shapes-caption.onnx", pictures), sentence=OWN)}


def _questions(pictures: Pictures) -> Requests:
    """Return a request for each of some questions about a drawn scene."""
    of_scene = _of_scenes("shapes-vqa.onnx", pictures, f"{FIRST_SCENE}.png")
    return {name: replace(of_scene, question=question) for name, question in QUESTIONS.items()}


def _detect(pictures: Pictures) -> Requests:
    """Return the request for all objects that a detector finds in drawn scenes."""
    return {"": replace(_of_scenes("shapes-detector.onnx", pictures), targets=("boxes",))}


def _segment(pictures: Pictures) -> Requests:
    """Return the request for the two classes that a segmenter is surest of in drawn scenes."""
    return {"": replace(_of_scenes("shapes-segmenter.onnx", pictures), targets=("top2",))}


def _of_scenes(model: str, pictures: Pictures, photo: str = "") -> Request:
    """Return the request for the scenes of coloured shapes, or for one of them, each map at its own scale."""
    return _request(model, f"images-tasks/{photo}", replace(pictures, scale=pictures.scale or IMAGE))


def _request(model: str, images: str, pictures: Pictures, targets: tuple[str, ...] = ("top1",)) -> Request:
    photos = (str(folder() / images),)
    return Request(model=str(folder() / model), images=photos, targets=targets, pictures=pictures)


FIRST_SCENE = "red-star-left-of-blue-heart"
QUESTIONS: Mapping[str, str] = {
    "colour": "What colour is the star?",
    "shape": "What shape is the blue thing?",
    "presence": "Is there a star?",
    "place": "What is left of the heart?",
}
"""The folder of the results → the question about ``FIRST_SCENE``."""
CLASSIFY = "classify"
TASKS: Mapping[str, Callable[[Pictures], Requests]] = {
    CLASSIFY: _classify,
    "caption": _caption,
    "vqa": _questions,
    "detect": _detect,
    "segment": _segment,
    "bias": _bias,
}
"""Task → what is run to show it."""
