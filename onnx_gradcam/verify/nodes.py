"""Node by node: each VJP rule at its node's actual inputs, against float64 differences of that node alone.

    ⟨rule(g), v⟩ = ⟨g, (f(x + hv) − f(x − hv)) / 2h⟩   for random cotangents g and directions v

The left-hand side is run by the runtime in the model's own dtype. Kinks elsewhere in the model play no part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_gradcam.autodiff.registry import Key, Rule
from onnx_gradcam.engine.fidelity import relative_difference
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.graph.flow import operands
from onnx_gradcam.verify.alone import alone, array_of
from onnx_gradcam.verify.float64 import Arrays, Function, NoReference, in_float64, widened
from onnx_gradcam.verify.path import CheckedNode
from onnx_gradcam.verify.points import compact, cotangents, dot, finite_difference, normal, off_kinks, scale_of
from onnx_gradcam.verify.report import NodeCheck, Status

RULE_LIMIT = 1e-3
POINTS = 3  # a rule is wrong if it is so at each of as many points
STEPS = (1e-7, 1e-9, 1e-11)  # shares of the input's scale; the shorter are for what a kink spoils at the longer
CLEAR = 1e-5  # an error at which no shorter step is needed
DIRECTIONS = 3
JITTER = 1e-2  # share of the input's scale by which it is moved off kinks and ties
RESOLUTION = 1e-3  # a slope below this share of g · y drowns in the rounding of y to float32
AGREEMENT = 1e-3  # between the node in float64 and on the runtime

LARGE = 1_000_000  # elements of an input along which one random direction tells as much as several
Compact = tuple[np.ndarray | None, np.ndarray]  # places, and the elements there

Move = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def check_site(
    site: CheckedNode,
    known: Mapping[str, np.ndarray],
    options: Options,
    table: Mapping[Key, Rule],
    rng: np.random.Generator,
) -> list[NodeCheck]:
    """Return one result for each input of ``site.wrt``; ``known``: the arrays of ``values_of``, from a run.

    An input at which nothing can be decided (its derivative is zero, or below what float32 resolves: a dead ReLU, a
    saturated sigmoid) is checked again at standard normal values, and the message says so.
    """
    trial = _Trial.of(site, known, options, table)
    try:
        results = trial.check(_beside, rng)
        for _ in range(POINTS - 1):
            if any(result.status == "fail" for result in results):
                results = [_milder(*pair) for pair in zip(results, trial.check(_beside, rng), strict=True)]
        if any(result.status == "undecided" for result in results):
            results = [_elsewhere(*pair) for pair in zip(results, trial.check(normal, rng), strict=True)]
    except NoReference as reason:
        return [trial.result(i, "undecided", None, str(reason)) for i in site.wrt]
    return results


def _beside(a: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return off_kinks(a, JITTER, rng)


def _milder(first: NodeCheck, second: NodeCheck) -> NodeCheck:
    """Return the milder result: two equal values are a kink that no step length avoids, but another point does."""
    if first.status == "fail" and second.status != "undecided":
        return min(first, second, key=lambda check: check.error or 0)
    return first


def _elsewhere(first: NodeCheck, second: NodeCheck) -> NodeCheck:
    if first.status != "undecided":
        return first
    said = [second.message, "at standard normal inputs", f"at its own {first.message}"]
    return replace(second, message="; ".join(filter(None, said)))


@dataclass(frozen=True)
class _Point:
    """A node's inputs (float64 where floats), cotangents of its outputs, and what its rules make of each of these.

    ``cotangents`` by output and ``gradients`` by input: ``compact``, in the same order. ``size``: ‖g · y‖ for each
    cotangent.
    """

    inputs: Arrays
    cotangents: Mapping[int, Sequence[Compact]]
    gradients: Mapping[int, Sequence[Compact]]
    size: np.ndarray


@dataclass(frozen=True)
class _Trial:
    """A site ready to be checked: its node in float64, and with its rules' nodes in a session of its own.

    ``inputs`` of the node, None where left out; ``outputs`` that the gradient flows through, by position.
    """

    site: CheckedNode
    inputs: Arrays
    outputs: Mapping[int, np.ndarray]
    function: Function
    session: Session

    @classmethod
    def of(
        cls, site: CheckedNode, known: Mapping[str, np.ndarray], options: Options, table: Mapping[Key, Rule]
    ) -> _Trial:
        node = site.node
        inputs = [None if v is None else array_of(v, known) for v in operands(node)]
        outputs = {k: known[node.outputs[k].name or ""] for k in site.outputs}
        function = in_float64(node, next(iter(outputs.values())).shape)
        return cls(site, inputs, outputs, function, Session(alone(site, inputs, table), options))

    def check(self, move: Move, rng: np.random.Generator) -> list[NodeCheck]:
        """Compare at the moved inputs, for every input of ``site.wrt``. Raises ``NoReference``."""
        narrow = [y.dtype for y in self.outputs.values() if y.dtype not in (np.float32, np.float64)]
        if narrow:
            raise NoReference(f"its output is {narrow[0]}: only float32 and float64 are checked")
        arrays = [move(a, rng) if i in self.site.wrt and a is not None else a for i, a in enumerate(self.inputs)]
        probes = zip(*(cotangents(y, rng) for y in self.outputs.values()), strict=True)
        gs = [dict(zip(self.outputs, row, strict=True)) for row in probes]
        runs = [self._run(arrays, g) for g in gs]
        gradients = {i: [compact(run[f"grad{i}"]) for run in runs] for i in self.site.wrt}
        exact = [None if a is None else widened(a) for a in arrays]
        ys = self.function(exact)
        apart = max(relative_difference(runs[0][f"y{k}"], ys[k]) for k in self.outputs)
        if not apart <= AGREEMENT:
            raise NoReference(f"the node in float64 differs from the runtime's by {apart:.1e} of its largest value")
        wide = {k: [compact(g[k]) for g in gs] for k in self.outputs}
        size = np.sqrt(np.array([[_squares(part, ys[k]) for part in parts] for k, parts in wide.items()]).sum(0))
        point = _Point(exact, wide, gradients, size)
        return [self._compare(i, point, rng) for i in self.site.wrt]

    def _run(self, arrays: Arrays, g: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
        fed = {f"x{i}": a for i, a in enumerate(arrays) if a is not None} | {f"g{k}": a for k, a in g.items()}
        return self.session.run(self.session.outputs, {name: fed[name] for name in self.session.inputs})

    def _compare(self, i: int, at: _Point, rng: np.random.Generator) -> NodeCheck:
        """Compare at input ``i``: directions by norm, of cotangents the worst; a kink spoils one step, not the next."""
        found, x = [], at.inputs[i]
        assert x is not None
        count = DIRECTIONS if x.size < LARGE else 1
        for step in STEPS:
            pairs = [self._slopes(i, at, step, rng) for _ in range(count)]
            claimed, measured = np.array(pairs).transpose(1, 2, 0)
            found.append(judge(claimed, measured, at.size))
            if (found[-1][1] or 0) <= CLEAR:
                break
        return self.result(i, *min(found, key=lambda judged: (judged[1] is None, judged[1])))

    def _slopes(self, i: int, at: _Point, step: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return, along one random direction, what the rule says and what f does, for each cotangent."""
        x = at.inputs[i]
        assert x is not None
        v = rng.standard_normal(x.shape) * (step * scale_of(x))
        ends = [x + v, x - v]
        plus, minus = (self.function([*at.inputs[:i], end, *at.inputs[i + 1 :]]) for end in ends)
        moved, changes = ends[0] - ends[1], {k: finite_difference(plus[k], minus[k]) for k in at.cotangents}
        claimed = np.array([dot(part, moved) for part in at.gradients[i]])
        measured = np.array([[dot(part, changes[k]) for part in parts] for k, parts in at.cotangents.items()]).sum(0)
        return claimed / (2 * step), measured / (2 * step)

    def result(self, i: int, status: Status, error: float | None, message: str) -> NodeCheck:
        """Return the result at input ``i``."""
        node = self.site.node
        value = operands(node)[i]
        name = "" if value is None else value.name or ""
        return NodeCheck(node.name or "", node.op_type, i, name, status, error, message)


def judge(claimed: np.ndarray, measured: np.ndarray, size: np.ndarray) -> tuple[Status, float | None, str]:
    """Judge slopes (cotangents, directions); ``size``: ‖g · y‖ for each cotangent."""
    if not (np.isfinite(claimed).all() and np.isfinite(measured).all()):
        return "undecided", None, "its derivative is not finite"
    larger = np.maximum(np.linalg.norm(claimed, axis=1), np.linalg.norm(measured, axis=1))
    errors = np.linalg.norm(claimed - measured, axis=1) / np.where(larger > 0, larger, 1)
    good = (larger > 0) & (errors <= RULE_LIMIT)
    bad = (errors > RULE_LIMIT) & (larger > RESOLUTION * size)
    if bad.any():
        return "fail", float(errors[bad].max()), ""
    if good.any():
        return "pass", float(errors[good].max()), ""
    return "undecided", None, "the derivative is zero, or below what float32 resolves"


def _squares(part: Compact, y: np.ndarray) -> float:
    """Return ‖g · y‖², where ``part`` is ``compact(g)``."""
    places, elements = part
    flat = np.where(np.isfinite(y), y, 0).ravel()
    product = elements * (flat if places is None else flat[places])
    return float(product @ product)
