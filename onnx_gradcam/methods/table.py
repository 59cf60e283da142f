"""Every method by its name: cams of a layer, attributions in input space, products of the two, and perturbations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from onnx_gradcam.errors import MethodError, nearest
from onnx_gradcam.methods import attribution, cam
from onnx_gradcam.methods.cam import NO_OPTIONS
from onnx_gradcam.methods.copies import SMOOTHING_COPIES, Noise
from onnx_gradcam.methods.factorization import CONCEPT_METHODS, check_concepts, options_of_concepts
from onnx_gradcam.methods.heatmap import FUSIONS
from onnx_gradcam.methods.kernels import KERNELS
from onnx_gradcam.methods.perturbation.ablation import DROPS
from onnx_gradcam.methods.perturbation.reciprocal import WINDOWS
from onnx_gradcam.methods.perturbation.table import PERTURBATIONS
from onnx_gradcam.methods.perturbation.table import check_method as check_perturbation
from onnx_gradcam.methods.recipe import LEVELS, OWN, Recipe
from onnx_gradcam.methods.relevance import RELEVANCE_METHODS, settings_of
from onnx_gradcam.methods.tokens import FLOORS, HEADS, READINGS, TOKEN_METHODS, check_token_method

GUIDED_CAMS: Mapping[str, str] = {f"guided-{name}": name for name in cam.CAMS}
"""Name of a product, such as "guided-gradcam" → the cam that guided backpropagation is multiplied with."""
NAMES = (*cam.CAMS, *TOKEN_METHODS, *CONCEPT_METHODS, *attribution.ATTRIBUTIONS, *GUIDED_CAMS, *PERTURBATIONS)
AUTO = "auto"
"""What stands for a method that the score of the model decides."""
GRADCAM, HIRESCAM = AUTOMATIC = ("gradcam", "hirescam")
"""The methods among which ``AUTO`` decides."""
SMOOTHINGS = (*SMOOTHING_COPIES, *(name for name in cam.COMBINATIONS if name != "sum"))
NOISE_DEFAULTS = {"samples": Noise.samples, "noise": Noise.scale, "seed": Noise.seed}
SPELLINGS: Mapping[str, str] = {
    "gradcamelementwise": "elementwise",
    "elementwisegradcam": "elementwise",
    "guidedbackpropagation": "guided-backprop",
    "deconvnet": "deconvolution",
    "inputtimesgradient": "input-x-gradient",
    "gradientxinput": "input-x-gradient",
    "integratedgradient": "integrated-gradients",
    "ssscorecam": "ss-cam",
    "smoothedscorecam": "ss-cam",
    "isscorecam": "is-cam",
    "integratedscorecam": "is-cam",
    "expectedgradients": "gradient-shap",
    "layerwiserelevancepropagation": "lrp",
}
"""Names that other tools and papers use, without hyphens → ours."""
GATE_DEFAULTS = {"rectifiers": attribution.GATED[0]}
CHOICES: Mapping[str, Sequence[str]] = {
    "rectifiers": attribution.GATED,
    "kernel": tuple(KERNELS),
    "heads": tuple(HEADS),
    "tokens": READINGS,
    "floor": FLOORS,
    "window": tuple(WINDOWS),
    "drop": DROPS,
}
"""The words that options take, where their default is a word."""
ONE_FOR_EACH_AXIS = ("window", "stride")
"""Options that take one number, or one for each axis of space, where their default is a number."""
CHECKS: Mapping[str, Callable[..., None]] = {
    **dict.fromkeys(attribution.ATTRIBUTIONS, attribution.check_method),
    **dict.fromkeys(TOKEN_METHODS, check_token_method),
    **dict.fromkeys(CONCEPT_METHODS, check_concepts),
    **dict.fromkeys(PERTURBATIONS, check_perturbation),
}
"""What raises ``MethodError`` for variants that a method does not have; all others are cams of a layer."""
WITHOUT_GRADIENT = (
    *(name for name in cam.CAMS if name not in cam.NEEDS_GRADIENT),
    *(name for name, method in TOKEN_METHODS.items() if "gradient" not in method.needs),
    *CONCEPT_METHODS,
    *PERTURBATIONS,
)


def recipe_of(
    method: str,
    counterfactual: bool = False,
    signed: bool = False,
    fusion: str = "mean",
    smooth: str | Sequence[str] = (),
    options: Mapping[str, Any] = NO_OPTIONS,
    levels: str = OWN,
) -> Recipe:
    """Return the recipe of a request, checked.

    Args:
        method: the name of a method, or ``AUTO``; upper case, hyphens, underscores and "plus" do not matter: "GradCAM",
            "grad_cam_plus_plus".
        counterfactual: see ``Recipe``.
        signed: see ``Recipe``.
        fusion: see ``Recipe``.
        smooth: the name of a smoothing, or several.
        options: see ``Recipe``.
        levels: see ``Recipe``.

    Raises:
        MethodError: the method does not exist, or does not have these variants, smoothings and options.
    """
    names = (smooth,) if isinstance(smooth, str) else tuple(smooth)
    recipe = Recipe(canonical(method), counterfactual, signed, fusion, dict(options), names, levels)
    check(recipe)
    return recipe


def canonical(method: str) -> str:
    """Return the name of a method that is spelled in another way, such as "GradCAM++" or "grad_cam_plus_plus".

    Raises ``MethodError`` for a name that is none.
    """
    by_spelling: dict[str, str] = {**{_folded(known): known for known in (AUTO, *NAMES)}, **SPELLINGS}
    name = by_spelling.get(_folded(str(method)))
    if name is None:
        raise MethodError(f"unknown method {method!r}", hint=nearest(str(method), (AUTO, *NAMES)), method=method)
    return name


def _folded(name: str) -> str:
    text = re.sub(r"[^a-z0-9+]", "", name.casefold()).replace("plusplus", "++")
    return re.sub(r"pp$", "++", text)


def check(recipe: Recipe) -> None:
    """Raise ``MethodError`` unless the method has the requested variants, smoothings, options and fusion."""
    if recipe.method == AUTO:
        for name in AUTOMATIC:
            check(replace(recipe, method=name))
        return
    method = recipe.method
    if recipe.fusion not in FUSIONS:
        raise MethodError(f"unknown fusion {recipe.fusion!r}", hint=nearest(recipe.fusion, FUSIONS), how=recipe.fusion)
    if recipe.levels not in LEVELS:
        raise MethodError(f"unknown levels {recipe.levels!r}", hint="'own' or 'all'", levels=recipe.levels)
    check_smoothing(recipe)
    if method in CHECKS:
        CHECKS[method](method, counterfactual=recipe.counterfactual, signed=recipe.signed)
    else:
        cam_is_signed = recipe.signed and method not in GUIDED_CAMS  # a product has the sign of guided backpropagation
        cam.check_method(
            cam_method(method),
            counterfactual=recipe.counterfactual,
            signed=cam_is_signed,
            combination=recipe.combination,
        )
    _check_options(recipe)


def _check_options(recipe: Recipe) -> None:
    """Raise ``MethodError`` for an option that the method does not have, and for a value that it does not take."""
    method = recipe.method
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
    if method in RELEVANCE_METHODS:
        settings_of(**recipe.options)


def require_target(recipe: Recipe) -> None:
    """Raise ``MethodError`` for a method whose maps are of concepts, one for each, and not of what is explained."""
    if recipe.method in CONCEPT_METHODS:
        raise MethodError(
            f"method {recipe.method!r} has a map for each concept, and none for a class: there is nothing to "
            "compare, to join or to measure",
            hint="'gradcam'; or explain, which draws every concept",
            method=recipe.method,
        )


def _check_value(name: str, value: object, default: object) -> None:
    """Raise ``MethodError`` for a word in the place of a number, and for an unknown word."""
    if name in CHOICES and isinstance(default, str) and value not in CHOICES[name]:
        hint = nearest(str(value), CHOICES[name])
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
        if method in TOKEN_METHODS or method in CONCEPT_METHODS:
            read = "attention maps" if method in TOKEN_METHODS else "the activation alone"
            raise MethodError(
                f"smoothing by {name!r} is for cams, but {method!r} reads {read}",
                hint="leave out the smoothing",
                smooth=name,
            )
        if method in PERTURBATIONS:
            raise MethodError(
                f"smoothing by {name!r} is not for {method!r}, which runs the model many times already",
                hint="leave out the smoothing, or another method: " + ", ".join(map(repr, cam.CAMS)),
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
        **cam.CAM_OPTIONS.get(cam_method(method), NO_OPTIONS),
        **(TOKEN_METHODS[method].options if method in TOKEN_METHODS else {}),
        **(options_of_concepts(method) if method in CONCEPT_METHODS else {}),
        **(PERTURBATIONS[method].options if method in PERTURBATIONS else {}),
        **(GATE_DEFAULTS if is_gated else {}),
        **(NOISE_DEFAULTS if needs_noise else {}),
    }


def backward_of(recipe: Recipe) -> str:
    """Return which backward pass an attribution needs, by its name in ``explain.backward_passes.BACKWARD_PASSES``."""
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
    if isinstance(value, tuple):
        return list(value)
    if np.ndim(value):
        return f"array {tuple(np.shape(value))}"
    return value.item() if isinstance(value, np.generic | np.ndarray) else value
