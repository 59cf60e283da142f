"""A small network of all linear layers and pools, as a model and written out in matrices."""

from __future__ import annotations

import functools
from typing import Any

import naive_relevance as naive
import numpy as np
import onnx
from nets import BATCH, Net

SIZE, TARGETS, EPSILON = 8, [2, 0], 1e-5
SHAPES = {
    "w1": (4, 3, 3, 3),
    "b1": (4,),
    "w2": (6, 2, 3, 3),
    "b2": (6,),
    "shift": (6,),
    "mean": (6,),
    "w3": (6, 7),
    "b3": (7,),
    "w4": (5, 7),
    "b4": (5,),
}
RNG = np.random.default_rng(5)
W = {name: (RNG.standard_normal(shape) / 2).astype(np.float32) for name, shape in SHAPES.items()}
W |= {name: RNG.uniform(0.5, 2, 6).astype(np.float32) for name in ("scale", "variance")}
X = RNG.standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)


def network(are_apart: bool = True, has_biases: bool = True) -> onnx.ModelProto:
    """Two convolutions, the second in groups and before BatchNormalization, two pools and two linear layers.

    ``are_apart``: the first linear layer is a MatMul and an Add; else a Gemm.
    """
    net = Net()
    net.input("x", [BATCH, 3, SIZE, SIZE])
    is_kept = {name: has_biases or name not in ("b1", "b2", "shift", "mean", "b3", "b4") for name in W}
    w = {name: net.array(array * np.float32(is_kept[name]), name) for name, array in W.items()}
    y = net.op("Relu", net.op("Conv", "x", w["w1"], w["b1"], pads=[1] * 4))
    y = net.op("Conv", y, w["w2"], w["b2"], pads=[1] * 4, strides=[2, 2], group=2)
    y = net.op("BatchNormalization", y, w["scale"], w["shift"], w["mean"], w["variance"], epsilon=EPSILON)
    y = net.op("MaxPool", net.op("Relu", y), kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    y = net.op("Add", net.op("MatMul", y, w["w3"]), w["b3"]) if are_apart else net.op("Gemm", y, w["w3"], w["b3"])
    net.op("Gemm", net.op("Relu", y), w["w4"], w["b4"], out="logits", transB=1)
    return net.model({"logits": [BATCH, 5]})


@functools.cache
def chain() -> list[Any]:
    """The same network, written out."""
    w = {name: array.astype(np.float64) for name, array in W.items()}
    slope = w["scale"] / np.sqrt(w["variance"] + EPSILON)
    first = naive.matrix_of(lambda x: naive.correlate(x, w["w1"], 1, 1), (3, SIZE, SIZE))
    second = naive.matrix_of(lambda x: slope[:, None, None] * naive.correlate(x, w["w2"], 2, 1, 2), (4, SIZE, SIZE))
    places = np.arange(6 * 16).reshape(6, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(24, 4)
    return [
        naive.Linear("convolution", first, np.repeat(w["b1"], SIZE**2)),
        naive.Relu(),
        naive.Linear("convolution", second, np.repeat(slope * (w["b2"] - w["mean"]) + w["shift"], 16)),
        naive.Relu(),
        naive.MaxPool(places),
        naive.Pool(np.arange(24).reshape(6, 4)),
        naive.Linear("linear", w["w3"], w["b3"]),
        naive.Relu(),
        naive.Linear("linear", w["w4"].T, w["b4"]),
    ]
