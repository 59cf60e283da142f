"""The CAM methods and the heatmaps once more: straight from the papers, slower and less complicated.

One image at a time: ``a`` and ``g`` are (C, *space), float64. A method returns its map before the final ReLU. In
``CAMS``, what a method needs beside these is made of ``g``: the gradients of its one noisy copy, the Hessian's product.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

Map = np.ndarray
Position = tuple[int, ...]


def positions(x: np.ndarray) -> Iterator[Position]:
    yield from np.ndindex(x.shape)


def combine(a: np.ndarray, weight: Callable[[int, Position], float]) -> Map:
    """Σ_k w(k, ij) · A_kij at every ij."""
    out = np.zeros(a.shape[1:])
    for ij in positions(out):
        for k in range(len(a)):
            out[ij] += weight(k, ij) * a[k][ij]
    return out


def total(channel: np.ndarray) -> float:
    return math.fsum(float(channel[ij]) for ij in positions(channel))


def gradcam(a: np.ndarray, g: np.ndarray) -> Map:
    alpha = [total(g[k]) / g[k].size for k in range(len(a))]
    return combine(a, lambda k, ij: alpha[k])


def gradcam_plus_plus(a: np.ndarray, g: np.ndarray) -> Map:
    """Equation 19, with y = exp(S) whose derivatives are taken one after the other, as in equations 13 to 18.

    S = 0, so that exp(S), which the paper's weights carry as a factor, is 1.
    """
    first, second, third = g, g**2, g**3
    weights = []
    for k in range(len(a)):
        weight = 0.0
        for ij in positions(a[k]):
            denominator = 2 * second[k][ij] + total(a[k]) * third[k][ij]
            alpha = second[k][ij] / denominator if denominator != 0 else 0.0
            weight += alpha * max(first[k][ij], 0.0)
        weights.append(weight)
    return combine(a, lambda k, ij: weights[k])


def smooth_gradcam_plus_plus(a: np.ndarray, gs: Sequence[np.ndarray]) -> Map:
    """``gs``: the gradients of the noisy copies. The derivatives of Grad-CAM++, each averaged over these; S = 0."""
    derivatives = [sum(g**order for g in gs) / len(gs) for order in (1, 2, 3)]
    weights = []
    for k in range(len(a)):
        weight = 0.0
        for ij in positions(a[k]):
            first, second, third = (float(d[k][ij]) for d in derivatives)
            denominator = 2 * second + total(a[k]) * third
            alpha = second / denominator if denominator != 0 else 0.0
            weight += alpha * max(first, 0.0)
        weights.append(weight)
    return combine(a, lambda k, ij: weights[k])


def shapleycam(a: np.ndarray, g: np.ndarray, hessian_times_a: np.ndarray) -> Map:
    alpha = [total(g[k] - hessian_times_a[k] / 2) / g[k].size for k in range(len(a))]
    return combine(a, lambda k, ij: alpha[k])


def xgradcam(a: np.ndarray, g: np.ndarray) -> Map:
    """The bare formula: only for channels whose sum is not near 0."""
    weights = [total(g[k] * a[k]) / total(a[k]) for k in range(len(a))]
    return combine(a, lambda k, ij: weights[k])


def hirescam(a: np.ndarray, g: np.ndarray) -> Map:
    return combine(a, lambda k, ij: g[k][ij])


def elementwise(a: np.ndarray, g: np.ndarray) -> Map:
    out = np.zeros(a.shape[1:])
    for ij in positions(out):
        for k in range(len(a)):
            out[ij] += max(g[k][ij] * a[k][ij], 0.0)
    return out


def layercam(a: np.ndarray, g: np.ndarray) -> Map:
    return combine(a, lambda k, ij: max(g[k][ij], 0.0))


def cam(a: np.ndarray, g: np.ndarray) -> Map:
    """With G_kij = w_k / (H·W), the gradient of a linear layer behind an average, w_k is the sum of G_k."""
    w = [total(g[k]) for k in range(len(a))]
    return combine(a, lambda k, ij: w[k])


def eigencam(a: np.ndarray, g: np.ndarray) -> Map:
    return principal_component(a)


def eigengradcam(a: np.ndarray, g: np.ndarray) -> Map:
    return principal_component(g * a)


def segeigencam(a: np.ndarray, g: np.ndarray) -> Map:
    """Equations 10 to 13: the projection of |G|·A, whichever of its signs has the larger peak."""
    projection = principal_component(np.abs(g) * a)
    return -projection if abs(projection.min()) > abs(projection.max()) else projection


def fem(a: np.ndarray, g: np.ndarray) -> Map:
    """Each channel weighted with how many of its positions are more than two standard deviations above its mean."""
    shares = []
    for channel in a:
        mean = total(channel) / channel.size
        deviation = math.sqrt(math.fsum((float(channel[ij]) - mean) ** 2 for ij in positions(channel)) / channel.size)
        rare = [ij for ij in positions(channel) if channel[ij] > mean + 2 * deviation]
        shares.append(len(rare) / channel.size)
    return combine(a, lambda k, ij: shares[k])


def activationmap(a: np.ndarray, g: np.ndarray) -> Map:
    return combine(a, lambda k, ij: 1 / len(a))


def randomcam(a: np.ndarray, g: np.ndarray) -> Map:
    numbers = np.random.default_rng(0).uniform(-1, 1, len(a))
    return combine(a, lambda k, ij: numbers[k])


def kpcacam(a: np.ndarray, g: np.ndarray) -> Map:
    """The sigmoid kernel, centred in the space that it spans, and all of its eigenvectors."""
    samples = np.array([a[:, *ij] for ij in positions(a[0])])
    return kernel_component(samples - samples.mean(axis=0), lambda p, q: math.tanh(p @ q / len(a) + 1), a.shape[1:])


def kernel_component(
    samples: np.ndarray, kernel: Callable[[np.ndarray, np.ndarray], float], space: tuple[int, ...]
) -> Map:
    n = len(samples)
    matrix = np.array([[kernel(p, q) for q in samples] for p in samples])
    away = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(away @ matrix @ away)
    component = math.sqrt(max(values[-1], 0)) * vectors[:, -1]
    return component.reshape(space) * np.sign(component[np.abs(component).argmax()])


def principal_component(x: np.ndarray) -> Map:
    """Samples are positions, features are channels; of the two directions, the one that goes with Σ_k x."""
    samples = np.array([x[:, *ij] for ij in positions(x[0])])
    samples = samples - samples.mean(axis=0)
    axis = np.linalg.svd(samples, full_matrices=False)[2][0]
    projection = samples @ axis
    mass = np.array([x[:, *ij].sum() for ij in positions(x[0])])
    if np.sum(projection * mass) < 0:
        projection = -projection
    return projection.reshape(x.shape[1:])


CAMS: dict[str, Callable[[np.ndarray, np.ndarray], Map]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "smooth-gradcam++": lambda a, g: smooth_gradcam_plus_plus(a, [g]),
    "shapleycam": lambda a, g: shapleycam(a, g, g),
    "xgradcam": xgradcam,
    "hirescam": hirescam,
    "elementwise": elementwise,
    "layercam": layercam,
    "cam": cam,
    "eigencam": eigencam,
    "eigengradcam": eigengradcam,
    "segeigencam": segeigencam,
    "kpcacam": kpcacam,
    "fem": fem,
    "activationmap": activationmap,
    "randomcam": randomcam,
}


def upsample(cam: Map, size: Sequence[int]) -> Map:
    """Every sample from the 2^d corners around it, in coordinates where pixel i covers [i, i + 1]."""
    out = np.zeros(tuple(size))
    for target in positions(out):
        corners = []
        for i, new, extent in zip(target, size, cam.shape, strict=True):
            centre = (i + 0.5) / new * extent - 0.5
            low = math.floor(centre)
            share = centre - low
            inside = [min(max(j, 0), extent - 1) for j in (low, low + 1)]
            corners.append(((inside[0], 1 - share), (inside[1], share)))
        for corner in itertools.product(*corners):
            index = tuple(j for j, _ in corner)
            out[target] += math.prod(weight for _, weight in corner) * cam[index]
    return out


def normalise(cam: Map) -> Map:
    largest = max(abs(float(v)) for v in cam.flat)
    return np.array([v / largest if largest else 0.0 for v in cam.flat]).reshape(cam.shape)


def fuse(cams: Sequence[Map], size: Sequence[int], how: str) -> Map:
    scaled = [normalise(upsample(cam, size)) for cam in cams]
    out = np.zeros(tuple(size))
    for ij in positions(out):
        values = [float(cam[ij]) for cam in scaled]
        out[ij] = {"mean": sum(values) / len(values), "max": max(values), "product": math.prod(values)}[how]
    return out
