"""Recipro-CAM: the map is the score that each position of the activation gets by itself."""

from __future__ import annotations

import numpy as np

from onnx_gradcam.methods.perturbation.options import whole_number
from onnx_gradcam.methods.perturbation.records import Array, PerturbedMaps, Run

WINDOWS = {"gaussian": (0.5, 0.25), "point": (1.0, 0.0)}
"""What a window is along one axis, at its position and beside it: in two axes 1/4, 1/8 and 1/16."""


def recipro_cam(
    activation: Array, scores: Array, run: Run, *, window: str = "gaussian", batch: int = 32
) -> PerturbedMaps:
    """cam_p = y(A · m_p) − min_p y(A · m_p), m_p a window at position p.   Byun & Lee 2022, arXiv:2209.14074.

    ``window``: "gaussian", m_p is 0 but in the 3 × 3 positions about p, where it falls off as a Gaussian; "point", it
    is 1 at p and 0 elsewhere, as in openvino_xai's form for CNNs. All targets share the runs. As in the paper the map
    begins at the position that says least, so it shows no evidence against. y is the score itself, as in openvino_xai;
    the authors' code takes its softmax. Tokens that stand for no position, such as a class token, stay as they are:
    ViT-ReciproCAM (Byun & Lee 2023, arXiv:2310.02588).

    ``batch``: how many positions are run at once.

    Args:
        activation: A of one image, (C, *space).
        scores: y for each of K targets, (K,); the map does not depend on it.
        run: gives the scores of copies of A.
        window: one of ``WINDOWS``.
        batch: at least 1.
    """
    size = whole_number("batch", batch, 1)
    space = activation.shape[1:]
    count = int(np.prod(space))
    parts = []
    for start in range(0, count, size):
        masks = windows(space, WINDOWS[window], np.arange(start, min(start + size, count)))
        parts.append(run(activation * masks[:, None]))
    alone = np.concatenate(parts).T.reshape(len(scores), *space)
    lowest = alone.min(axis=tuple(range(1, alone.ndim)), keepdims=True)
    return PerturbedMaps((alone - lowest).astype(np.float32))


def windows(space: tuple[int, ...], line: tuple[float, float], numbers: Array) -> Array:
    """Return the windows about some positions, (positions, *space) float32.

    Args:
        space: how many positions there are along each axis.
        line: a value of ``WINDOWS``.
        numbers: the positions, counted along the last axis first.
    """
    masks = np.ones((len(numbers), *[1] * len(space)), np.float32)
    for axis, (size, at) in enumerate(zip(space, np.unravel_index(numbers, space), strict=True)):
        distance = np.abs(at[:, None] - np.arange(size))
        along = np.select([distance == 0, distance == 1], line).astype(np.float32)
        masks = masks * along.reshape(len(numbers), *[size if k == axis else 1 for k in range(len(space))])
    return masks
