"""A small network and labelled photos of its own size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from nets import Net

LABELS = ("heart", "star", "moon")
SIDE = 16
HEADER = "path,label,box,mask,group,region:badge,region:sky"


def network(layout: str = "NCHW") -> onnx.ModelProto:
    """Return a network of two convolutions for photos of 16 × 16 pixels, from 0 to 1."""
    net = Net(seed=3)
    channels_first = layout == "NCHW"
    image = net.input("image", ["N", 3, SIDE, SIDE] if channels_first else ["N", SIDE, SIDE, 3])
    x = image if channels_first else net.op("Transpose", image, perm=[0, 3, 1, 2])
    x = net.op("Relu", net.conv(x, (3, 4), stride=2))
    x = net.op("Relu", net.conv(x, (4, 6)), out="last")
    flat = net.op("Flatten", net.op("GlobalAveragePool", x))
    positive = np.random.default_rng(5).uniform(0.2, 3, (len(LABELS), 6)).astype(np.float32)  # no map is blank
    model = net.model({net.op("Gemm", flat, net.array(positive), transB=1, out="logits"): ["N", len(LABELS)]})
    properties = {"labels": ",".join(LABELS)}
    onnx.helper.set_model_props(model, properties)
    return model


def photo(path: Path, seed: int) -> np.ndarray:
    """Write the photo of a seed, and return it."""
    pixels = pixels_of(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[:, :, ::-1])
    return pixels


def pixels_of(seed: int) -> np.ndarray:
    """Return a photo with a bright block, (16, 16, 3) uint8 RGB."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (SIDE, SIDE, 3)).astype(np.uint8)
    y, x = rng.integers(0, SIDE - 6, 2)
    pixels[y : y + 6, x : x + 6] += 150
    return pixels


def table(folder: Path, *lines: str) -> Path:
    """Write a table with the columns of ``HEADER``."""
    file = folder / "data.csv"
    file.write_text("\n".join([HEADER, *lines]), "utf-8")
    return file
