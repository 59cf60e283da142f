"""Every perturbation method by its name.

There are three kinds. ``TAIL_METHODS`` change the activation of a layer and run only what comes behind it;
``INPUT_METHODS`` change the input and run the whole model, and so do ``MASK_METHODS``, whose masks are the activations
of a layer: they get these behind the input. A method explains one image at a time: it gets what it changes, (C,
*space), the K scores of the image as it is, (K,), and ``run``, a function from copies (B, C, *space), as many at a time
as it likes, to their scores (B, K). So all K targets of an image share its runs. Options are keyword-only parameters
with defaults. The first line of the docstring of a method is its formula and its source: the table in the documentation
is made of these lines.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from onnx_gradcam.errors import MethodError
from onnx_gradcam.methods.perturbation.ablation import ablation_cam
from onnx_gradcam.methods.perturbation.occlusion import each_window, occlusion
from onnx_gradcam.methods.perturbation.reciprocal import recipro_cam
from onnx_gradcam.methods.perturbation.records import PerturbedMaps
from onnx_gradcam.methods.perturbation.rise import drise, each_sample, rise
from onnx_gradcam.methods.perturbation.scorecam import each_mask, iscam, scorecam, sscam
from onnx_gradcam.methods.perturbation.surrogate import each_copy, kernel_shap, lime

SIGNED, COUNTERFACTUAL = "signed", "counterfactual"


@dataclass(frozen=True)
class Perturbation:
    """A method that runs a model many times.

    Attributes:
        function: makes the maps.
        runs: ``runs(shape, **options)`` returns how many copies the function runs, given all options; the shape is
            that of what it changes, (C, *space), and of the activation for ``MASK_METHODS``.
        variants: those of ``SIGNED`` and ``COUNTERFACTUAL`` that the method has. For a counterfactual map the method
            is applied to −score; for a signed one the final ReLU is left out.
        unit: what the values of the map are measured in: that of the score or of the activation, or the similarity of
            boxes.
    """

    function: Callable[..., PerturbedMaps]
    runs: Callable[..., int]
    variants: frozenset[str] = frozenset((SIGNED, COUNTERFACTUAL))
    unit: Literal["score", "activation", "similarity"] = "score"

    def copies(self, shape: tuple[int, ...], options: Mapping[str, Any]) -> int:
        """Return how many copies are run for something of a shape, with options other than the defaults."""
        return self.runs(shape, **{**self.options, **options})

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of the method, by name, with their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def each_channel(shape: tuple[int, ...], **options: Any) -> int:
    """Return the number of channels."""
    return shape[0]


def each_position(shape: tuple[int, ...], **options: Any) -> int:
    """Return the number of positions in space."""
    return int(np.prod(shape[1:]))


TAIL_METHODS: Mapping[str, Perturbation] = {
    "ablationcam": Perturbation(ablation_cam, each_channel, unit="activation"),
    "reciprocam": Perturbation(recipro_cam, each_position, frozenset()),
}
D_RISE = "d-rise"
INPUT_METHODS: Mapping[str, Perturbation] = {
    "occlusion": Perturbation(occlusion, each_window),
    "rise": Perturbation(rise, each_sample),
    D_RISE: Perturbation(drise, each_sample, frozenset((SIGNED,)), unit="similarity"),
    "lime": Perturbation(lime, each_copy),
    "kernel-shap": Perturbation(kernel_shap, each_copy),
}
MASK_METHODS: Mapping[str, Perturbation] = {
    "scorecam": Perturbation(scorecam, each_mask, unit="activation"),
    "ss-cam": Perturbation(sscam, each_mask, unit="activation"),
    "is-cam": Perturbation(iscam, each_mask, unit="activation"),
}
PERTURBATIONS: Mapping[str, Perturbation] = {**TAIL_METHODS, **INPUT_METHODS, **MASK_METHODS}


def check_method(method: str, *, counterfactual: bool = False, signed: bool = False) -> None:
    """Raise ``MethodError`` unless a method of ``PERTURBATIONS`` has the requested variants."""
    variants = {COUNTERFACTUAL: counterfactual, SIGNED: signed}
    for variant, is_requested in variants.items():
        if is_requested and variant not in PERTURBATIONS[method].variants:
            others = [name for name, each in PERTURBATIONS.items() if variant in each.variants]
            raise MethodError(
                f"method {method!r} has no {variant} variant",
                hint=", ".join(map(repr, others)),
                method=method,
            )
