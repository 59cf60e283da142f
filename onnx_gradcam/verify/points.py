"""Where derivatives are compared, and the cotangents they are compared with."""

from __future__ import annotations

import numpy as np

PERIOD = 4093  # the largest prime below 2¹²: no row or plane is that long
ISOTROPIC = 0.1  # share of noise in a direction: what the gradient lacks shows only there
SPARSE = 8  # an array in which at most one element of as many is not zero is kept as these
BLOCK = 8  # length of the blocks that some cotangents are confined to


def off_kinks(a: np.ndarray, distance: float, rng: np.random.Generator) -> np.ndarray:
    """Return ``a`` moved away from zero by up to ``distance`` of its scale: off kinks at 0 and off ties.

    Non-negative arrays stay so (they may be what a Sqrt or Log is applied to).
    """
    sign = np.where(a < 0, -1.0, 1.0)
    if (a < 0).any():
        sign[a == 0] = rng.choice([-1.0, 1.0], int((a == 0).sum()))
    return _untied(np.asarray(a + sign * distance * scale_of(a) * rng.uniform(0.5, 1, a.shape), a.dtype))


def _untied(a: np.ndarray) -> np.ndarray:
    """float32 values whose last 12 bits are their places: of equal ones, moved at random, some would stay a tie.

    There are about 40 000 float32 numbers between c (1 + 0.005) and c (1 + 0.01), and a million values to move.
    """
    if a.dtype != np.float32:
        return a
    places = (np.arange(a.size) % PERIOD).astype(np.uint32).reshape(a.shape)
    return (np.ascontiguousarray(a).view(np.uint32) & ~np.uint32(0xFFF) | places).view(np.float32)


def normal(a: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return standard normal values in the form of ``a``; absolute ones where that is non-negative."""
    noise = rng.standard_normal(a.shape)
    return np.asarray(noise if (a < 0).any() else np.abs(noise), a.dtype)


def scale_of(a: np.ndarray) -> float:
    """Return the root mean square; 1 for an array of zeros."""
    return float(np.sqrt(np.mean(np.square(a, dtype=np.float64)))) or 1.0


def cotangents(y: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return one cotangent over all of y, and three confined to a block: the first, the last and one in between.

    They are zero where y is infinite: a mask of −∞ has no slope.
    """
    found = [rng.standard_normal(y.shape)]
    for corner in ([0] * y.ndim, y.shape, [int(rng.integers(0, n)) for n in y.shape]):
        starts = [max(0, min(a, n - BLOCK)) for a, n in zip(corner, y.shape, strict=True)]
        block = tuple(slice(a, a + BLOCK) for a in starts)
        g = np.zeros(y.shape)
        g[block] = rng.standard_normal(g[block].shape)
        found.append(g)
    return [np.where(np.isfinite(y), g, 0).astype(y.dtype) for g in found]


def finite_difference(plus: np.ndarray, minus: np.ndarray) -> np.ndarray:
    """Return plus − minus, 0 where one is not finite."""
    finite = np.isfinite(plus) & np.isfinite(minus)
    return np.asarray(np.subtract(plus, minus, out=np.zeros(plus.shape), where=finite))


def compact(a: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the elements of ``a`` in float64, and which they are: None for all, else places in the flat array.

    Cotangents of a block, and what becomes of them, are mostly zeros.
    """
    flat = a.ravel()
    if SPARSE * np.count_nonzero(flat) > flat.size:
        return None, flat.astype(np.float64)
    places = np.flatnonzero(flat)
    return places, flat[places].astype(np.float64)


def dot(part: tuple[np.ndarray | None, np.ndarray], b: np.ndarray) -> float:
    """Return ⟨a, b⟩, where ``part`` is ``compact(a)``."""
    places, elements = part
    flat = b.ravel()
    return float(elements @ (flat if places is None else flat[places]))


def direction(gradient: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return G∘m and noise, of unit length."""
    along = _unit(gradient * rng.integers(0, 2, gradient.shape))
    return _unit(along + ISOTROPIC * _unit(rng.standard_normal(gradient.shape)))


def norm(a: np.ndarray) -> float:
    """Return ‖a‖, in float64: squares of float32 may be infinite."""
    return float(np.linalg.norm(a.astype(np.float64).ravel()))


def _unit(v: np.ndarray) -> np.ndarray:
    largest = np.abs(v).max(initial=0)
    scaled = v / (largest or 1)
    return np.asarray(scaled / (norm(scaled) or 1))
