"""The whole network: the gradient of the score against the slope of the score along several directions.

Three roads lead to that slope; the first that settles a direction decides it:

1. Central differences through the runtime, with steps of several lengths. Directions v = G∘m + a little noise, m a
   random half mask: along isotropic ones the score drowns in rounding long before the steps are free of kinks. A kink
   within a step is an error of the order of its length, so what counts is where (s(x + hv) − s(x − hv)) / 2h − ⟨G, v⟩
   goes to as h → 0: a straight line in h through the shortest steps that rounding leaves legible. Steps that lie on
   such a line are the plateau.
2. Where kinks are too dense for that, float64, carried forwards through the network (``verify.tangent``).
3. Where a node has no reference in float64, the change of the score along a line (``verify.line``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.verify.float64 import NoReference
from onnx_gradcam.verify.line import along_line
from onnx_gradcam.verify.points import direction, norm, normal, off_kinks
from onnx_gradcam.verify.probe import Probe
from onnx_gradcam.verify.report import Check, Scan
from onnx_gradcam.verify.tangent import gradient_in_float64, slope_along

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
NOT_FINITE = "the gradient is not finite"
WRONG = "the score does not change as the gradient says"
WAY_OUT = "what may decide it: another input (--seed, x=), a layer nearer to the score (--layer)"
CLEARLY_WRONG = GRADIENT_LIMIT + 2 * KNOWN_TO  # what an error must exceed to count against the gradient
# Where float64 looks again: a right gradient holds there, and a score that stands still may move.
MOVES: tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], ...] = (
    lambda a, rng: off_kinks(a, POINT_DISTANCES[1], rng),
    normal,
)


@dataclass(frozen=True)
class Ray:
    """A point and a direction from it.

    Attributes:
        base: by how much the value is moved to get to the point.
        gradient: ∂score/∂value there, float64.
        v: the direction, as long as the value, float64.
    """

    base: np.ndarray
    gradient: np.ndarray
    v: np.ndarray

    @property
    def slope(self) -> float:
        """Return the slope of the score that the gradient claims."""
        return float(np.vdot(self.gradient, self.v))


def ray_from(at: Probe, point: np.ndarray, rng: np.random.Generator) -> Ray:
    """Return a ray from a point, given as what the value is there."""
    base = point - at.value
    gradient = at.gradient_at(base)
    length = norm(at.value) or float(np.sqrt(at.value.size))
    return Ray(base, gradient, direction(gradient, rng) * length if np.isfinite(gradient).all() else gradient)


def check_gradient(at: Probe, rng: np.random.Generator) -> Check:
    """Check the gradient at the value of a probe along several directions."""
    what = f"gradient at {at.name!r}"
    if at.value.dtype not in (np.float32, np.float64):
        why = f"its values are {at.value.dtype}: differences of a float32 score only are checked"
        return Check(what, "undecided", None, GRADIENT_LIMIT, why)
    scans, reason = _scans(at, rng)
    errors = [scan.error for scan in scans if scan.error is not None]
    worst = max(errors, default=None)
    if worst is not None and worst > GRADIENT_LIMIT:
        return Check(what, "fail", worst, GRADIENT_LIMIT, WRONG, scans)
    if len(errors) == len(scans):
        return Check(what, "pass", worst, GRADIENT_LIMIT, "", scans)
    hidden = any(scan.errors for scan in scans if scan.error is None)
    why = "" if reason == NOT_FINITE else HIDDEN if hidden else STILL
    return Check(what, "undecided", None, GRADIENT_LIMIT, "; ".join(filter(None, [why, reason, WAY_OUT])), scans)


def _scans(at: Probe, rng: np.random.Generator) -> tuple[tuple[Scan, ...], str]:
    """Return a scan for each direction, and why float64 could not help where it was needed.

    What hides one slope hides the others: once float64 has decided, the directions that are left go there at once.
    """
    scans: list[Scan] = []
    reason = ""
    for _ in range(LINES_TRIED):
        ray = ray_from(at, off_kinks(at.value, POINT_DISTANCES[0], rng), rng)
        if not np.isfinite(ray.gradient).all():
            return (*scans, Scan((), (), None, None)), NOT_FINITE
        try:
            scans.append(_settled(at, ray, rng, bool(scans) and scans[-1].road == "float64"))
        except NoReference as error:
            reason = str(error)
            scans.append(_along_a_line(at, ray, rng))
        if scans[-1].road == "float64" and scans[-1].error is None:
            break  # the score stands still at three points
    return tuple(scans), reason


def _settled(at: Probe, ray: Ray, rng: np.random.Generator, at_once: bool) -> Scan:
    """Return differences along a ray where the gradient holds by them, else, or ``at_once``, what float64 says.

    Raises:
        NoReference: there is no float64.
    """
    if not at_once:
        found = scan(at, ray, rng)
        if _holds(found):
            return found
    return _in_float64(at, ray, rng)


def _holds(found: Scan) -> bool:
    return found.error is not None and found.error <= GRADIENT_LIMIT


def _in_float64(at: Probe, ray: Ray, rng: np.random.Generator) -> Scan:
    """Return the error in float64 at the mildest of several points.

    A wrong gradient is so at each of them, and stays so where rounding to float32 has no part in it. Where the score
    stands still at one point, it may move at another.
    """
    found = [_compared(at, ray, rng)]
    for move in MOVES:
        if _holds(found[-1]):
            break
        found.append(_compared(at, ray_from(at, move(at.value, rng), rng), rng))
    return min(found, key=lambda each: np.inf if each.error is None else each.error)


def _compared(at: Probe, ray: Ray, rng: np.random.Generator) -> Scan:
    """Compare the slope that the gradient claims with the one in float64.

    What float32 could not read of the longest step is rounding of a score that stands still, and no error.
    """
    found = _error(ray.slope, slope_along(at, ray.base, ray.v))
    if found.error is None or found.error <= GRADIENT_LIMIT:
        return found
    measured = slope_along(at, ray.base, ray.v, exact=True)
    exact = _error(float(np.vdot(gradient_in_float64(at, ray.base), ray.v)), measured)
    if _holds(exact) or max(abs(ray.slope), abs(measured)) * LONGEST > _legible(at, ray, rng):
        return exact
    return Scan((), (), None, None, "float64")


def _legible(at: Probe, ray: Ray, rng: np.random.Generator) -> float:
    """Return the least change of the score, per unit of step, that can be read in float32."""
    return at.rounding(ray.base, ray.gradient, rng) / (2 * KNOWN_TO)


def _error(claimed: float, measured: float) -> Scan:
    larger = max(abs(claimed), abs(measured))
    if not larger or not np.isfinite(larger):
        return Scan((), (), None, None, "float64")
    error = (measured - claimed) / larger
    return Scan((), (error,), None, abs(error), "float64")


def _along_a_line(at: Probe, ray: Ray, rng: np.random.Generator) -> Scan:
    """Return the scan at another point if the gradient holds there; else a line decides, where kinks do not count.

    A kink right beside a point looks like a wrong gradient at all legible steps, and jumps (of an unpooling whose place
    moves) like one on a line: a gradient that holds at the shortest steps of some point is not wrong, but undecided.
    """
    first = scan(at, ray, rng)
    if _holds(first):
        return first
    second = scan(at, ray_from(at, off_kinks(at.value, POINT_DISTANCES[1], rng), rng), rng)
    if _holds(second):
        return second
    line = along_line(at, POINT_DISTANCES[0], rng)
    if line.error is None or line.error <= GRADIENT_LIMIT:
        return line
    wrong = line.error > CLEARLY_WRONG and not any(map(_holds_briefly, (first, second)))
    return line if wrong else Scan(line.steps, line.errors, None, None, line.road)


def _holds_briefly(found: Scan) -> bool:
    """Tell whether the gradient holds at BRIEFLY of the shortest steps, the last of which rounding may hide."""
    last = np.abs(found.errors[-BRIEFLY - DROPPED :]) <= GRADIENT_LIMIT
    return any(last[k : k + BRIEFLY].all() for k in range(len(last) - BRIEFLY + 1))


def scan(at: Probe, ray: Ray, rng: np.random.Generator) -> Scan:
    """Measure slopes along a ray with steps by octaves."""
    legible = _legible(at, ray, rng)
    steps = _steps(legible, abs(ray.slope))
    claimed, measured = np.array([_slopes(at, ray, step) for step in steps]).T
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


def _slopes(at: Probe, ray: Ray, step: float) -> tuple[float, float]:
    """Return ⟨G, v⟩ and the central difference, for the part of a move that float32 can represent."""
    ends = [(ray.base + sign * step * ray.v).astype(ray.base.dtype) for sign in (1, -1)]
    moved = at.place(ends[0]) - at.place(ends[1])
    change = at.score_at(ends[0]) - at.score_at(ends[1])
    return float(np.vdot(ray.gradient, moved)) / (2 * step), change / (2 * step)


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
