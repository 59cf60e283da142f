"""The CAM methods: from the activation A and the gradient G = ∂score/∂A to a cam.

A and G are (N, C, *space), channels first, any number of spatial axes; sums over ij run over all of space.
There are two kinds of methods, each with its table: ``WEIGHTS`` for methods with cam = relu(Σ_k weights · A), and
``PROJECTIONS`` for methods that make the cam as a whole. ``COMBINATIONS`` are what can stand in the place of Σ_k. The
functions use the Array API standard alone and run on any library that follows it. The first line of the docstring of a
method is its formula and its source: the table of methods in the documentation is made of these lines.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from array_api_compat import array_namespace, device

from onnx_gradcam.errors import LayerError, MethodError, nearest

Array = Any  # an array of any library that follows the Array API standard

# |ΣA| is kept at or above this share of Σ|A|: below it, float32 activations leave the sum no correct digits.
CANCELLATION = 1e-4
# A Gram matrix is raised to the power 2^14: a component of 0.1 % less energy than the first shrinks to 1e-7.
SQUARINGS = 14
# A gradient is constant over space when it varies by less than this share of its largest magnitude.
CONSTANT = 1e-3


def gradcam(activation: Array, gradient: Array) -> Array:
    """α_k = mean_ij G.   Selvaraju et al. 2017, eq. 1."""
    xp = array_namespace(gradient)
    return xp.mean(gradient, axis=spatial(gradient), keepdims=True)


def gradcam_plus_plus(activation: Array, gradient: Array) -> Array:
    """α_k = Σ_ij a · relu(G), a = G² / (2G² + (Σ_ij A) G³).   Chattopadhay et al. 2018, eq. 19.

    The paper explains y = exp(score), so that ∂y/∂A is G · exp(score): a positive factor that scales the
    whole cam and is left out. G² is cancelled from a, so that nothing underflows; where undefined, a is 0.
    It was derived for A ≥ 0, where 0 < a ≤ ½ wherever G > 0; before a ReLU a negative ΣA can make a large.
    """
    xp = array_namespace(activation, gradient)
    total = xp.sum(activation, axis=spatial(activation), keepdims=True)
    a = ratio(xp.ones_like(gradient), 2 + total * gradient)
    return xp.sum(a * relu(gradient), axis=spatial(gradient), keepdims=True)


def smooth_gradcam_plus_plus(activation: Array, gradient: Array, square: Array, cube: Array) -> Array:
    """α_k = Σ_ij a · relu(D₁), a = D₂ / (2D₂ + (Σ_ij A) D₃).   Omeiza et al. 2019, arXiv:1908.01224.

    D_m, ``gradient``, ``square`` and ``cube``, is the mean of G^m over noisy copies of the input, and A is the
    activation of the image itself: one copy without noise gives Grad-CAM++. As there, y = exp(score), so that
    ∂^m y/∂A^m = G^m · exp(score); the factor is left out for each copy, which counts by its gradient: with the
    factor, the copy with the highest score would be nearly the only one. D₂ stands above the line as in
    Grad-CAM++'s derivation, and in torch-cam, which corrects the paper there. Where undefined, a is 0.
    """
    xp = array_namespace(activation, gradient, square, cube)
    total = xp.sum(activation, axis=spatial(activation), keepdims=True)
    a = ratio(square, 2 * square + total * cube)
    return xp.sum(a * relu(gradient), axis=spatial(gradient), keepdims=True)


def shapleycam(activation: Array, gradient: Array, curvature: Array) -> Array:
    """α_k = mean_ij (G − ½ H·A).   Cai 2025, arXiv:2501.06261.

    H is the Hessian of the score with respect to A, and ``curvature`` its product with A: the second term of the
    Taylor expansion by which the paper approximates each channel's Shapley value. Where the score is piecewise linear
    in A, as behind the last stage of a network of convolutions, ReLU, pools and linear layers, H is 0 and the map is
    Grad-CAM's. It differs behind SiLU, GELU, HardSwish, gates, normalisation of tokens and attention, and for scores
    that are no logit.
    """
    xp = array_namespace(gradient, curvature)
    return xp.mean(gradient - curvature / 2, axis=spatial(gradient), keepdims=True)


def xgradcam(activation: Array, gradient: Array) -> Array:
    """α_k = Σ_ij G·A / Σ_ij A.   Fu et al. 2020, arXiv:2008.02312.

    Where positive and negative A cancel, the denominator keeps its sign and at least 1e-4 of Σ|A|; a channel
    whose ΣA is exactly 0 has weight 0.
    """
    xp = array_namespace(activation, gradient)
    axes = spatial(activation)
    total = xp.sum(activation, axis=axes, keepdims=True)
    floor = CANCELLATION * xp.sum(xp.abs(activation), axis=axes, keepdims=True)
    evidence = xp.sum(gradient * activation, axis=axes, keepdims=True)
    return ratio(evidence, xp.sign(total) * xp.maximum(xp.abs(total), floor))


def hirescam(activation: Array, gradient: Array) -> Array:
    """α_kij = G.   Draelos & Carin 2020, arXiv:2011.08891."""
    return gradient


def elementwise(activation: Array, gradient: Array) -> Array:
    """α_kij = G where G·A > 0, else 0: the cam is Σ_k relu(G·A).   pytorch-grad-cam, GradCAMElementWise."""
    xp = array_namespace(activation, gradient)
    # "Not negative" and not "positive": a NaN stays in the weights.
    return xp.where(gradient * activation < 0, xp.zeros_like(gradient), gradient)


def layercam(activation: Array, gradient: Array) -> Array:
    """α_kij = relu(G).   Jiang et al. 2021, doi:10.1109/TIP.2021.3089943."""
    return relu(gradient)


def cam(activation: Array, gradient: Array) -> Array:
    """α_k = Σ_ij G, the linear layer's weight of channel k behind global pooling.   Zhou et al. 2016, eq. 2.

    Equals Grad-CAM · (H·W). Between A and the score there may be only global average pooling and one linear
    layer; ``compute_cam`` refuses a gradient that cannot have come through such a pooling.
    """
    xp = array_namespace(gradient)
    return xp.sum(gradient, axis=spatial(gradient), keepdims=True)


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


def plain_sum(evidence: Array) -> Array:
    """Σ_k of (N, C, *space)."""
    return array_namespace(evidence).sum(evidence, axis=1)


WEIGHTS: Mapping[str, Callable[..., Array]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "smooth-gradcam++": smooth_gradcam_plus_plus,
    "shapleycam": shapleycam,
    "xgradcam": xgradcam,
    "hirescam": hirescam,
    "elementwise": elementwise,
    "layercam": layercam,
    "cam": cam,
}
PROJECTIONS: Mapping[str, Callable[..., Array]] = {"eigencam": eigencam, "eigengradcam": eigengradcam}
CAMS: Mapping[str, Callable[..., Array]] = {**WEIGHTS, **PROJECTIONS}
NEEDS: Mapping[str, tuple[str, ...]] = {name: tuple(inspect.signature(f).parameters) for name, f in CAMS.items()}
NEEDS_GRADIENT = frozenset(name for name, needed in NEEDS.items() if "gradient" in needed)
NEEDS_NOISE = frozenset(name for name, needed in NEEDS.items() if "square" in needed)
NEEDS_CURVATURE = frozenset(name for name, needed in NEEDS.items() if "curvature" in needed)
ODD = frozenset({"gradient", "cube", "curvature"})  # arrays that change their sign with the score


def compute_cam(
    method: str,
    activation: Array,
    gradient: Array | None,
    *,
    more: Mapping[str, Array] | None = None,
    counterfactual: bool = False,
    signed: bool = False,
    combination: str = "sum",
) -> tuple[Array | None, Array]:
    """Return the weights of a method and its cam, relu(Σ_k weights · activation), in the score's units.

    The arithmetic is float32 whatever the dtype of the inputs, which are not changed. A NaN stays a NaN.

    Args:
        method: a key of ``CAMS``.
        activation: (N, C, *space), of a floating-point dtype.
        gradient: ∂score/∂activation, of the same shape; only methods in ``NEEDS_GRADIENT`` read it.
        more: what else ``NEEDS[method]`` names, of the same shape; powers in float64, as they leave float32's range.
        counterfactual: show what speaks against the score: the method applied to (A, −G).
        signed: leave out the final ReLU.
        combination: what stands in the place of Σ_k, a key of ``COMBINATIONS``.

    Returns:
        The weights, float32, (N, C, 1, …) or (N, C, *space), None for ``PROJECTIONS``; and the cam, float32,
        (N, *space), ≥ 0 unless signed.

    Raises:
        MethodError: the method is unknown or has no such variant, an array that it needs is missing, or it is "cam" and
            the gradient did not come through global average pooling.
        LayerError: the activation has no spatial axis.
    """
    check_method(method, counterfactual=counterfactual, signed=signed, combination=combination)
    if activation.ndim < 3:
        shape = tuple(activation.shape)
        raise LayerError(
            f"an activation of shape {shape} has no spatial axis to draw a map on",
            hint="a target layer before the pooling or flattening",
            shape=shape,
        )
    available = {"activation": as_float32(activation), **(more or {})}
    if gradient is not None:
        available["gradient"] = as_float32(gradient)
    arrays = [_select(method, name, available, counterfactual) for name in NEEDS[method]]
    if method in PROJECTIONS:
        return None, PROJECTIONS[method](*arrays)
    if method == "cam":
        check_pooled(arrays[1])
    weights = as_float32(WEIGHTS[method](*arrays))
    evidence = COMBINATIONS[combination](weights * arrays[0])
    return weights, evidence if signed else relu(evidence)


def _select(method: str, name: str, available: Mapping[str, Array], counterfactual: bool) -> Array:
    if name not in available:
        raise MethodError(f"method {method!r} needs the {name} of the score", method=method)
    return -available[name] if counterfactual and name in ODD else available[name]


def check_method(method: str, *, counterfactual: bool = False, signed: bool = False, combination: str = "sum") -> None:
    """Raise ``MethodError`` unless the method exists and has the requested variants."""
    if method not in CAMS:
        raise MethodError(f"unknown method {method!r}", hint=nearest(method, CAMS), method=method)
    variant = "counterfactual" if counterfactual else "signed" if signed else ""
    if method in PROJECTIONS and (variant or combination != "sum"):
        why = "the sign of a principal component is not evidence" if variant else "it is a principal component already"
        raise MethodError(
            f"method {method!r} has no {variant or combination} variant: {why}",
            hint=", ".join(map(repr, WEIGHTS)),
            method=method,
        )
    if combination not in COMBINATIONS:
        raise MethodError(
            f"unknown combination {combination!r}", hint=nearest(combination, COMBINATIONS), method=method
        )
    if combination == "eigen" and variant:
        raise MethodError(
            f"the principal component of method {method!r} has no {variant} variant: "
            "the sign of a principal component is not evidence",
            hint="leave out the smoothing by 'eigen'",
            method=method,
        )


def check_pooled(gradient: Array) -> None:
    """Raise ``MethodError`` unless the gradient is constant over space, as global average pooling makes it."""
    xp = array_namespace(gradient)
    axes = spatial(gradient)
    spread = xp.max(xp.max(gradient, axis=axes) - xp.min(gradient, axis=axes), axis=1)
    if bool(xp.any(spread > CONSTANT * xp.max(xp.abs(gradient), axis=(1, *axes)))):
        raise MethodError(
            "method 'cam' is for networks that end in global average pooling and one linear layer: "
            "this gradient varies over space",
            hint="the layer that feeds the pooling, or 'gradcam', which needs no such head",
            method="cam",
        )


def first_component(x: Array) -> Array:
    """p = Σ_k v_k (x_k − mean x_k), v the first principal axis over channels: (N, C, *space) → (N, *space).

    v is the unit vector with the largest Σ_ij p², found by the power method on the Gram matrix of the shorter
    side. An axis has no direction: v is turned so that Σ_k v_k ≥ 0, which is Σ_ij p · Σ_k x_k ≥ 0: the map is
    positive where there is more of x. Where x is constant over space, p is 0.
    """
    xp = array_namespace(x)
    flat = xp.reshape(x, (*x.shape[:2], -1))
    # Shifted by its first value, a constant channel is centred to 0 exactly and not to rounding noise.
    flat = flat - flat[:, :, :1]
    centred = flat - xp.mean(flat, axis=2, keepdims=True)
    # A Gram matrix holds squares: scaled, neither a large nor a tiny x leaves the range of float32.
    scaled = ratio(centred, largest(centred))
    transposed = xp.matrix_transpose(scaled)
    if scaled.shape[1] <= scaled.shape[2]:
        v = first_eigenvector(scaled @ transposed)
    else:
        v = scaled @ first_eigenvector(transposed @ scaled)
    v = ratio(v, xp.sqrt(xp.sum(v * v, axis=1, keepdims=True)))
    v = xp.where(xp.sum(v, axis=1, keepdims=True) < 0, -v, v)
    return xp.reshape(xp.sum(v * centred, axis=1), (x.shape[0], *x.shape[2:]))


def eigen(evidence: Array) -> Array:
    """first principal component of weights · A in the place of its sum over channels.   pytorch-grad-cam, eigen_smooth.

    It is centred over space and turned so that the map is positive where there is more of weights · A.
    """
    return first_component(evidence)


COMBINATIONS: Mapping[str, Callable[[Array], Array]] = {"sum": plain_sum, "eigen": eigen}


def first_eigenvector(gram: Array) -> Array:
    """M^(2^s) e, the eigenvector of M's largest eigenvalue, of any length: (N, n, n) → (N, n, 1).

    M is symmetric without negative eigenvalues. The power method by repeated squaring; e is the unit vector
    of the row with the most energy: unlike a fixed start it is never orthogonal to the result.
    """
    xp = array_namespace(gram)
    for _ in range(SQUARINGS):
        gram = ratio(gram, largest(gram))
        gram = gram @ gram
    gram = ratio(gram, largest(gram))
    row = xp.argmax(xp.sum(gram * gram, axis=2), axis=1)
    start = xp.arange(gram.shape[1], device=device(gram))[None, :] == row[:, None]
    return gram @ xp.astype(start, gram.dtype)[:, :, None]


def spatial(x: Array) -> tuple[int, ...]:
    """Return the spatial axes of (N, C, *space)."""
    return tuple(range(2, x.ndim))


def relu(x: Array) -> Array:
    """Return max(x, 0), and NaN where x is NaN."""
    return array_namespace(x).clip(x, min=0)


def ratio(numerator: Array, denominator: Array) -> Array:
    """Return the quotient, 0 where the denominator is 0; a NaN in either stays."""
    xp = array_namespace(numerator, denominator)
    return numerator / xp.where(denominator == 0, xp.full_like(denominator, float("inf")), denominator)


def largest(x: Array) -> Array:
    """Return max |x| of each matrix: (N, m, n) → (N, 1, 1)."""
    xp = array_namespace(x)
    return xp.max(xp.abs(x), axis=(1, 2), keepdims=True)


def as_float32(x: Array) -> Array:
    """Return x as float32, without a copy where it is float32 already."""
    xp = array_namespace(x)
    return xp.astype(x, xp.float32, copy=False)
