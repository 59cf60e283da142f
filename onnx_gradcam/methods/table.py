"""Every method by its name: cams of a layer, attributions in input space, and products of the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnx_gradcam.errors import MethodError, nearest
from onnx_gradcam.methods import attribution, cam
from onnx_gradcam.methods.copies import SMOOTHING_COPIES, Noise
from onnx_gradcam.methods.recipe import Recipe

GUIDED: Mapping[str, str] = {f"guided-{name}": name for name in cam.METHODS}
"""Guided Grad-CAM and its kin → the cam that guided backpropagation is multiplied with."""
NAMES = (*cam.METHODS, *attribution.METHODS, *GUIDED)
SMOOTHINGS = (*SMOOTHING_COPIES, *(name for name in cam.COMBINATIONS if name != "sum"))
DEFAULTS = {"samples": Noise.samples, "noise": Noise.scale, "seed": Noise.seed}
WITHOUT_GRADIENT = tuple(name for name in cam.METHODS if name not in cam.NEEDS_GRADIENT)


def check(recipe: Recipe) -> None:
    """Raise ``MethodError`` unless the method exists and has the variants and options asked for."""
    method = recipe.method
    if method not in NAMES:
        raise MethodError(f"unknown method {method!r}", hint=nearest(method, NAMES), method=method)
    check_smoothing(recipe)
    if method in attribution.METHODS:
        attribution.check_method(method, counterfactual=recipe.counterfactual, signed=recipe.signed)
    else:
        cam_is_signed = recipe.signed and method not in GUIDED  # a product has the sign of guided backpropagation
        cam.check_method(
            of_layers(method),
            counterfactual=recipe.counterfactual,
            signed=cam_is_signed,
            combination=recipe.combination,
        )
    known = options_of(method, recipe.smooth)
    for name in recipe.options:
        if name not in known:
            raise MethodError(
                f"method {method!r} has no option {name!r}",
                hint=f"its options are {', '.join(known)}" if known else f"{method!r} has none",
                method=method,
                option=name,
            )


def of_layers(method: str) -> str:
    """The method itself, of a guided product its cam's."""
    return GUIDED.get(method, method)


def check_smoothing(recipe: Recipe) -> None:
    """Raise ``MethodError`` unless the smoothings of ``recipe`` exist, go together, and smooth a cam."""
    method = recipe.method
    for name in recipe.smooth:
        if name not in SMOOTHINGS:
            raise MethodError(f"unknown smoothing {name!r}", hint=nearest(name, SMOOTHINGS), smooth=name)
        if method in attribution.METHODS:
            raise MethodError(
                f"smoothing by {name!r} is for cams: {method!r} is a method of the input",
                hint="'smoothgrad' averages gradients over noisy copies of the input",
                smooth=name,
            )
    over_copies = [name for name in recipe.smooth if name in SMOOTHING_COPIES]
    if of_layers(method) in cam.NEEDS_NOISE:
        over_copies.append(method)
    if len(over_copies) > 1:
        raise MethodError(
            f"{' and '.join(map(repr, over_copies))} average over copies of the input, each over its own",
            hint="one of them, with or without 'eigen'",
            smooth=recipe.smooth,
        )


def options_of(method: str, smooth: Sequence[str] = ()) -> dict[str, Any]:
    """The options of a method and of smoothings, and their defaults."""
    needs_noise = of_layers(method) in cam.NEEDS_NOISE or "noise" in smooth
    return {**attribution.options_of(method), **(DEFAULTS if needs_noise else {})}


def noise(recipe: Recipe) -> Noise:
    """What the options of a cam say of noise; raises ``MethodError`` for a number out of its range."""
    given = {**DEFAULTS, **recipe.options}
    return Noise(given["samples"], given["noise"], given["seed"])


def needs_gradient(method: str) -> bool:
    """Whether a method looks at gradients."""
    return method not in WITHOUT_GRADIENT


def recorded(recipe: Recipe) -> dict[str, Any]:
    """The options of a recipe, given and default, as JSON holds them: of an array its shape."""
    given = {**options_of(recipe.method, recipe.smooth), **recipe.options}
    return {name: f"array {value.shape}" if np.ndim(value) else value for name, value in given.items()}
