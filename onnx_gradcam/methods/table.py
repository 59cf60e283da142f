"""Every method by its name: cams of a layer, attributions in input space, and products of the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnx_gradcam.errors import MethodError, nearest
from onnx_gradcam.methods import attribution, cam
from onnx_gradcam.methods.copies import SMOOTHING_COPIES, Noise
from onnx_gradcam.methods.recipe import Recipe

GUIDED_CAMS: Mapping[str, str] = {f"guided-{name}": name for name in cam.CAMS}
"""Name of a product, such as "guided-gradcam" → the cam that guided backpropagation is multiplied with."""
NAMES = (*cam.CAMS, *attribution.ATTRIBUTIONS, *GUIDED_CAMS)
SMOOTHINGS = (*SMOOTHING_COPIES, *(name for name in cam.COMBINATIONS if name != "sum"))
NOISE_DEFAULTS = {"samples": Noise.samples, "noise": Noise.scale, "seed": Noise.seed}
GATE_DEFAULTS = {"rectifiers": attribution.GATED[0]}
WITHOUT_GRADIENT = tuple(name for name in cam.CAMS if name not in cam.NEEDS_GRADIENT)


def check(recipe: Recipe) -> None:
    """Raise ``MethodError`` unless the method exists and has the requested variants, smoothings and options."""
    method = recipe.method
    if method not in NAMES:
        raise MethodError(f"unknown method {method!r}", hint=nearest(method, NAMES), method=method)
    check_smoothing(recipe)
    if method in attribution.ATTRIBUTIONS:
        attribution.check_method(method, counterfactual=recipe.counterfactual, signed=recipe.signed)
    else:
        cam_is_signed = recipe.signed and method not in GUIDED_CAMS  # a product has the sign of guided backpropagation
        cam.check_method(
            cam_method(method),
            counterfactual=recipe.counterfactual,
            signed=cam_is_signed,
            combination=recipe.combination,
        )
    known = options_of(method, recipe.smooth)
    for name in recipe.options:
        if name not in known:
            raise MethodError(
                f"method {method!r} has no option {name!r}",
                hint=f"its options are {', '.join(known)}" if known else f"{method!r} has no options",
                method=method,
                option=name,
            )
        _check_value(name, recipe.options[name], known[name])


def _check_value(name: str, value: object, default: object) -> None:
    """Raise ``MethodError`` for a word in the place of a number, and for an unknown word."""
    if name == "rectifiers" and value not in attribution.GATED:
        hint = nearest(str(value), attribution.GATED)
    elif isinstance(value, str) and not isinstance(default, str) and name != "baseline":
        hint = "a number"
    else:
        return
    raise MethodError(f"option {name!r} is {value!r}", hint=hint, option=name)


def cam_method(method: str) -> str:
    """Return the method that makes the cam: the method itself, or the one in a guided product."""
    return GUIDED_CAMS.get(method, method)


def check_smoothing(recipe: Recipe) -> None:
    """Raise ``MethodError`` unless the smoothings of ``recipe`` exist, go together, and smooth a cam."""
    method = recipe.method
    for name in recipe.smooth:
        if name not in SMOOTHINGS:
            raise MethodError(f"unknown smoothing {name!r}", hint=nearest(name, SMOOTHINGS), smooth=name)
        if method in attribution.ATTRIBUTIONS:
            raise MethodError(
                f"smoothing by {name!r} is for cams, but {method!r} explains the input",
                hint="'smoothgrad' averages gradients over noisy copies of the input",
                smooth=name,
            )
    over_copies = [name for name in recipe.smooth if name in SMOOTHING_COPIES]
    if cam_method(method) in cam.NEEDS_NOISE:
        over_copies.append(method)
    if len(over_copies) > 1:
        raise MethodError(
            f"{' and '.join(map(repr, over_copies))} cannot be combined: each averages over copies of the input",
            hint="only one of them, with or without 'eigen'",
            smooth=recipe.smooth,
        )


def options_of(method: str, smooth: Sequence[str] = ()) -> dict[str, Any]:
    """Return the options of a method and of smoothings, by name, with their defaults."""
    needs_noise = cam_method(method) in cam.NEEDS_NOISE or "noise" in smooth
    is_gated = method in attribution.GATED_METHODS or method in GUIDED_CAMS
    return {
        **attribution.options_of(method),
        **(GATE_DEFAULTS if is_gated else {}),
        **(NOISE_DEFAULTS if needs_noise else {}),
    }


def backward_of(recipe: Recipe) -> str:
    """Return which backward pass an attribution needs, by its name in ``explain.network.BACKWARD_PASSES``."""
    if recipe.method not in attribution.GATED_METHODS:
        return "gradient"
    rectifiers = recipe.options.get("rectifiers", attribution.GATED[0])
    name = f"{attribution.GATED_METHODS[recipe.method]} of {rectifiers}"
    return name + " counterfactual" * recipe.counterfactual


def noise_of(recipe: Recipe) -> Noise:
    """Return the noise that the options of a recipe describe. Raises ``MethodError`` for a number out of its range."""
    options = {**NOISE_DEFAULTS, **recipe.options}
    return Noise(options["samples"], options["noise"], options["seed"])


def needs_gradient(method: str) -> bool:
    """Return whether a method reads gradients."""
    return method not in WITHOUT_GRADIENT


def options_for_json(recipe: Recipe) -> dict[str, Any]:
    """Return all options of a recipe, also those with their defaults, ready for JSON: an array becomes its shape."""
    options = {**options_of(recipe.method, recipe.smooth), **recipe.options}
    return {name: _for_json(value) for name, value in options.items()}


def _for_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _for_json(each) for name, each in value.items()}
    if np.ndim(value):
        return f"array {np.shape(value)}"
    return value.item() if isinstance(value, np.generic | np.ndarray) else value
