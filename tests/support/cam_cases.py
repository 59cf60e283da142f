"""Activations and gradients for the CAM methods, and what their naive oracles make of them."""

from __future__ import annotations

import numpy as np
import oracles

from onnx_gradcam.methods import cam as methods
from onnx_gradcam.methods.cam import CAMS, NEEDS, NEEDS_GRADIENT, PROJECTIONS, WEIGHTS

WEIGHTED, PROJECTED, ALL = sorted(WEIGHTS), sorted(PROJECTIONS), sorted(CAMS)
SCORED = [method for method in WEIGHTED if method in NEEDS_GRADIENT]  # weights of the gradient
SPACES = [(9,), (4, 5), (2, 3, 4)]


def needed(method: str, gradient: np.ndarray | None) -> dict[str, np.ndarray]:
    """What a method needs beside the gradient: its powers as of one copy, or itself as the Hessian's product."""
    if gradient is None:
        return {}
    wide = gradient.astype(float) if isinstance(gradient, np.ndarray) else gradient
    given = {"square": wide**2, "cube": wide**3, "curvature": gradient}
    return {name: given[name] for name in NEEDS.get(method, ()) if name in given}


def compute_cam(method: str, activation, gradient, **options):
    return methods.compute_cam(method, activation, gradient, more=needed(method, gradient), **options)


def sample(method: str, space: tuple[int, ...], *, seed: int = 0, n: int = 3, channels: int = 6):
    """Activations and gradients as the method's oracle takes them: A ≥ 0 where it divides by ΣA."""
    rng = np.random.default_rng(seed)
    activation, gradient = rng.normal(size=(2, n, channels, *space))
    if method in ("gradcam++", "smooth-gradcam++", "xgradcam"):
        activation = np.maximum(activation, 0) + 0.01
    if method == "fem":
        activation = activation**3  # long tails: a few positions stand out
    if method == "cam":
        gradient = np.broadcast_to(gradient.mean(axis=tuple(range(2, gradient.ndim)), keepdims=True), gradient.shape)
    return activation, gradient


def oracle(method: str, activation: np.ndarray, gradient: np.ndarray, *, signed: bool = False) -> np.ndarray:
    maps = np.stack([oracles.CAMS[method](a, g) for a, g in zip(activation, gradient, strict=True)])
    return maps if signed else np.maximum(maps, 0)


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Largest difference, relative to the largest expected value."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())
