"""Attacks on arrays and a gradient: small changes of an image that raise a loss. Nothing here knows of models or files.

A change δ is measured in grey levels of a photo: x′ = x + δ · unit. Arrays are (N, …), one image after the other, and
each image is changed by itself, whatever stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Gradient = Callable[[Array], Array]
"""From images (N, …) to the gradient of the loss at each, (N, …)."""


@dataclass(frozen=True, eq=False)
class Room:
    """How far images may be changed.

    Attributes:
        unit: what one grey level is in the input; it broadcasts with (N, …).
        low, high: the smallest and the largest value of the input; they broadcast with (N, …).
        free: bool, it broadcasts with (N, …): which values may be changed.
    """

    unit: Array
    low: Array
    high: Array
    free: Array


def fgsm(x: Array, gradient: Gradient, room: Room, epsilon: float, norm: str = "linf") -> Array:
    """x + ε · sign ∂L/∂x.   Goodfellow et al. 2015, arXiv:1412.6572, eq. 1.

    With the norm "l2": x + ε · g / ‖g‖₂ (Miyato et al. 2016, arXiv:1605.07725).

    Args:
        x: (N, …).
        gradient: of the loss that is raised.
        room: how far images may be changed.
        epsilon: the norm of the change, in grey levels.
        norm: "linf" or "l2".
    """
    return moved(x, epsilon * NORMS[norm].step(_in_levels(x, gradient, room)), room)


def pgd(
    x: Array,
    gradient: Gradient,
    room: Room,
    epsilon: float,
    norm: str = "linf",
    *,
    steps: int = 10,
    step_size: float | None = None,
    random_start: bool = True,
    seed: int = 0,
) -> Array:
    """x ← Π(x + α · sign ∂L/∂x), from a random start.   Madry et al. 2018, arXiv:1706.06083, eq. 2 and sec. 2.1.

    Π returns to the ball of radius ε around the image, and to the values that the input may have. With the norm "l2"
    the step is α · g / ‖g‖₂.

    Args:
        x: (N, …).
        gradient: of the loss that is raised.
        room: how far images may be changed.
        epsilon: the radius of the ball, in grey levels.
        norm: "linf" or "l2".
        steps: how many steps.
        step_size: α, in grey levels; None: 2.5 · ε / steps.
        random_start: whether the first step starts at a random place in the ball.
        seed: what this place is drawn from.
    """
    of_norm, alpha = NORMS[norm], 2.5 * epsilon / steps if step_size is None else step_size
    start = np.zeros(x.shape)
    if random_start:
        start = np.stack([of_norm.draw(np.random.default_rng([seed, k]), x.shape[1:]) for k in range(len(x))])
    attacked = moved(x, epsilon * start, room)
    for _ in range(steps):
        change = changed_by(x, attacked, room) + alpha * of_norm.step(_in_levels(attacked, gradient, room))
        attacked = moved(x, of_norm.project(change, epsilon), room)
    return attacked


def moved(x: Array, change: Array, room: Room) -> Array:
    """Return images changed by so many grey levels, within what the input may hold, of the dtype of x.

    A value that lies outside of it already, as a photo may that was resized without rounding, is no end for itself.
    Rounding to the dtype never makes a change larger.
    """
    step = np.where(room.free, change, 0) * room.unit
    rounded = (x + step).astype(x.dtype)
    is_larger = np.abs(rounded.astype(np.float64) - x) > np.abs(step)
    rounded = np.where(is_larger, np.nextafter(rounded, x), rounded)
    low, high = np.minimum(room.low.astype(x.dtype), x), np.maximum(room.high.astype(x.dtype), x)
    return np.where(room.free, np.clip(rounded, low, high), x)


def changed_by(x: Array, attacked: Array, room: Room) -> Array:
    """Return by how many grey levels images were changed, (N, …) float64."""
    return np.asarray((attacked.astype(np.float64) - x) / room.unit)


def length(change: Array, norm: str) -> Array:
    """Return the norm of the change of each image, (N,)."""
    return NORMS[norm].length(change.reshape(len(change), -1))


def _in_levels(x: Array, gradient: Gradient, room: Room) -> Array:
    """Return the gradient by grey levels, 0 where nothing may be changed."""
    return np.where(room.free, gradient(x) * room.unit, 0)


def _each(values: Array, like: Array) -> Array:
    """Return one value for each image, (N,), in a form that broadcasts with (N, …)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _l2(flat: Array) -> Array:
    return np.asarray(np.linalg.norm(flat.astype(np.float64), axis=1))


def _unit_vectors(gradient: Array) -> Array:
    lengths = _each(_l2(gradient.reshape(len(gradient), -1)), gradient)
    return np.divide(gradient, lengths, out=np.zeros(gradient.shape), where=lengths > 0)


def _into_ball(change: Array, epsilon: float) -> Array:
    lengths = _each(_l2(change.reshape(len(change), -1)), change)
    return np.asarray(change * np.minimum(1, epsilon / np.maximum(lengths, 1e-30)))


def _in_unit_ball(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return a point drawn evenly from the ball of radius 1."""
    direction = rng.standard_normal(shape)
    return np.asarray(direction / np.linalg.norm(direction) * rng.uniform() ** (1 / direction.size))


@dataclass(frozen=True)
class Norm:
    """A way to measure changes.

    Attributes:
        step: from gradients (N, …) to the change of norm 1 that raises the loss most.
        project: from changes and ε to the nearest changes of a norm of at most ε.
        draw: from a random generator and a shape to a change of a norm of at most 1.
        length: from changes (N, n) to their norms (N,).
        epsilon: a usual ε, in grey levels.
    """

    step: Callable[[Array], Array]
    project: Callable[[Array, float], Array]
    draw: Callable[[np.random.Generator, tuple[int, ...]], Array]
    length: Callable[[Array], Array]
    epsilon: float


NORMS: Mapping[str, Norm] = {
    "linf": Norm(
        np.sign,
        lambda change, epsilon: np.clip(change, -epsilon, epsilon),
        lambda rng, shape: rng.uniform(-1, 1, shape),
        lambda flat: np.abs(flat).max(axis=1),
        8.0,
    ),
    "l2": Norm(_unit_vectors, _into_ball, _in_unit_ball, _l2, 128.0),
}
