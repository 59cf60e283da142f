"""What `onnx-gradcam demo` explains: bundled models and images, through the same job as any other."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from onnx_gradcam.errors import InputError, nearest
from onnx_gradcam.jobs.pictures import Pictures
from onnx_gradcam.jobs.request import Request
from onnx_gradcam.results.scales import SHARED

Requests = Mapping[str, Request]
"""What is run, by the folder of its results within that of the demo; one alone has "" and takes the folder itself."""


def folder() -> Path:
    """Return where the demo models and images are installed."""
    return Path(str(importlib.resources.files("onnx_gradcam.models")))


def requests(task: str, pictures: Pictures) -> Requests:
    """Return what is run to show a task, at one scale unless another is given.

    At its own scale the map of a class of p 0.007 would look like that of a class of p 0.976.

    Raises:
        InputError: there is no such task.
    """
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}", hint=nearest(task, TASKS), task=task)
    return TASKS[task](replace(pictures, scale=pictures.scale or SHARED))


def _classify(pictures: Pictures) -> Requests:
    """Return the request for the two most probable classes of each demo photo."""
    return {"": _request("shapes-resnet.onnx", "images", pictures, targets=("top2",))}


def _bias(pictures: Pictures) -> Requests:
    """Return the same photos for a model that learnt a cue beside the class, and for one that did not."""
    return {name: _request(f"shapes-{name}.onnx", "images-bias", pictures) for name in ("biased", "debiased")}


def _request(model: str, images: str, pictures: Pictures, targets: tuple[str, ...] = ("top1",)) -> Request:
    photos = (str(folder() / images),)
    return Request(model=str(folder() / model), images=photos, targets=targets, pictures=pictures)


CLASSIFY = "classify"
TASKS: Mapping[str, Callable[[Pictures], Requests]] = {CLASSIFY: _classify, "bias": _bias}
"""Task → what is run to show it."""
