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
from types import MappingProxyType
from typing import Any

from array_api_compat import array_namespace

from onnx_gradcam.errors import LayerError, MethodError, nearest
from onnx_gradcam.methods.arrays import Array, as_float32, relu, spatial
from onnx_gradcam.methods.projections import PROJECTIONS, eigen
from onnx_gradcam.methods.weights import WEIGHTS

# A gradient is constant over space when it varies by less than this share of its largest magnitude.
CONSTANT = 1e-3
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def plain_sum(evidence: Array) -> Array:
    """Σ_k of (N, C, *space)."""
    return array_namespace(evidence).sum(evidence, axis=1)


COMBINATIONS: Mapping[str, Callable[[Array], Array]] = {"sum": plain_sum, "eigen": eigen}
CAMS: Mapping[str, Callable[..., Array]] = {**WEIGHTS, **PROJECTIONS}
NEEDS: Mapping[str, tuple[str, ...]] = {
    name: tuple(p.name for p in inspect.signature(f).parameters.values() if p.kind is not p.KEYWORD_ONLY)
    for name, f in CAMS.items()
}
CAM_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    name: {p.name: p.default for p in inspect.signature(f).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for name, f in CAMS.items()
}
"""The options of each method, with their defaults."""
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
    options: Mapping[str, Any] = NO_OPTIONS,
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
        options: options by name; only those in ``CAM_OPTIONS[method]`` are read.

    Returns:
        The weights, float32, (N, C, 1, …) or (N, C, *space), None for ``PROJECTIONS``; and the cam, float32,
        (N, *space), ≥ 0 unless signed.

    Raises:
        MethodError: the method is unknown or has no such variant, an array that it needs is missing, or it is "cam" and
            the gradient did not come through global average pooling.
        LayerError: the activation has no spatial axis.
    """
    check_method(method, counterfactual=counterfactual, signed=signed, combination=combination)
    require_space(activation)
    available = {"activation": as_float32(activation), **(more or {})}
    if gradient is not None:
        available["gradient"] = as_float32(gradient)
    arrays = [_select(method, name, available, counterfactual) for name in NEEDS[method]]
    own = {name: options[name] for name in CAM_OPTIONS[method] if name in options}
    if method in PROJECTIONS:
        return None, PROJECTIONS[method](*arrays, **own)
    if method == "cam":
        check_pooled(arrays[1])
    weights = as_float32(WEIGHTS[method](*arrays, **own))
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
            hint=", ".join(repr(name) for name in WEIGHTS if name in NEEDS_GRADIENT or not counterfactual),
            method=method,
        )
    if counterfactual and method not in NEEDS_GRADIENT:
        raise MethodError(
            f"method {method!r} has no counterfactual variant: the score plays no part in it",
            hint=", ".join(repr(name) for name in WEIGHTS if name in NEEDS_GRADIENT),
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


def require_space(activation: Array) -> None:
    """Raise ``LayerError`` for an activation (N, C) without a spatial axis."""
    if activation.ndim < 3:
        shape = tuple(activation.shape)
        raise LayerError(
            f"an activation of shape {shape} has no spatial axis to draw a map on",
            hint="a target layer before the pooling or flattening",
            shape=shape,
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
