"""A small ReLU network twice: as a model, and naively in float64, with a backward pass written by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from nets import Net
from onnx import helper

Array = np.ndarray
SIZE, CLASSES = 6, 4

RECTIFIED: Mapping[str, Callable[[Array, Array], Array]] = {
    "gradient": lambda g, x: g * (x > 0),
    "guided": lambda g, x: g * (x > 0) * (g > 0),
    "deconvolution": lambda g, x: g * (g > 0),
}
"""The cotangent of x, of that of relu(x)."""


@dataclass(frozen=True)
class Weights:
    """Convolution 3 × 3, ReLU, convolution 1 × 1, ReLU, mean over space, linear layer."""

    w1: Array
    b1: Array
    w2: Array
    b2: Array
    w3: Array
    b3: Array


def weights(seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    shapes = [(5, 3, 3, 3), (5,), (6, 5, 1, 1), (6,), (CLASSES, 6), (CLASSES,)]
    return Weights(*(rng.standard_normal(s).astype(np.float32) / np.float32(np.sqrt(np.prod(s[1:]))) for s in shapes))


def model(w: Weights, batch: int | str = "N", channels_last: bool = False, dtype: type = np.float32) -> onnx.ModelProto:
    """``dtype``: of the input, all weights and all values."""
    net = Net()
    w = Weights(*(array.astype(dtype) for array in dataclasses.astuple(w)))
    x = net.input("x", [batch, SIZE, SIZE, 3] if channels_last else [batch, 3, SIZE, SIZE], dtype)
    x = net.op("Transpose", x, perm=[0, 3, 1, 2]) if channels_last else x
    x = net.op("Conv", x, net.array(w.w1), net.array(w.b1), pads=[1, 1, 1, 1], out="conv1")
    x = net.op("Conv", net.op("Relu", x, out="relu1"), net.array(w.w2), net.array(w.b2), out="conv2")
    x = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", x, out="relu2")))
    net.op("Gemm", x, net.array(w.w3), net.array(w.b3), transB=1, out="logits")
    return net.model({"logits": [batch, CLASSES]}, {"logits": helper.np_dtype_to_tensor_dtype(np.dtype(dtype))})


@dataclass(frozen=True)
class Trace:
    """What the forward pass computes: ``a`` behind a convolution, ``scores`` (N, CLASSES)."""

    a1: Array
    a2: Array
    scores: Array


def forward(w: Weights, x: Array) -> Trace:
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    a1 = np.zeros((len(x), 5, SIZE, SIZE)) + w.b1[:, None, None]
    for i in range(3):
        for j in range(3):
            window = padded[:, :, i : i + SIZE, j : j + SIZE]
            a1 += np.einsum("kc,nchw->nkhw", w.w1[:, :, i, j].astype(np.float64), window)
    a2 = np.einsum("kc,nchw->nkhw", w.w2[:, :, 0, 0].astype(np.float64), a1.clip(0)) + w.b2[:, None, None]
    return Trace(a1, a2, a2.clip(0).mean(axis=(2, 3)) @ w.w3.T.astype(np.float64) + w.b3)


@dataclass(frozen=True)
class Cotangents:
    """Of the input, of both convolutions' outputs, and of the last ReLU's output."""

    x: Array
    a1: Array
    a2: Array
    relu2: Array


def backward(w: Weights, x: Array, classes: Array, rule: str = "gradient", sign: int = 1) -> Cotangents:
    """Of ``sign`` · score of ``classes`` (N,), with ``rule`` at both ReLUs."""
    rectified, trace = RECTIFIED[rule], forward(w, x)
    pooled = sign * w.w3[classes].astype(np.float64)
    relu2 = np.broadcast_to(pooled[:, :, None, None] / SIZE**2, trace.a2.shape)
    a2 = rectified(relu2, trace.a2)
    a1 = rectified(np.einsum("kc,nkhw->nchw", w.w2[:, :, 0, 0].astype(np.float64), a2), trace.a1)
    padded = np.zeros((len(x), 3, SIZE + 2, SIZE + 2))
    for i in range(3):
        for j in range(3):
            share = np.einsum("kc,nkhw->nchw", w.w1[:, :, i, j].astype(np.float64), a1)
            padded[:, :, i : i + SIZE, j : j + SIZE] += share
    return Cotangents(padded[:, :, 1:-1, 1:-1], a1, a2, relu2)


def differences(w: Weights, x: Array, classes: Array, step: float = 1e-6) -> Array:
    """∂score/∂x by central differences, in float64."""
    found = np.zeros(x.shape)
    for at in np.ndindex(*x.shape[1:]):
        moved = np.zeros(x.shape[1:])
        moved[at] = step
        up, down = forward(w, x + moved).scores, forward(w, x - moved).scores
        found[(slice(None), *at)] = (up - down)[range(len(x)), classes] / (2 * step)
    return found
