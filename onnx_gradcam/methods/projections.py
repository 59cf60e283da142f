"""The methods that make a cam as a whole, by projecting on a principal axis.

A and G are (N, C, *space), channels first, any number of spatial axes. The first line of a docstring is the formula and
its source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from array_api_compat import array_namespace

from onnx_gradcam.methods.arrays import Array, largest, ratio, relu
from onnx_gradcam.methods.eigenvectors import first_eigenvector, top_eigenpair
from onnx_gradcam.methods.kernels import check_kernel, kernel_matrix


def eigencam(activation: Array) -> Array:
    """cam = relu(Σ_k v_k A_k), v the first principal axis of A.   Muhammad & Yeasin 2020, arXiv:2008.00299.

    A is centred over space first, as in pytorch-grad-cam and unlike the paper. The score plays no part: this
    explains no class.
    """
    return relu(first_component(activation))


def eigengradcam(activation: Array, gradient: Array) -> Array:
    """cam = relu(Σ_k v_k G_k·A_k), v the first principal axis of G·A.   pytorch-grad-cam, EigenGradCAM.

    G·A is centred over space first.
    """
    return relu(first_component(gradient * activation))


def segeigencam(activation: Array, gradient: Array) -> Array:
    """cam = relu(Σ_k v_k |G_k|·A_k), v the first principal axis of |G|·A.   Chung & Ying 2025, doi:10.3390/app15137562.

    |G|·A is centred over space first. The map is turned so that its largest magnitude is positive (eq. 13). |G| is the
    same for a score and its negative: this shows where the score depends on A, and not for what.
    """
    xp = array_namespace(activation, gradient)
    return relu(by_peak(projected(xp.abs(gradient) * activation)))


def kpcacam(activation: Array, *, kernel: str = "sigmoid", gamma: float | None = None) -> Array:
    """cam = relu(√λ·u), λ and u the first of K = tanh(γ A_i·A_j + 1).   Karmani et al. 2024, arXiv:2410.00267.

    A_i holds the channels at position i, each centred over space first; K is centred, too. ``kernel``: "sigmoid", which
    is this one, "rbf", exp(−γ |A_i − A_j|²), "poly", (γ A_i·A_j + 1)³, "cosine", or "linear", which is Eigen-CAM.
    ``gamma``: γ; None: 1 / channels. The map is turned so that its largest magnitude is positive. The score plays no
    part: this explains no class. As in pytorch-grad-cam, KPCA_CAM.
    """
    check_kernel(kernel, gamma, activation.shape)
    xp = array_namespace(activation)
    points = xp.matrix_transpose(xp.astype(centred_over_space(activation), xp.float64))
    vector, value = top_eigenpair(kernel_matrix(points, kernel, gamma))
    component = xp.sqrt(relu(value)) * vector
    flat = by_peak(xp.reshape(component, (component.shape[0], -1)))
    return relu(xp.astype(xp.reshape(flat, (activation.shape[0], *activation.shape[2:])), activation.dtype))


class Principal(NamedTuple):
    """The first principal axis of x (N, C, *space).

    Attributes:
        axis: the unit vector v with the largest Σ_ij (Σ_k v_k x_k)², of either sign, (N, C, 1).
        centred: x less its mean over space, (N, C, positions).
    """

    axis: Array
    centred: Array


def principal(x: Array) -> Principal:
    """Return the first principal axis, found by the power method on the Gram matrix of the shorter side.

    Where x is constant over space, the axis is 0.
    """
    xp = array_namespace(x)
    centred = centred_over_space(x)
    # A Gram matrix holds squares: scaled, neither a large nor a tiny x leaves the range of float32.
    scaled = ratio(centred, largest(centred))
    transposed = xp.matrix_transpose(scaled)
    if scaled.shape[1] <= scaled.shape[2]:
        v = first_eigenvector(scaled @ transposed)
    else:
        v = scaled @ first_eigenvector(transposed @ scaled)
    return Principal(ratio(v, xp.sqrt(xp.sum(v * v, axis=1, keepdims=True))), centred)


def centred_over_space(x: Array) -> Array:
    """Return x less its mean over space, (N, C, *space) → (N, C, positions)."""
    xp = array_namespace(x)
    flat = xp.reshape(x, (*x.shape[:2], -1))
    # Shifted by its first value, a constant channel is centred to 0 exactly and not to rounding noise.
    flat = flat - flat[:, :, :1]
    return flat - xp.mean(flat, axis=2, keepdims=True)


def first_component(x: Array) -> Array:
    """p = Σ_k v_k (x_k − mean x_k), v the first principal axis over channels: (N, C, *space) → (N, *space).

    v is the unit vector with the largest Σ_ij p². An axis has no direction: v is turned so that Σ_k v_k ≥ 0, which is
    Σ_ij p · Σ_k x_k ≥ 0: the map is positive where there is more of x. Where x is constant over space, p is 0.
    """
    xp = array_namespace(x)
    v, centred = principal(x)
    v = xp.where(xp.sum(v, axis=1, keepdims=True) < 0, -v, v)
    return xp.reshape(xp.sum(v * centred, axis=1), (x.shape[0], *x.shape[2:]))


def projected(x: Array) -> Array:
    """Return the first principal component of x over channels, of either sign: (N, C, *space) → (N, *space)."""
    v, centred = principal(x)
    xp = array_namespace(x)
    return xp.reshape(xp.sum(v * centred, axis=1), (x.shape[0], *x.shape[2:]))


def by_peak(p: Array) -> Array:
    """Return p or −p for each row: that whose largest magnitude is positive."""
    xp = array_namespace(p)
    axes = tuple(range(1, p.ndim))
    high, low = xp.max(p, axis=axes, keepdims=True), xp.min(p, axis=axes, keepdims=True)
    return xp.where(-low > high, -p, p)


def eigen(evidence: Array) -> Array:
    """first principal component of weights · A in the place of its sum over channels.   pytorch-grad-cam, eigen_smooth.

    It is centred over space and turned so that the map is positive where there is more of weights · A.
    """
    return first_component(evidence)


PROJECTIONS: Mapping[str, Callable[..., Array]] = {
    "eigencam": eigencam,
    "eigengradcam": eigengradcam,
    "segeigencam": segeigencam,
    "kpcacam": kpcacam,
}
