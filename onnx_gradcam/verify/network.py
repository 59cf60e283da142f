"""The whole network: the gradient of the score against central differences of it, through the runtime.

Directions v = G∘m + a little noise, m a random half mask: along isotropic ones the score drowns in rounding long
before the steps are free of kinks. A kink within a step is an error of the order of its length, so what counts is
where (s(x + hv) − s(x − hv)) / 2h − ⟨G, v⟩ goes to as h → 0: a straight line in h through the shortest steps that
rounding leaves legible. Steps that lie on such a line are the plateau.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_gradcam.autodiff.registry import Key, Rule
from onnx_gradcam.gradient import SCORE, differentiate
from onnx_gradcam.graph.score import Score
from onnx_gradcam.runtime import Options, Session
from onnx_gradcam.verify.points import off_kinks
from onnx_gradcam.verify.report import Check, Scan

LIMIT = 2e-3
DIRECTIONS = 3
ISOTROPIC = 0.1  # share of noise in a direction: what G lacks shows only there
POINTS = (0.3, 0.03) * 4  # distances from the value's own point, off kinks, as shares of its scale
WRONG = 3  # of them at which the gradient does not hold, for it to be wrong
OCTAVES = 10  # step lengths, each half the one before
LONGEST = 2.0**-2  # ‖hv‖ as a share of ‖x‖
AGREEMENT = 1e-3  # how well the error has to be known (one standard error), and what rounding may add to a slope
LENGTH = 5  # steps on a plateau, at least
DROPPED = 2  # shortest steps that may be off it
STILL = 8  # standard deviations of the rounding in a score that stands still, at most
STEADY = 0.05  # how well the measured slope by itself has to be known, as a share of it, to prove a gradient wrong
CLEARLY = 2  # by how many AGREEMENTs an error must exceed the limit to count against the gradient
SAMPLES = 6  # of the score, to see how much rounding there is in it
ULP = 2.0**-24  # of float32, as a share of the number


@dataclass(frozen=True)
class Probe:
    """A model with values that can be moved: ``delta/<name>`` is added to each of ``values`` {name: array}.

    ``gradient`` gives the gradients there, ``forward`` the score alone.
    """

    gradient: Session
    forward: Session
    feeds: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        prepared: ir.Model,
        score: Score,
        table: Mapping[Key, Rule],
        options: Options,
        feeds: Mapping[str, np.ndarray],
        values: Mapping[str, np.ndarray],
        place: np.ndarray | None = None,
    ) -> Probe:
        """Open the two sessions; ``feeds`` hold ``target_index`` too; ``place``: the cells of a dense score."""
        model = prepared.clone()
        known = ir.convenience.create_value_mapping(model.graph)
        for name in values:
            _add_delta(model.graph, known[name])
        score = score.on(known)
        if score.dense is not None and place is not None:
            _hold(model.graph, score.dense.place, place)
        whole = differentiate(model, score, [f"moved/{name}" for name in values], table).model
        forward = whole.clone()
        forward.graph.outputs[:] = [v for v in forward.graph.outputs if v.name == SCORE]
        RemoveUnusedNodesPass()(forward)
        at_rest = {f"delta/{name}": np.zeros_like(array) for name, array in values.items()}
        return cls(Session(whole, options), Session(forward, options), {**feeds, **at_rest}, values)

    def gradient_at(self, name: str, delta: np.ndarray) -> np.ndarray:
        """∂score/∂value, float64, with the value moved by ``delta``."""
        output = f"grad/moved/{name}"
        found = self.gradient.run([output], {**self.feeds, f"delta/{name}": delta})[output]
        return np.asarray(found, np.float64)

    def score_at(self, name: str, delta: np.ndarray) -> float:
        """The score, summed over the batch."""
        return float(np.sum(self.forward.run([SCORE], {**self.feeds, f"delta/{name}": delta})[SCORE], dtype=np.float64))


def _add_delta(graph: ir.Graph, value: ir.Value) -> None:
    """Every reader of ``value`` reads ``moved/<name>`` = value + ``delta/<name>`` instead."""
    delta = ir.val(f"delta/{value.name}", dtype=value.dtype, shape=value.shape)
    moved = ir.val(f"moved/{value.name}", dtype=value.dtype, shape=value.shape)
    for node, i in list(value.uses()):
        node.replace_input_with(i, moved)
    producer = value.producer()
    add = ir.node("Add", [value, delta], outputs=[moved], name=moved.name)
    if producer is None:
        graph.insert_before(graph[0], add)
    else:
        graph.insert_after(producer, add)
    graph.inputs.append(delta)


def _hold(graph: ir.Graph, value: ir.Value, array: np.ndarray) -> None:
    """Every reader of ``value`` reads ``array`` instead."""
    name = f"held/{value.name}"
    held = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(held)
    value.replace_all_uses_with(held)


def check_gradient(at: Probe, name: str, rng: np.random.Generator) -> Check:
    """The gradient at the value ``name``, along several directions."""
    what = f"gradient at {name!r}"
    if at.values[name].dtype != np.float32:
        why = f"its values are {at.values[name].dtype}: differences of a float32 score only are checked"
        return Check(what, "undecided", None, LIMIT, why)
    scans = tuple(_settled(at, name, rng) for _ in range(DIRECTIONS))
    errors = [scan.error for scan in scans if scan.error is not None]
    worst = max(errors, default=None)
    if worst is not None and worst > LIMIT:
        return Check(what, "fail", worst, LIMIT, "the score does not change as the gradient says", scans)
    if len(errors) < len(scans):
        why = "no plateau: the slope of the score is zero, or does not settle before rounding takes over"
        return Check(what, "undecided", None, LIMIT, why, scans)
    return Check(what, "pass", worst, LIMIT, "", scans)


def _settled(at: Probe, name: str, rng: np.random.Generator) -> Scan:
    """The scan at the first point where the gradient holds; without one, the best of those where it does not.

    A kink right beside a point looks like a wrong gradient at all legible steps, so it takes several points to say that
    a gradient is wrong.
    """
    wrong: list[Scan] = []
    for distance in POINTS:
        found = scan(at, name, distance, rng)
        if found.error is not None and found.error <= LIMIT:
            return found
        if found.error is not None and found.error > LIMIT + CLEARLY * AGREEMENT:
            wrong.append(found)
        if len(wrong) == WRONG:
            return min(wrong, key=lambda s: s.error or 0)
    return replace(found, plateau=None, error=None)


def scan(at: Probe, name: str, distance: float, rng: np.random.Generator) -> Scan:
    """Step lengths by octaves along one direction, from a point at that distance from the value's own."""
    value = at.values[name]
    base = off_kinks(value, distance, rng) - value
    gradient = at.gradient_at(name, base)
    if not np.isfinite(gradient).all():
        return Scan((), (), None, None)
    v = _direction(gradient, rng) * (float(np.linalg.norm(value)) or float(np.sqrt(value.size)))
    legible = _rounding(at, name, base, rng) / (2 * AGREEMENT)  # least change of the score, per unit of step, to read
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
    if error > LIMIT and not _steady(np.array(steps)[start:stop], measured[start:stop], legible):
        return Scan(steps, tuple(errors.tolist()), None, None)
    return Scan(steps, tuple(errors.tolist()), (steps[stop - 1], steps[start]), error)


def _steady(steps: np.ndarray, slopes: np.ndarray, legible: float) -> bool:
    """Whether the measured slopes are one slope by themselves, or the score stands still: not so if it only jitters.

    Beside a claimed slope that is much larger, jitter looks like standing still.
    """
    if np.all(steps * np.abs(slopes) <= STILL * AGREEMENT * legible):
        return True
    doubt, _ = _line(steps, slopes / np.abs(slopes).max())
    return doubt <= STEADY


def _rounding(at: Probe, name: str, base: np.ndarray, rng: np.random.Generator) -> float:
    """The standard deviation of the score while the value moves by its own rounding."""
    moved = at.values[name] + base
    tiny = [(base + moved * 2 * ULP * rng.standard_normal(base.shape)).astype(base.dtype) for _ in range(SAMPLES)]
    scores = [at.score_at(name, delta) for delta in tiny]
    return max(float(np.std(scores)), ULP * abs(scores[0]))


def _steps(legible: float, slope: float) -> tuple[float, ...]:
    """Octaves, the longest first, down to the shortest step whose change can be read; ``slope`` as it is claimed."""
    shortest = legible / slope if slope else LONGEST
    last = min(2.0 ** np.ceil(np.log2(shortest or LONGEST)), LONGEST / 2 ** (OCTAVES - 1))
    return tuple(float(last * 2.0**k) for k in reversed(range(OCTAVES)))


def _slopes(
    at: Probe, name: str, base: np.ndarray, gradient: np.ndarray, move: np.ndarray, step: float
) -> tuple[float, float]:
    """⟨G, v⟩ and the central difference, for the move that is left of ``move`` when float32 has rounded it."""
    value = at.values[name]
    ends = [(base + sign * move).astype(value.dtype) for sign in (1, -1)]
    moved = [(value + end).astype(np.float64) for end in ends]
    change = at.score_at(name, ends[0]) - at.score_at(name, ends[1])
    return float(np.vdot(gradient, moved[0] - moved[1])) / (2 * step), change / (2 * step)


def _direction(gradient: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """G∘m and noise, of unit length."""
    along = _unit(gradient * rng.integers(0, 2, gradient.shape))
    return _unit(along + ISOTROPIC * _unit(rng.standard_normal(gradient.shape)))


def _unit(v: np.ndarray) -> np.ndarray:
    return np.asarray(v / (np.linalg.norm(v) or 1))


def plateau(steps: np.ndarray, errors: np.ndarray, legible: int) -> tuple[int, int, float] | None:
    """Of the ``legible`` first steps the shortest that lie on a straight line: (first, last + 1, |error| at step 0).

    LENGTH at least; how many, and whether without the DROPPED last, is chosen so that the error at step 0 is known
    best. None where it is never known to within AGREEMENT (one standard error).
    """
    spans = [(start, stop) for stop in range(legible - DROPPED, legible + 1) for start in range(stop - LENGTH + 1)]
    lines = [(_line(steps[a:b], errors[a:b]), a, b) for a, b in spans]
    if not lines:
        return None
    (doubt, error), start, stop = min(lines)
    return (start, stop, error) if doubt <= AGREEMENT else None


def _line(steps: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """The straight line through the errors at step 0: (its standard error, its absolute value)."""
    slope, start = np.polyfit(steps, errors, 1)
    variance = np.sum((start + slope * steps - errors) ** 2) / (len(steps) - 2)
    spread = np.sum((steps - steps.mean()) ** 2)
    doubt = np.sqrt(variance * (1 / len(steps) + steps.mean() ** 2 / spread))
    return float(doubt), abs(float(start))
