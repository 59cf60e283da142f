"""Concepts in an activation: which channels go together, and where.

A is (N, C, *space), of one image or of several, in which the same concepts are sought. The first line of a docstring is
the formula and its source.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device

from onnx_gradcam.errors import MethodError
from onnx_gradcam.methods.arrays import Array, as_float32, ratio

BEGIN = 0.01  # share of the mean of all values that every channel of a concept begins with
ROUNDS = 300  # of multiplicative updates: the error is then within a few percent of that of a solver that ends


class Concepts(NamedTuple):
    """K concepts of an activation, the largest first.

    Attributes:
        vectors: (K, C), the activation where a concept is at its peak.
        maps: (N, K, *space), how much of a concept is where, from 0 to 1: 1 at its peak over all images.
        shares: (K,), how much of the activation, above the least of each channel, a concept stands for; they add up to
            nearly 1.
    """

    vectors: Array
    maps: Array
    shares: Array


def deep_feature_factorization(activation: Array, *, concepts: int = 5) -> Concepts:
    """A_k ≈ min A_k + Σ_c w_kc m_c, w ≥ 0, m ≥ 0: m_c is the map of concept c.   Collins et al. 2018, arXiv:1806.10206.

    A non-negative factorisation of all images at once, by the multiplicative updates of Lee & Seung 2001. It begins at
    the positions whose channels are most unlike: no random numbers are drawn. ``concepts``: how many are sought. The
    least of each channel over all images is taken off first, as in pytorch-grad-cam, and added to the vectors again: it
    is 0 behind a ReLU. Each concept has one map an image and one vector, w_c + min A, which the head of a classifier
    gives a class. The score plays no part.
    """
    images, channels = activation.shape[:2]
    positions = math.prod(activation.shape[2:])
    if isinstance(concepts, bool) or not isinstance(concepts, (int, np.integer)) or not 1 <= concepts <= channels:
        raise MethodError(
            f"{concepts} concepts of {channels} channels", hint=f"from 1 to {channels}", concepts=concepts
        )
    xp = array_namespace(activation)
    flat = xp.reshape(as_float32(activation), (images, channels, positions))
    values = xp.reshape(xp.permute_dims(flat, (1, 0, 2)), (channels, images * positions))
    least = xp.min(values, axis=1, keepdims=True)
    w, m = factors(values - least, concepts)
    peak = xp.max(m, axis=1, keepdims=True)
    w, m = w * xp.matrix_transpose(peak), ratio(m, peak)
    parts = xp.sum(w, axis=0) * xp.sum(m, axis=1)
    shares = ratio(parts, xp.broadcast_to(xp.sum(parts), parts.shape))
    order = xp.argsort(-shares)
    maps = xp.reshape(xp.take(m, order, axis=0), (concepts, images, *activation.shape[2:]))
    vectors = xp.take(xp.matrix_transpose(w + least), order, axis=0)
    return Concepts(vectors, xp.permute_dims(maps, (1, 0, *range(2, maps.ndim))), xp.take(shares, order))


def factors(values: Array, count: int) -> tuple[Array, Array]:
    """Return w (C, K) and m (K, P), ≥ 0, whose product is near to ``values`` (C, P) ≥ 0.

    The squared error falls with every update: w ← w · V mᵀ / w m mᵀ, and m alike.
    """
    xp = array_namespace(values)
    w = unlike(values, count)
    m = xp.full((count, values.shape[1]), 1 / count, dtype=values.dtype, device=device(values))
    for _ in range(ROUNDS):
        of_m = xp.matrix_transpose(w)
        m = m * ratio(of_m @ values, of_m @ w @ m)
        of_w = xp.matrix_transpose(m)
        w = w * ratio(values @ of_w, w @ (m @ of_w))
    return w, m


def unlike(values: Array, count: int) -> Array:
    """Return the ``count`` columns of ``values`` (C, P) that are most unlike, (C, K), none of them 0 anywhere.

    Successive projections (Araújo et al. 2001): the longest column; then the longest of what is left of all columns
    without their parts along those that were taken. An update keeps a 0, so that a share of the mean is added.
    """
    xp = array_namespace(values)
    rest, taken = values, []
    for _ in range(count):
        longest = xp.argmax(xp.sum(rest * rest, axis=0))
        taken.append(xp.take(values, xp.reshape(longest, (1,)), axis=1))
        axis = xp.take(rest, xp.reshape(longest, (1,)), axis=1)
        axis = ratio(axis, xp.sqrt(xp.sum(axis * axis, axis=0, keepdims=True)))
        rest = rest - axis @ (xp.matrix_transpose(axis) @ rest)
    return xp.concat(taken, axis=1) + BEGIN * xp.mean(values)


CONCEPT_METHODS: Mapping[str, Callable[..., Concepts]] = {"dff": deep_feature_factorization}


def options_of_concepts(method: str) -> dict[str, Any]:
    """Return the options of a method of ``CONCEPT_METHODS``, by name, with their defaults."""
    parameters = inspect.signature(CONCEPT_METHODS[method]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_concepts(method: str, *, counterfactual: bool = False, signed: bool = False) -> None:
    """Raise ``MethodError`` for variants: a method of ``CONCEPT_METHODS`` has none."""
    if counterfactual or signed:
        raise MethodError(
            f"method {method!r} has no {'counterfactual' if counterfactual else 'signed'} variant: the score plays no "
            "part in it",
            hint="'gradcam'",
            method=method,
        )
