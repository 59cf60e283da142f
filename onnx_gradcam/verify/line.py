"""The score along a line: s(b) − s(a) = ∫ ⟨G(x), dx⟩ from a to b, whatever kinks lie between.

The integral is the mean of ⟨G, b − a⟩ over the midpoints of equal parts. Kinks and curvature make an error there that
four neighbours show: where the gradient changes evenly, the outer two and the inner two have the same mean.
"""

from __future__ import annotations

import numpy as np

from onnx_gradcam.verify.points import direction, norm, off_kinks
from onnx_gradcam.verify.probe import Probe
from onnx_gradcam.verify.report import Scan

LENGTHS = (2.0**-7, 2.0**-5, 2.0**-3)  # half the line, as shares of ‖x‖
PARTS = (32, 128)  # of the line
DOUBT = 1e-3  # how well the integral has to be known (one standard error), and what rounding may add


def along_line(at: Probe, distance: float, rng: np.random.Generator) -> Scan:
    """Return the error along the shortest line whose change of score can be read, as a share of that change.

    The line goes through a point at ``distance`` from the value's own. ``error`` is None where the score does not
    change, or the integral is not known well enough.
    """
    value = at.value
    base = off_kinks(value, distance, rng) - value
    gradient = at.gradient_at(base)
    readable = at.rounding(base, gradient, rng) / DOUBT
    v = direction(gradient, rng) * (norm(value) or float(np.sqrt(value.size)))
    for length in LENGTHS:
        ends = [(base + sign * length * v).astype(base.dtype) for sign in (-1, 1)]
        change = at.score_at(ends[1]) - at.score_at(ends[0])
        expected = 2 * length * float(np.vdot(gradient, v))
        if np.isfinite(change) and max(abs(change), abs(expected)) > readable:
            return _judged(at, ends, change, length, rng)
    return Scan((length,), (), None, None, "line")


def _judged(at: Probe, ends: list[np.ndarray], change: float, length: float, rng: np.random.Generator) -> Scan:
    """Compare the ``change`` of the score between two moves with the integral, where that is known."""
    rounding = max(at.rounding(end, at.gradient_at(end), rng) for end in ends)
    for parts in PARTS:
        claimed, doubt = _integral(at, ends, parts)
        larger = max(abs(change), abs(claimed))
        if not doubt > DOUBT * larger:
            break
    error = (change - claimed) / larger if larger else 0.0
    known = max(rounding, doubt) <= DOUBT * larger
    return Scan((length,), (error,), None, abs(error) if known else None, "line")


def _integral(at: Probe, ends: list[np.ndarray], parts: int) -> tuple[float, float]:
    """Return ∫ ⟨G, dx⟩ between two moves of the value, and its standard error."""
    whole = at.place(ends[1]) - at.place(ends[0])
    shares = (np.arange(parts) + 0.5) / parts
    between = [((1 - t) * ends[0] + t * ends[1]).astype(ends[0].dtype) for t in shares]
    slopes = np.array([np.vdot(at.gradient_at(delta), whole) for delta in between])
    fours = slopes.reshape(-1, 4)
    uneven = (fours[:, [0, 3]].mean(axis=1) - fours[:, [1, 2]].mean(axis=1)) / 2
    return float(slopes.mean()), float(np.sqrt(np.sum(uneven**2))) / len(fours)
