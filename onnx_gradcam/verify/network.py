"""The whole network: the gradient of the score against central differences of it, through the runtime.

Directions v = G∘m + a little noise, m a random half mask: along isotropic ones the score drowns in rounding long
before the steps are free of kinks. A kink within a step is an error of the order of its length, so what counts is
where (s(x + hv) − s(x − hv)) / 2h − ⟨G, v⟩ goes to as h → 0: a straight line in h through the shortest steps that
rounding leaves legible. Steps that lie on such a line are the plateau. Where kinks are too dense for that, the score is
followed along a line (``verify.line``), and where that leaves it open, a small network is run in float64
(``verify.precise``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnx_gradcam.verify.float64 import NoReference
from onnx_gradcam.verify.line import along_line
from onnx_gradcam.verify.points import direction, norm, off_kinks
from onnx_gradcam.verify.precise import in_double_precision
from onnx_gradcam.verify.probe import Probe
from onnx_gradcam.verify.report import Check, Scan

GRADIENT_LIMIT = 2e-3
LINES_TRIED = 3  # directions from the value
POINT_DISTANCES = (0.3, 0.03)  # distances from the value's own point, off kinks, as shares of its scale
BRIEFLY = 2  # steps at which a gradient has to hold not to be wrong
OCTAVES = 10  # step lengths, each half the one before
LONGEST = 2.0**-2  # ‖hv‖ as a share of ‖x‖
KNOWN_TO = 1e-3  # how well the error has to be known (one standard error), and what rounding may add to a slope
LENGTH = 5  # steps on a plateau, at least
DROPPED = 2  # shortest steps that may be off it
HIDDEN = "no plateau: kinks, jumps and rounding hide the slope of the score at every step and along a line"
STILL = "no move changes the score by more than rounding does, and the gradient claims no more: nothing to compare"
IN_FLOAT64 = "decided in float64, node by node without the runtime: float32 hides the slope"
WAY_OUT = "what may decide it: another input (--seed, x=), a layer nearer to the score (--layer)"
CLEARLY_WRONG = GRADIENT_LIMIT + 2 * KNOWN_TO  # what an error must exceed to count against the gradient


def check_gradient(at: Probe, name: str, rng: np.random.Generator) -> Check:
    """Check the gradient at the value ``name`` along several directions; in float64 where float32 leaves it open."""
    check = _along_directions(at, name, rng)
    if check.status != "undecided":
        return check
    try:
        precise = _along_directions(in_double_precision(at), name, rng)
    except NoReference as reason:
        return replace(check, message=f"{check.message}; {reason}; {WAY_OUT}")
    if precise.status == "undecided":
        return replace(check, message=f"{check.message}; so it is in float64; {WAY_OUT}")
    return replace(precise, message="; ".join(filter(None, [precise.message, IN_FLOAT64])))


def _along_directions(at: Probe, name: str, rng: np.random.Generator) -> Check:
    what = f"gradient at {name!r}"
    if at.values[name].dtype not in (np.float32, np.float64):
        why = f"its values are {at.values[name].dtype}: differences of a float32 score only are checked"
        return Check(what, "undecided", None, GRADIENT_LIMIT, why)
    scans = tuple(_settled(at, name, rng) for _ in range(LINES_TRIED))
    errors = [scan.error for scan in scans if scan.error is not None]
    worst = max(errors, default=None)
    if worst is not None and worst > GRADIENT_LIMIT:
        return Check(what, "fail", worst, GRADIENT_LIMIT, "the score does not change as the gradient says", scans)
    if len(errors) < len(scans):
        why = HIDDEN if any(scan.errors for scan in scans if scan.error is None) else STILL
        return Check(what, "undecided", None, GRADIENT_LIMIT, why, scans)
    return Check(what, "pass", worst, GRADIENT_LIMIT, "", scans)


def _settled(at: Probe, name: str, rng: np.random.Generator) -> Scan:
    """Return the scan at the first point where the gradient holds; else a line decides, where kinks do not count.

    A kink right beside a point looks like a wrong gradient at all legible steps, and jumps (of an unpooling whose place
    moves) like one on a line: a gradient that holds at the shortest steps of some point is not wrong, but undecided.
    """
    found: list[Scan] = []
    for distance in POINT_DISTANCES:
        found.append(scan(at, name, distance, rng))
        if found[-1].error is not None and found[-1].error <= GRADIENT_LIMIT:
            return found[-1]
    line = along_line(at, name, POINT_DISTANCES[0], rng)
    if line.error is None and at.values[name].dtype == np.float64 and all(map(_is_clearly_wrong, found)):
        return found[-1]  # the steps are so short that no kink lies within them at both points
    if line.error is None or line.error <= GRADIENT_LIMIT:
        return line
    wrong = line.error > CLEARLY_WRONG and not any(map(_holds_briefly, found))
    return line if wrong else replace(line, error=None)


def _is_clearly_wrong(found: Scan) -> bool:
    return found.error is not None and found.error > CLEARLY_WRONG


def _holds_briefly(found: Scan) -> bool:
    """Tell whether the gradient holds at BRIEFLY of the shortest steps, the last of which rounding may hide."""
    last = np.abs(found.errors[-BRIEFLY - DROPPED :]) <= GRADIENT_LIMIT
    return any(last[k : k + BRIEFLY].all() for k in range(len(last) - BRIEFLY + 1))


def scan(at: Probe, name: str, distance: float, rng: np.random.Generator) -> Scan:
    """Measure slopes with steps by octaves along one direction, from a point at a distance from the value's own."""
    value = at.values[name]
    base = off_kinks(value, distance, rng) - value
    gradient = at.gradient_at(name, base)
    if not np.isfinite(gradient).all():
        return Scan((), (), None, None)
    v = direction(gradient, rng) * (norm(value) or float(np.sqrt(value.size)))
    # The least change of the score, per unit of step, that can be read.
    legible = at.rounding(name, base, gradient, rng) / (2 * KNOWN_TO)
    steps = _steps(legible, abs(float(np.vdot(gradient, v))))
    claimed, measured = np.array([_slopes(at, name, base, gradient, step * v, step) for step in steps]).T
    larger = np.maximum(np.abs(claimed), np.abs(measured)).max()
    if not np.isfinite(larger):
        return Scan((), (), None, None)
    errors = (measured - claimed) / (larger or 1)
    found = plateau(np.array(steps), errors, int(np.sum(np.array(steps) * larger > legible)))
    if found is None:
        return Scan(steps, tuple(errors.tolist()), None, None)
    start, stop, error = found
    return Scan(steps, tuple(errors.tolist()), (steps[stop - 1], steps[start]), error)


def _steps(legible: float, slope: float) -> tuple[float, ...]:
    """Return octaves, the longest first, to the shortest step whose change can be read at the claimed ``slope``."""
    shortest = legible / slope if slope else LONGEST
    last = min(2.0 ** np.ceil(np.log2(shortest or LONGEST)), LONGEST / 2 ** (OCTAVES - 1))
    return tuple(float(last * 2.0**k) for k in reversed(range(OCTAVES)))


def _slopes(
    at: Probe, name: str, base: np.ndarray, gradient: np.ndarray, move: np.ndarray, step: float
) -> tuple[float, float]:
    """Return ⟨G, v⟩ and the central difference, for the part of ``move`` that float32 can represent."""
    ends = [(base + sign * move).astype(base.dtype) for sign in (1, -1)]
    moved = at.place(name, ends[0]) - at.place(name, ends[1])
    change = at.score_at(name, ends[0]) - at.score_at(name, ends[1])
    return float(np.vdot(gradient, moved)) / (2 * step), change / (2 * step)


def plateau(steps: np.ndarray, errors: np.ndarray, legible: int) -> tuple[int, int, float] | None:
    """Return the shortest ``legible`` steps that lie on a straight line: (first, last + 1, |error| at step 0).

    LENGTH at least; how many, and whether without the DROPPED last, is chosen so that the error at step 0 is known
    best. None where it is never known to within KNOWN_TO (one standard error).
    """
    spans = [(start, stop) for stop in range(legible - DROPPED, legible + 1) for start in range(stop - LENGTH + 1)]
    lines = [(_line(steps[a:b], errors[a:b]), a, b) for a, b in spans]
    if not lines:
        return None
    (doubt, error), start, stop = min(lines)
    return (start, stop, error) if doubt <= KNOWN_TO else None


def _line(steps: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Return the straight line through the errors at step 0: (its standard error, its absolute value)."""
    slope, start = np.polyfit(steps, errors, 1)
    variance = np.sum((start + slope * steps - errors) ** 2) / (len(steps) - 2)
    spread = np.sum((steps - steps.mean()) ** 2)
    doubt = np.sqrt(variance * (1 / len(steps) + steps.mean() ** 2 / spread))
    return float(doubt), abs(float(start))
