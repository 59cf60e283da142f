"""Methods of attention maps: from how much every token looks at every other to how much each token matters.

A_l is the attention of block l, (N, heads, T, T): row i holds how much token i takes from each token j, and adds up to
1. ∇A_l is the gradient of a score with respect to it. ``read`` (T,) says how much of the score each token behind the
last block is read for; it adds up to 1. A method returns one number for each token, (N, T). The first line of a
docstring is the formula and its source.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace, device

from onnx_gradcam.errors import MethodError, nearest
from onnx_gradcam.methods.arrays import Array, as_float32, relu

Maps = Sequence[Array]


def mean_heads(maps: Array) -> Array:
    """Return the mean over heads."""
    return array_namespace(maps).mean(maps, axis=1)


def max_heads(maps: Array) -> Array:
    """Return the largest value over heads."""
    return array_namespace(maps).max(maps, axis=1)


def min_heads(maps: Array) -> Array:
    """Return the smallest value over heads."""
    return array_namespace(maps).min(maps, axis=1)


HEADS: Mapping[str, Callable[[Array], Array]] = {"mean": mean_heads, "max": max_heads, "min": min_heads}
OWN, MEAN = READINGS = ("own", "mean")
ZERO, LEAST = FLOORS = ("zero", "least")


def attention_rollout(attention: Maps, read: Array, *, heads: str = "mean", floor: str = ZERO) -> Array:
    """r · Ā_L ⋯ Ā_1, Ā_l = rows of mean_h A_l + I, scaled to 1.   Abnar & Zuidema 2020, arXiv:2005.00928.

    r is what the score reads: the class token, or all tokens where it takes their mean. I stands for the way around the
    attention. ``heads``: "mean", "max" or "min" over heads. ``floor``: "zero" leaves the shares as they are; "least"
    takes that of the token with the least off all, as other tools do before they draw: every token takes something of
    every other, and a map of shares is bright everywhere. The score plays no part: this explains no class. What the
    other layers of a block do is left out.
    """
    xp = array_namespace(read)
    over_heads = HEADS[heads]
    relevance = xp.reshape(as_float32(read), (1, 1, -1))
    identity = xp.eye(relevance.shape[2], dtype=relevance.dtype, device=device(relevance))
    for maps in reversed(attention):
        mixed = over_heads(as_float32(maps)) + identity
        relevance = relevance @ (mixed / xp.sum(mixed, axis=2, keepdims=True))
    shares = relevance[:, 0, :]
    return shares - xp.min(shares, axis=1, keepdims=True) if floor == LEAST else shares


def gradient_rollout(attention: Maps, gradient: Maps, read: Array) -> Array:
    """r · (I + Ā_L) ⋯ (I + Ā_1) − r, Ā_l = mean_h relu(∇A_l · A_l).   Chefer et al. 2021, arXiv:2103.15679, eq. 5, 6.

    r as in attention-rollout: the paper's is the class token. What r has of itself without any attention is taken off.
    """
    xp = array_namespace(read)
    start = xp.reshape(as_float32(read), (1, 1, -1))
    relevance = start
    for maps, slope in zip(reversed(attention), reversed(gradient), strict=True):
        relevance = relevance + relevance @ mean_heads(relu(as_float32(slope) * as_float32(maps)))
    return (relevance - start)[:, 0, :]


def legrad(gradient: Maps, *, tokens: str = MEAN, blocks: int = 0) -> Array:
    """mean over blocks l, heads and rows of relu(∂s_l/∂A_l).   Bousselham et al. 2024, arXiv:2404.03214.

    s_l is the score that the head of the model makes of the tokens behind block l in the place of those behind the
    last; A_l counts only by way of block l. ``tokens``: "mean", as in the authors' code and torch-cam: the head reads
    the mean of the tokens; or "own": it reads them as it reads those behind the last block. ``blocks``: how many of the
    last blocks count; 0: all.
    """
    if not 0 <= blocks <= len(gradient):
        raise MethodError(f"method 'legrad' with blocks {blocks}", hint=f"from 0 to {len(gradient)}", blocks=blocks)
    xp = array_namespace(gradient[0])
    means = [xp.mean(relu(as_float32(slope)), axis=(1, 2)) for slope in gradient[-blocks:]]
    return sum(means[1:], means[0]) / len(means)


@dataclass(frozen=True)
class TokenMethod:
    """A method of attention maps.

    Attributes:
        function: makes one number for each token.
        unit: what the numbers are measured in: "attention", "gradient", or "score", that of the score.
    """

    function: Callable[..., Array]
    unit: str

    @property
    def needs(self) -> tuple[str, ...]:
        """Return what the function needs: "attention", "gradient", "read"."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of the function, by name, with their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


TOKEN_METHODS: Mapping[str, TokenMethod] = {
    "attention-rollout": TokenMethod(attention_rollout, "attention"),
    "gradient-rollout": TokenMethod(gradient_rollout, "score"),
    "legrad": TokenMethod(legrad, "gradient"),
}


def check_token_method(method: str, *, counterfactual: bool = False, signed: bool = False) -> None:
    """Raise ``MethodError`` unless a method of ``TOKEN_METHODS`` has the requested variants."""
    if method not in TOKEN_METHODS:
        raise MethodError(f"unknown method {method!r}", hint=nearest(method, TOKEN_METHODS), method=method)
    if signed:
        raise MethodError(
            f"method {method!r} has no signed variant: it counts what is positive alone",
            hint="'gradcam', or the counterfactual variant of 'legrad'",
            method=method,
        )
    if counterfactual and "gradient" not in TOKEN_METHODS[method].needs:
        raise MethodError(
            f"method {method!r} has no counterfactual variant: the score plays no part in it",
            hint=", ".join(repr(name) for name, each in TOKEN_METHODS.items() if "gradient" in each.needs),
            method=method,
        )
