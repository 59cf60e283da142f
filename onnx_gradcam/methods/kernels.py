"""Kernels: how alike the channels at two positions are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from array_api_compat import array_namespace

from onnx_gradcam.errors import MethodError, nearest
from onnx_gradcam.methods.arrays import Array, ratio

MAX_POSITIONS = 4096  # a kernel has a number for each pair of positions


def linear(points: Array, gamma: float) -> Array:
    """K_ij = A_i·A_j."""
    return inner(points)


def polynomial(points: Array, gamma: float) -> Array:
    """K_ij = (γ A_i·A_j + 1)³."""
    return (gamma * inner(points) + 1) ** 3


def gaussian(points: Array, gamma: float) -> Array:
    """K_ij = exp(−γ |A_i − A_j|²)."""
    xp = array_namespace(points)
    products = inner(points)
    squares = xp.sum(points * points, axis=2, keepdims=True)
    return xp.exp(-gamma * (squares + xp.matrix_transpose(squares) - 2 * products))


def sigmoid(points: Array, gamma: float) -> Array:
    """K_ij = tanh(γ A_i·A_j + 1)."""
    return array_namespace(points).tanh(gamma * inner(points) + 1)


def cosine(points: Array, gamma: float) -> Array:
    """K_ij = A_i·A_j / |A_i||A_j|."""
    xp = array_namespace(points)
    return inner(ratio(points, xp.sqrt(xp.sum(points * points, axis=2, keepdims=True))))


KERNELS: Mapping[str, Callable[[Array, float], Array]] = {
    "sigmoid": sigmoid,
    "rbf": gaussian,
    "poly": polynomial,
    "cosine": cosine,
    "linear": linear,
}


def kernel_matrix(points: Array, kernel: str, gamma: float | None) -> Array:
    """Return the centred kernel of points (N, n, C), (N, n, n): its rows and columns add up to 0."""
    xp = array_namespace(points)
    matrix = KERNELS[kernel](points, 1 / points.shape[2] if gamma is None else gamma)
    rows = xp.mean(matrix, axis=2, keepdims=True)
    return matrix - rows - xp.matrix_transpose(rows) + xp.mean(rows, axis=1, keepdims=True)


def inner(points: Array) -> Array:
    """Return A_i·A_j, (N, n, C) → (N, n, n)."""
    return points @ array_namespace(points).matrix_transpose(points)


def check_kernel(kernel: str, gamma: float | None, shape: Sequence[int]) -> None:
    """Raise ``MethodError`` unless the kernel exists, γ is above 0, and ``shape`` (N, C, *space) is not too large."""
    if kernel not in KERNELS:
        raise MethodError(f"unknown kernel {kernel!r}", hint=nearest(str(kernel), KERNELS), kernel=kernel)
    if gamma is not None and not 0 < gamma < float("inf"):
        raise MethodError(f"method 'kpcacam' with gamma {gamma!r}", hint="a number above 0", gamma=gamma)
    positions = math.prod(shape[2:])
    if positions > MAX_POSITIONS:
        raise MethodError(
            f"method 'kpcacam' compares each position with each other, and this layer has {positions} positions",
            where=f"shape {tuple(shape)}",
            hint=f"a layer of at most {MAX_POSITIONS} positions, or 'eigencam', which is the linear kernel",
            method="kpcacam",
        )
