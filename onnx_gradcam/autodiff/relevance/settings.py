"""Say by what a relevance rule is chosen, and with which numbers it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STABILIZER = 1e-6  # keeps divisors of all rules but ε away from 0


@dataclass(frozen=True)
class RelevanceSettings:
    """The rules of layer-wise relevance propagation, by names of ``linear.LAYER_RULES``, and their numbers.

    Attributes:
        first: the rule of the first layers, those that read the input; "" for the rule of their kind.
        convolution: the rule of convolutions.
        linear: the rule of linear layers.
        epsilon: ε of the ε rule, from 0.
        gamma: γ of the γ rule, from 0.
        alpha: α of the αβ rule, from 1; β is α − 1.
        low: the least number that the input can hold, for all channels or for each; None: the least that it holds.
        high: the largest, likewise.
        has_biases: whether biases take their share of the relevance.
    """

    first: str
    convolution: str
    linear: str
    epsilon: float = 1e-6
    gamma: float = 0.25
    alpha: float = 2.0
    low: float | Sequence[float] | None = None
    high: float | Sequence[float] | None = None
    has_biases: bool = True
