"""The input-space methods: from the input x and the gradient ∂y/∂x to an attribution, one value for each value of x.

x is (N, …), N images; attributions and gradients have one row per (image, class), (R, …). There are three kinds of
method, each with its table: ``LOCAL``, one gradient at x; ``AVERAGED``, gradients at many copies of x; ``LAYERED``, one
gradient at x and at every place where a bias is added. ``BACKWARD`` names those whose gradient is not the true one:
rectifiers have another rule. The first line of each docstring is formula and source: the
documentation's table of methods is made of these lines.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import MethodError, nearest
from onnx_gradcam.methods.copies import Noise, noisy_copies
from onnx_gradcam.methods.heatmap import upsample

Array = npt.NDArray[Any]
GradientsAt = Callable[[Iterable[Array]], Iterable[Array]]
"""Copies of x, (N, …) each → their gradients, some copies at a time: (copies, R, …)."""


def saliency(x: Array, gradient: Array) -> Array:
    """∂y/∂x.   Simonyan et al. 2014, arXiv:1312.6034, sec. 3."""
    return gradient


def input_x_gradient(x: Array, gradient: Array) -> Array:
    """x · ∂y/∂x, in units of the score.   Shrikumar et al. 2016, arXiv:1605.01713."""
    return x * gradient


def guided_backprop(x: Array, gradient: Array) -> Array:
    """∂y/∂x with x̄ = f′(x) · relu(g) at every rectifier f.   Springenberg et al. 2015, arXiv:1412.6806.

    It comes close to a picture of the edges in x, whatever the class: it fails the sanity checks of Adebayo et al. 2018
    (arXiv:1810.03292), in which trained weights are replaced by random ones. Its product with a cam says more:
    guided-gradcam.
    """
    return gradient


def deconvolution(x: Array, gradient: Array) -> Array:
    """∂y/∂x with x̄ = relu(g) at every rectifier.   Zeiler & Fergus 2014, arXiv:1311.2901.

    Like guided backpropagation it shows edges in x rather than what the class depends on.
    """
    return gradient


def integrated_gradients(
    x: Array, images: Array, gradients_at: GradientsAt, *, steps: int = 50, baseline: float | Array = 0.0
) -> Array:
    """(x − b) · mean_k ∂y/∂x at b + (k − ½)/m · (x − b), k = 1 … m.   Sundararajan et al. 2017, eq. 3.

    m is ``steps``. The paper's sum takes the right ends k/m of the steps; their midpoints come nearer to the integral.
    b is ``baseline``, a number or an array that broadcasts to x, in the space of the model's input, behind the
    preprocessing: 0 is a black photo for a model that takes 0 to 1, the mean colour for one that subtracts it.
    """
    if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 1:
        raise MethodError(f"integrated gradients in {steps!r} steps", hint="a whole number from 1", steps=steps)
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    away = wide - baseline_of(baseline, wide)
    path = ((wide - away * (1 - (k + 0.5) / steps)).astype(x.dtype) for k in range(steps))
    return away[images] * _mean(gradients_at(path))


def smoothgrad(
    x: Array, images: Array, gradients_at: GradientsAt, *, samples: int = 25, noise: float = 0.15, seed: int = 0
) -> Array:
    """mean of ∂y/∂x at noisy copies of x.   Smilkov et al. 2017, arXiv:1706.03825, eq. 2.

    ``noise``: σ as a share of the range of values of each image's own tensor. The class is chosen without noise.
    """
    return _mean(gradients_at(noisy_copies(x, Noise(samples, noise, seed))))


def squaregrad(
    x: Array, images: Array, gradients_at: GradientsAt, *, samples: int = 25, noise: float = 0.15, seed: int = 0
) -> Array:
    """mean of (∂y/∂x)² at noisy copies of x.   Hooker et al. 2019, arXiv:1806.10758.

    ``noise`` as in smoothgrad.
    """
    return _mean(g * g for g in gradients_at(noisy_copies(x, Noise(samples, noise, seed))))


def vargrad(
    x: Array, images: Array, gradients_at: GradientsAt, *, samples: int = 25, noise: float = 0.15, seed: int = 0
) -> Array:
    """variance of ∂y/∂x over noisy copies of x.   Adebayo et al. 2018, arXiv:1810.03307.

    Divided by the number of samples, not by one less. ``noise`` as in smoothgrad.
    """
    return _variance(gradients_at(noisy_copies(x, Noise(samples, noise, seed))))


def fullgrad(x: Array, gradient: Array, biases: Sequence[Array], space: Sequence[int]) -> Array:
    """|x · ∂y/∂x| + Σ_layers Σ_channels upsampled |b · ∂y/∂b|.   Srinivas & Fleuret 2019, arXiv:1905.00780, eq. 8.

    ``biases``: b · ∂y/∂b for each place where a bias is added, (R, C, *space), wherever a layer's values lie on a grid
    over the image. What they say of a pixel is shared out evenly among its channels, so that the sum over channels is
    the map of the paper. Unlike in the authors' code, maps are not scaled to 0 … 1 before they are summed: all are in
    units of the score, which x · ∂y/∂x and b · ∂y/∂b of a ReLU network add up to. An exporter folds BatchNormalization
    into the convolution before it, with its bias: the map is then not that of the network in torch, where the two are
    apart.
    """
    size = [x.shape[k] for k in space]
    found: Array = np.abs(x * gradient)
    share = np.prod([n for k, n in enumerate(x.shape) if k and k not in space], dtype=np.float32)
    for bias in biases:
        over_channels = upsample(np.abs(bias).sum(axis=1), size) / share
        found = found + on_axes(over_channels, space, x.ndim)
    return found


Local = Callable[[Array, Array], Array]
LOCAL: Mapping[str, Local] = {
    "saliency": saliency,
    "input-x-gradient": input_x_gradient,
    "guided-backprop": guided_backprop,
    "deconvolution": deconvolution,
}
AVERAGED: Mapping[str, Callable[..., Array]] = {
    "integrated-gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "squaregrad": squaregrad,
    "vargrad": vargrad,
}
LAYERED: Mapping[str, Callable[..., Array]] = {"fullgrad": fullgrad}
METHODS: Mapping[str, Callable[..., Array]] = {**LOCAL, **AVERAGED, **LAYERED}
BACKWARD: Mapping[str, str] = {"guided-backprop": "guided", "deconvolution": "deconvolution"}
INTEGRALS = frozenset({"integrated-gradients"})
NEEDS_FLOATS = INTEGRALS
UNSIGNED = frozenset({"squaregrad", "vargrad", "fullgrad"})


def options_of(method: str) -> dict[str, Any]:
    """The options of a method and their defaults."""
    parameters = inspect.signature(METHODS[method]).parameters.values() if method in METHODS else ()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_method(method: str, *, counterfactual: bool = False, signed: bool = False) -> None:
    """Raise MethodError unless the method exists and has the variants asked for."""
    if method not in METHODS:
        raise MethodError(f"unknown method {method!r}", hint=nearest(method, METHODS), method=method)
    if signed and method in UNSIGNED:
        raise MethodError(
            f"method {method!r} has no signed variant: it is a sum of squares or magnitudes",
            hint=", ".join(repr(name) for name in METHODS if name not in UNSIGNED),
            method=method,
        )
    if counterfactual and method not in BACKWARD:
        raise MethodError(
            f"method {method!r} has no counterfactual variant: −y has the same gradient with the other sign",
            hint="signed maps, which show both; or " + ", ".join(map(repr, BACKWARD)),
            method=method,
        )


def check_floats(method: str, note: str) -> None:
    """Raise MethodError where a method needs a floating-point input and has none; ``note`` says what it has."""
    if method in NEEDS_FLOATS:
        raise MethodError(
            f"method {method!r} needs a floating-point input, whose values lie on a path from the baseline",
            where=note,
            hint=", ".join(repr(name) for name in METHODS if name not in NEEDS_FLOATS),
            method=method,
        )


def in_space(method: str, attribution: Array, space: Sequence[int], signed: bool) -> Array:
    """(R, *input shape) → (R, *space): the largest magnitude over channels; signed, or where a method is a sum over
    channels by definition (fullgrad), their sum."""
    arranged = np.moveaxis(attribution, space, range(1, 1 + len(space)))
    channels = tuple(range(1 + len(space), arranged.ndim))
    if signed or method in LAYERED:
        return np.asarray(arranged.sum(axis=channels), np.float32)
    return np.asarray(np.abs(arranged).max(axis=channels), np.float32)


def guided(heatmap: Array, attribution: Array, space: Sequence[int]) -> Array:
    """heatmap of the cam · guided-backprop, channel by channel.   Selvaraju et al. 2017, sec. 3.2.

    The heatmap (R, *space) of Grad-CAM, or of any other cam in its place, says where; guided backpropagation
    (R, *input shape) adds the detail. Both explain the same class.
    """
    return on_axes(heatmap, space, attribution.ndim) * attribution


def on_axes(maps: Array, space: Sequence[int], rank: int) -> Array:
    """(R, *space) as an array of ``rank`` axes with space where ``space`` says, to be broadcast along the others."""
    spread = maps.reshape(*maps.shape, *[1] * (rank - maps.ndim))
    return np.moveaxis(spread, range(1, 1 + len(space)), space)


def baseline_of(baseline: float | Array, x: Array) -> Array:
    """``baseline`` in the shape and dtype of x. Raises ``MethodError`` where it is not finite or does not broadcast."""
    try:
        found = np.broadcast_to(np.asarray(baseline, x.dtype), x.shape)
    except (TypeError, ValueError) as error:
        raise MethodError(
            f"this baseline does not fit an input of shape {x.shape}: {error}",
            hint="a number, or an array that broadcasts to the input",
            baseline=baseline,
        ) from None
    if not np.isfinite(found).all():
        raise MethodError("the baseline holds NaN or infinity", hint="finite numbers", baseline=baseline)
    return found


def _mean(pieces: Iterable[Array]) -> Array:
    """Over the first axis of all pieces, summed in float64."""
    total: Any = 0.0
    count = 0
    for piece in pieces:
        total = total + piece.sum(axis=0, dtype=np.float64)
        count += len(piece)
    return np.asarray(total / count, np.float32)


def _variance(pieces: Iterable[Array]) -> Array:
    """mean of squares − square of the mean, of what is left of the values when the first is taken off: without that,
    a small variance about a large mean would cancel."""
    first: Any = None
    total: Any = 0.0
    squares: Any = 0.0
    count = 0
    for piece in pieces:
        first = piece[0].astype(np.float64) if first is None else first
        apart = piece - first
        total, squares = total + apart.sum(axis=0), squares + (apart * apart).sum(axis=0)
        count += len(piece)
    return np.asarray(np.maximum(squares / count - (total / count) ** 2, 0), np.float32)
