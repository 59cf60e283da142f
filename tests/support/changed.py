"""A model in which one value is fed: what perturbation methods do, copy by copy, by the whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

Score = Callable[[np.ndarray], float]


def with_fed(model: onnx.ModelProto, name: str, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Return a copy whose nodes read the input ``<name>_fed`` in the place of the value ``name``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.input[:] = [f"{name}_fed" if read == name else read for read in node.input]
    copy.graph.input.append(helper.make_tensor_value_info(f"{name}_fed", kind, None))
    return copy


def runner(model: onnx.ModelProto, name: str, feeds: Mapping[str, np.ndarray], output: str) -> Any:
    """Return a function from the value ``name`` to the output, the other inputs being ``feeds``."""
    copy = with_fed(model, name)
    if output not in [v.name for v in copy.graph.output]:
        copy.graph.output.append(onnx.ValueInfoProto(name=output))
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda value: session.run([output], {**feeds, f"{name}_fed": value})[0]


def value_of(model: onnx.ModelProto, name: str, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return a value of the model."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if name not in [v.name for v in copy.graph.output]:
        copy.graph.output.append(onnx.ValueInfoProto(name=name))
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([name], dict(feeds))[0])


def ablation_cam(a: np.ndarray, score: Score) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights (C,) and the map before its ReLU, for A (C, *space) of one image: each channel left out."""
    y = score(a)
    weights = np.zeros(len(a))
    for k in range(len(a)):
        without = a.copy()
        without[k] = 0
        weights[k] = (y - score(without)) / abs(y)
    return weights, sum(w * channel.astype(np.float64) for w, channel in zip(weights, a, strict=True))


def recipro_cam(a: np.ndarray, score: Score, gaussian: bool = True) -> np.ndarray:
    """Return the map for A (C, H, W) of one image: each position alone, with a share of its neighbours."""
    _, height, width = a.shape
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            mask = np.zeros((height, width), np.float32)
            for p in range(max(0, i - 1), min(height, i + 2)):
                for q in range(max(0, j - 1), min(width, j + 2)):
                    steps = abs(p - i) + abs(q - j)
                    mask[p, q] = {0: 4, 1: 2, 2: 1}[steps] / 16 if gaussian else float(steps == 0)
            out[i, j] = score(a * mask)
    return out - out.min()
