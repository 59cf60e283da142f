"""The methods with cam = relu(Σ_k weights · A): from activation and gradient to the weights.

A and G are (N, C, *space), channels first, any number of spatial axes; sums over ij run over all of space. Weights are
(N, C, 1, …) or (N, C, *space). The first line of a docstring is the formula and its source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from array_api_compat import array_namespace, device

from onnx_gradcam.errors import MethodError
from onnx_gradcam.methods.arrays import Array, ratio, relu, spatial

# |ΣA| is kept at or above this share of Σ|A|: below it, float32 activations leave the sum no correct digits.
CANCELLATION = 1e-4


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


def fem(activation: Array, *, sigmas: float = 2.0) -> Array:
    """α_k = share of ij where A_k > mean A_k + 2 std A_k.   Fuad et al. 2020, doi:10.1109/IPTA50016.2020.9286629.

    ``sigmas``: how many standard deviations above its mean a channel has to rise. The score plays no part: this
    explains no class. The paper sums the masks themselves, each weighted with the mean of its channel; as in
    pytorch-grad-cam it is the activation that is summed, each channel weighted with the share of its mask.
    """
    if not 0 <= sigmas < float("inf"):
        raise MethodError(f"method 'fem' with sigmas {sigmas!r}", hint="a number from 0", sigmas=sigmas)
    xp = array_namespace(activation)
    axes = spatial(activation)
    threshold = xp.mean(activation, axis=axes, keepdims=True) + sigmas * xp.std(activation, axis=axes, keepdims=True)
    return xp.mean(xp.astype(activation > threshold, activation.dtype), axis=axes, keepdims=True)


def activationmap(activation: Array) -> Array:
    """α_k = 1 / C, C the number of channels.   openvino_xai, ActivationMap.

    The mean of the channels as they are. The score plays no part: this explains no class.
    """
    xp = array_namespace(activation)
    channels = activation.shape[1]
    shape = (activation.shape[0], channels, *[1] * len(spatial(activation)))
    return xp.full(shape, 1 / channels, dtype=activation.dtype, device=device(activation))


def randomcam(activation: Array, *, seed: int = 0) -> Array:
    """α_k = a number drawn evenly from −1 to 1.   pytorch-grad-cam, RandomCAM.

    The floor for every other method of a layer: what a map shows because of the activation alone, whatever the weights
    are. All images and targets get the same numbers, drawn from ``seed``: an image alone is what it is in a batch.
    """
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
        raise MethodError(f"method 'randomcam' with seed {seed!r}", hint="a whole number from 0", seed=seed)
    xp = array_namespace(activation)
    drawn = np.random.default_rng(seed).uniform(-1, 1, activation.shape[1])
    numbers = xp.asarray(drawn, dtype=activation.dtype, device=device(activation))
    shape = (1, activation.shape[1], *[1] * len(spatial(activation)))
    return xp.broadcast_to(xp.reshape(numbers, shape), (activation.shape[0], *shape[1:]))


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
    "fem": fem,
    "activationmap": activationmap,
    "randomcam": randomcam,
}
