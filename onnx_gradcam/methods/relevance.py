"""Layer-wise relevance propagation: which rule each kind of layer gets.

The first line of the docstring of the method is its formula and its source: the table of methods in the documentation
is made of these lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import MethodError, nearest

Array = npt.NDArray[Any]
Bound = float | Sequence[float] | None


class Rules(NamedTuple):
    """The rule of each kind of layer; "" for first layers that have none of their own."""

    first: str
    convolution: str
    linear: str


COMPOSITES: Mapping[str, Rules] = {
    "epsilon-plus": Rules("", "z-plus", "epsilon"),
    "epsilon-plus-flat": Rules("flat", "z-plus", "epsilon"),
    "epsilon-gamma-box": Rules("box", "gamma", "epsilon"),
    "epsilon-alpha-beta": Rules("", "alpha-beta", "epsilon"),
    "epsilon-alpha-beta-flat": Rules("flat", "alpha-beta", "epsilon"),
    **{name: Rules("", name, name) for name in ("epsilon", "gamma", "alpha-beta", "z-plus", "excitation")},
}
"""The values of the option ``rule``: one rule for all layers, or a rule for each kind."""
OF_ANY_LAYER = ("epsilon", "gamma", "alpha-beta", "z-plus", "excitation")
OF_FIRST_LAYER = ("box", "flat", "w-square", *OF_ANY_LAYER)
NAMED = ("first", "convolution", "linear")
BIASES = ("share", "none")
"""The values of the option ``biases``: whether they take a share of the relevance; the first is the default."""


def lrp(
    x: Array,
    relevance: Array,
    *,
    rule: str | Mapping[str, str] = "epsilon-plus",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    low: Bound = None,
    high: Bound = None,
    biases: str = BIASES[0],
) -> Array:
    """R_j = Σ_k R_k · z_jk / Σ_j z_jk, from layer to layer.   Bach et al. 2015, doi:10.1371/journal.pone.0130140.

    ``relevance`` is that sum at x. ``rule`` says what z is: of a linear layer z_jk = x_j · w_jk for "epsilon", with ε
    added to the divisor; the positive z alone for "z-plus" and, without biases, "excitation"; α times them less α − 1
    times the negative ones for "alpha-beta"; x_j · (w_jk + γ w_jk⁺) for "gamma". "epsilon-plus" takes "z-plus" for
    convolutions and "epsilon" for linear layers; "epsilon-alpha-beta" and "epsilon-gamma-box" take theirs for
    convolutions; names that end in "flat" or "box" have another rule for the first layer, which shares relevance out
    evenly, or by what x is above its least number and below its largest one (``low`` and ``high``: a number, or one for
    each channel; by default those of each image's own channel). A rule of one's own is named for each kind of layer:
    ``rule={"first": "w-square", "convolution": "gamma", "linear": "epsilon"}``, or ``--option rule.first=w-square``.

    BatchNormalization and whatever else scales and shifts channels behind a layer is taken for a part of it. Sums,
    means and pools share by what each input adds. An activation passes on what it is given (SiLU, GELU and its like,
    too). Of a product of two values each gets half, but a gate (behind a Sigmoid or Softmax) gets nothing; softmax has
    the rule of the gradient, and what a normalisation divides by is taken for a constant: Achtibat et al. 2024,
    arXiv:2402.05602. LSTM, GRU and RNN have no rule.

    Biases keep their share: the note says how much of the score reaches x. In deep networks with BatchNormalization
    "z-plus" leaves nearly all to them, and the map is that of the small rest; ``biases="none"`` gives them nothing.
    """
    return relevance


RELEVANCE_METHODS: Mapping[str, Callable[..., Array]] = {"lrp": lrp}


def settings_of(
    rule: str | Mapping[str, str] = "epsilon-plus",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    low: Bound = None,
    high: Bound = None,
    biases: str = BIASES[0],
) -> dict[str, Any]:
    """Return the rules of each kind of layer and their numbers, checked, by the names that the backward pass has.

    Args:
        rule: see ``lrp``.
        epsilon: see ``lrp``.
        gamma: see ``lrp``.
        alpha: see ``lrp``.
        low: see ``lrp``.
        high: see ``lrp``.
        biases: see ``lrp``.

    Raises:
        MethodError: an option is unknown, or out of its range.
    """
    for name, number, least in (("epsilon", epsilon, 0), ("gamma", gamma, 0), ("alpha", alpha, 1)):
        if not (isinstance(number, int | float) and least <= number < math.inf):
            raise MethodError(f"option {name!r} is {number!r}", hint=f"a number from {least}", option=name)
    if biases not in BIASES:
        raise MethodError(f"option 'biases' is {biases!r}", hint=nearest(str(biases), BIASES), option="biases")
    numbers = {"epsilon": float(epsilon), "gamma": float(gamma), "alpha": float(alpha)}
    bounds = {"low": _bound("low", low), "high": _bound("high", high)}
    return {**rules_of(rule)._asdict(), **numbers, **bounds, "has_biases": biases == BIASES[0]}


def rules_of(rule: str | Mapping[str, str]) -> Rules:
    """Return the rule of each kind of layer. Raises ``MethodError`` for an unknown one."""
    if isinstance(rule, str):
        if rule not in COMPOSITES:
            raise MethodError(f"option 'rule' is {rule!r}", hint=nearest(rule, COMPOSITES), option="rule")
        return COMPOSITES[rule]
    for kind, name in rule.items():
        if kind not in NAMED:
            raise MethodError(f"option 'rule' names {kind!r}", hint=nearest(str(kind), NAMED), option="rule")
        known = OF_FIRST_LAYER if kind == "first" else OF_ANY_LAYER
        if name not in known:
            raise MethodError(f"option 'rule' is {name!r} for {kind!r}", hint=nearest(str(name), known), option="rule")
    return COMPOSITES["epsilon-plus"]._replace(**rule)


def _bound(name: str, bound: Bound) -> float | tuple[float, ...] | None:
    """Return a bound of the input as it can be looked up: a number, or one for each channel."""
    if bound is None:
        return None
    array = np.asarray(bound)
    if array.dtype.kind not in "iuf" or array.ndim > 1 or not np.isfinite(array).all():
        raise MethodError(f"option {name!r} is {bound!r}", hint="a number, or one for each channel", option=name)
    return tuple(float(each) for each in array) if array.ndim else float(array)
