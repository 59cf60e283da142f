"""What `onnx-gradcam demo` explains: the bundled model and images, through the same job as any other."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from onnx_gradcam.jobs.request import Request

MODEL = "shapes-resnet.onnx"


def folder() -> Path:
    """Return where the demo models and images are installed."""
    return Path(str(importlib.resources.files("onnx_gradcam.models")))


def request() -> Request:
    """Return the request for the two most probable classes of each demo photo."""
    return Request(model=str(folder() / MODEL), images=(str(folder() / "images"),), targets=("top2",))
