"""What `onnx-gradcam demo` explains: the bundled model and images, through the same job as any other."""

from __future__ import annotations

import importlib.resources
from dataclasses import replace
from pathlib import Path

from onnx_gradcam.jobs.pictures import Pictures
from onnx_gradcam.jobs.request import Request
from onnx_gradcam.results.scales import SHARED

MODEL = "shapes-resnet.onnx"


def folder() -> Path:
    """Return where the demo models and images are installed."""
    return Path(str(importlib.resources.files("onnx_gradcam.models")))


def request(pictures: Pictures) -> Request:
    """Return the request for the two most probable classes of each demo photo, at one scale unless another is given.

    At its own scale the map of a class of p 0.007 would look like that of a class of p 0.976.
    """
    at_one_scale = replace(pictures, scale=pictures.scale or SHARED)
    photos = (str(folder() / "images"),)
    return Request(model=str(folder() / MODEL), images=photos, targets=("top2",), pictures=at_one_scale)
