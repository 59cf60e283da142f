"""The input-space methods: from the input x and the gradient ∂y/∂x to an attribution, one value for each value of x.

x is (N, …), N images; attributions and gradients have one row per (image, target), (R, …). There are six kinds of
methods, each with its table: ``LOCAL_METHODS`` look at the gradient at x; ``PATH_METHODS`` at gradients on the way from
a baseline to x; ``AVERAGED_METHODS`` at gradients at many copies of x; ``BIAS_METHODS`` at the gradients at x and at
every place where a bias is added; ``RELEVANCE_METHODS`` at what a backward pass by other rules leaves at x;
``DIFFERENCE_METHODS`` at multipliers between a baseline and x. The gradient of
``GATED_METHODS`` is not the true one: rectifiers have another rule. The first line of the docstring of a method is its
formula and its source: the table of methods in the documentation is made of these lines.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import MethodError, nearest
from onnx_gradcam.methods.copies import Noise, noisy_copies
from onnx_gradcam.methods.differences import DIFFERENCE_METHODS
from onnx_gradcam.methods.expectation import PATH_METHODS
from onnx_gradcam.methods.heatmap import upsample
from onnx_gradcam.methods.relevance import RELEVANCE_METHODS

Array = npt.NDArray[Any]
GradientsAt = Callable[[Iterable[Array]], Iterable[Array]]
"""From copies of x, (N, …) each, to their gradients, several copies at a time: (copies, R, …)."""


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

    ``rectifiers``: "all" gates every rectifier, smooth ones such as SiLU and bounded ones such as ReLU6 included;
    "relu" gates max(x, 0) alone, as captum and pytorch-grad-cam do, and leaves all others their gradient.
    """
    return gradient


def deconvolution(x: Array, gradient: Array) -> Array:
    """∂y/∂x with x̄ = relu(g) at every rectifier.   Zeiler & Fergus 2014, arXiv:1311.2901.

    Like guided backpropagation it shows edges in x rather than what the class depends on. ``rectifiers`` as there.
    """
    return gradient


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
    total: Array = np.abs(x * gradient)
    share = np.prod([n for k, n in enumerate(x.shape) if k and k not in space], dtype=np.float32)
    for bias in biases:
        over_channels = upsample(np.abs(bias).sum(axis=1), size) / share
        total = total + put_on_axes(over_channels, space, x.ndim)
    return total


Local = Callable[[Array, Array], Array]
LOCAL_METHODS: Mapping[str, Local] = {
    "saliency": saliency,
    "input-x-gradient": input_x_gradient,
    "guided-backprop": guided_backprop,
    "deconvolution": deconvolution,
}
AVERAGED_METHODS: Mapping[str, Callable[..., Array]] = {
    "smoothgrad": smoothgrad,
    "squaregrad": squaregrad,
    "vargrad": vargrad,
}
BIAS_METHODS: Mapping[str, Callable[..., Array]] = {"fullgrad": fullgrad}
ATTRIBUTIONS: Mapping[str, Callable[..., Any]] = {
    **LOCAL_METHODS,
    **PATH_METHODS,
    **AVERAGED_METHODS,
    **BIAS_METHODS,
    **RELEVANCE_METHODS,
    **DIFFERENCE_METHODS,
}
GATED_METHODS: Mapping[str, str] = {"guided-backprop": "guided", "deconvolution": "deconvolution"}
GATED = ("all", "relu")
"""The values of the option ``rectifiers``: which of them are gated; the first is the default."""
NEEDS_FLOATS = frozenset({**PATH_METHODS, **DIFFERENCE_METHODS})
UNSIGNED = frozenset({"squaregrad", "vargrad", "fullgrad"})


def options_of(method: str) -> dict[str, Any]:
    """Return the options of a method, by name, with their defaults."""
    parameters = inspect.signature(ATTRIBUTIONS[method]).parameters.values() if method in ATTRIBUTIONS else ()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_method(method: str, *, counterfactual: bool = False, signed: bool = False) -> None:
    """Raise ``MethodError`` unless the method exists and has the requested variants."""
    if method not in ATTRIBUTIONS:
        raise MethodError(f"unknown method {method!r}", hint=nearest(method, ATTRIBUTIONS), method=method)
    if signed and method in UNSIGNED:
        raise MethodError(
            f"method {method!r} has no signed variant: it is a sum of squares or magnitudes",
            hint=", ".join(repr(name) for name in ATTRIBUTIONS if name not in UNSIGNED),
            method=method,
        )
    if counterfactual and method not in GATED_METHODS:
        raise MethodError(
            f"method {method!r} has no counterfactual variant: −y has the same gradient with the other sign",
            hint="a signed map, which shows both sides, or " + ", ".join(map(repr, GATED_METHODS)),
            method=method,
        )


def check_floats(method: str, note: str) -> None:
    """Raise ``MethodError`` for a method that needs a floating-point input; ``note`` says what the model has."""
    if method in NEEDS_FLOATS:
        raise MethodError(
            f"method {method!r} needs a floating-point input: it follows a path from the baseline to the input",
            where=note,
            hint=", ".join(repr(name) for name in ATTRIBUTIONS if name not in NEEDS_FLOATS),
            method=method,
        )


def reduce_to_space(method: str, attribution: Array, space: Sequence[int], signed: bool) -> Array:
    """Return one value for each point of space, (R, *space) float32, from an attribution (R, *input shape).

    It is the largest magnitude over channels. For signed maps it is the sum over channels, and so it is for methods
    that are a sum over channels by definition (fullgrad).
    """
    arranged = np.moveaxis(attribution, space, range(1, 1 + len(space)))
    channels = tuple(range(1 + len(space), arranged.ndim))
    if signed or method in BIAS_METHODS:
        return np.asarray(arranged.sum(axis=channels), np.float32)
    return np.asarray(np.abs(arranged).max(axis=channels), np.float32)


def guided(heatmap: Array, attribution: Array, space: Sequence[int]) -> Array:
    """heatmap of the cam · guided-backprop, channel by channel.   Selvaraju et al. 2017, sec. 3.2.

    The heatmap (R, *space) of Grad-CAM, or of any other cam in its place, says where; guided backpropagation
    (R, *input shape) adds the detail. Both explain the same class.
    """
    return put_on_axes(heatmap, space, attribution.ndim) * attribution


def put_on_axes(maps: Array, space: Sequence[int], rank: int) -> Array:
    """Return maps (R, *space) as an array of ``rank`` axes, with space at the axes ``space`` and 1 at all others."""
    expanded = maps.reshape(*maps.shape, *[1] * (rank - maps.ndim))
    return np.moveaxis(expanded, range(1, 1 + len(space)), space)


def _mean(pieces: Iterable[Array]) -> Array:
    """Return the mean over the first axis of all pieces, float32; it is summed in float64."""
    total: Any = 0.0
    count = 0
    for piece in pieces:
        total = total + piece.sum(axis=0, dtype=np.float64)
        count += len(piece)
    return np.asarray(total / count, np.float32)


def _variance(pieces: Iterable[Array]) -> Array:
    """Return the variance over the first axis of all pieces, float32: mean of squares − square of the mean.

    The first value is subtracted from all: otherwise a small variance about a large mean would cancel.
    """
    first: Any = None
    total: Any = 0.0
    squares: Any = 0.0
    count = 0
    for piece in pieces:
        first = piece[0].astype(np.float64) if first is None else first
        rest = piece - first
        total, squares = total + rest.sum(axis=0), squares + (rest * rest).sum(axis=0)
        count += len(piece)
    return np.asarray(np.maximum(squares / count - (total / count) ** 2, 0), np.float32)
