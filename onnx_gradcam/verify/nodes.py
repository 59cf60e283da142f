"""Node by node: each VJP rule at its node's actual inputs, against float64 differences of that node alone.

    ⟨rule(g), v⟩ = ⟨g, (f(x + hv) − f(x − hv)) / 2h⟩   for random cotangents g and directions v

The left-hand side is run by the runtime in the model's own dtype. Kinks elsewhere in the model play no part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff import registry
from onnx_gradcam.autodiff.registry import Key, Rule
from onnx_gradcam.forward import relative_difference
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.runtime import Options, Session
from onnx_gradcam.verify.float64 import Arrays, Function, in_float64, widened
from onnx_gradcam.verify.path import Site
from onnx_gradcam.verify.report import NodeCheck, Status

LIMIT = 1e-3
STEPS = (1e-8, 1e-10)  # shares of the input's scale; the second is for what a kink spoils at the first
DIRECTIONS = 4
JITTER = 1e-3  # share of the input's scale by which it is moved off kinks and ties
BLOCK = 8  # length of the blocks that some cotangents are confined to
RESOLUTION = 1e-3  # a slope below this share of g · y drowns in the rounding of y to float32
AGREEMENT = 1e-3  # between the node in float64 and on the runtime

Move = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def check_site(
    site: Site,
    known: Mapping[str, np.ndarray],
    options: Options,
    table: Mapping[Key, Rule],
    rng: np.random.Generator,
) -> list[NodeCheck]:
    """One result for each input of ``site.wrt``; ``known``: the arrays of ``values_of``, from a run of the model.

    An input at which nothing can be decided (its derivative is zero, or below what float32 resolves: a dead ReLU, a
    saturated sigmoid) is checked again at standard normal values, and the message says so.
    """
    trial = _Trial.of(site, known, options, table)
    results = trial.check(off_kinks, rng)
    if all(result.status != "undecided" for result in results):
        return results
    again = trial.check(_normal, rng)
    return [_retried(*pair) if pair[0].status == "undecided" else pair[0] for pair in zip(results, again, strict=True)]


def _retried(first: NodeCheck, second: NodeCheck) -> NodeCheck:
    said = [second.message, "at standard normal inputs", f"at its own {first.message}"]
    return replace(second, message="; ".join(filter(None, said)))


# --- the points and the probes ------------------------------------------------------------------------------


def off_kinks(a: np.ndarray, distance: float, rng: np.random.Generator) -> np.ndarray:
    """``a`` moved away from zero by up to ``distance`` of its scale: off kinks at 0, and no two zeros stay a tie.

    Non-negative arrays stay so (they may be what a Sqrt or Log is applied to).
    """
    sign = np.where(a < 0, -1.0, 1.0)
    if (a < 0).any():
        sign[a == 0] = rng.choice([-1.0, 1.0], int((a == 0).sum()))
    return np.asarray(a + sign * distance * _scale(a) * rng.uniform(0.5, 1, a.shape), a.dtype)


def _normal(a: np.ndarray, _: float, rng: np.random.Generator) -> np.ndarray:
    """Standard normal values; absolute ones where ``a`` is non-negative."""
    noise = rng.standard_normal(a.shape)
    return np.asarray(noise if (a < 0).any() else np.abs(noise), a.dtype)


def _scale(a: np.ndarray) -> float:
    """Root mean square; 1 for an array of zeros."""
    return float(np.sqrt(np.mean(np.square(a, dtype=np.float64)))) or 1.0


def _cotangents(y: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """One over all of y, and three confined to a block: the first, the last (borders!) and one in between."""
    corners = [[0] * y.ndim, list(y.shape), [int(rng.integers(0, n)) for n in y.shape]]
    found = [rng.standard_normal(y.shape)]
    for corner in corners:
        starts = [max(0, min(a, n - BLOCK)) for a, n in zip(corner, y.shape, strict=True)]
        block = tuple(slice(a, a + BLOCK) for a in starts)
        g = np.zeros(y.shape)
        g[block] = rng.standard_normal(g[block].shape)
        found.append(g)
    return found


# --- the comparison -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    """A site ready to be checked: its node in float64, and with its rules' nodes in a session of its own.

    ``inputs`` of the node, None where left out; ``outputs`` that the gradient flows through, by position.
    """

    site: Site
    inputs: Arrays
    outputs: Mapping[int, np.ndarray]
    function: Function
    session: Session

    @classmethod
    def of(cls, site: Site, known: Mapping[str, np.ndarray], options: Options, table: Mapping[Key, Rule]) -> _Trial:
        node = site.node
        inputs = [None if v is None else _array(v, known) for v in node.inputs]
        outputs = {k: known[node.outputs[k].name or ""] for k in site.outputs}
        function = in_float64(node, next(iter(outputs.values())).shape)
        return cls(site, inputs, outputs, function, Session(_alone(site, inputs, table), options))

    def check(self, move: Move, rng: np.random.Generator) -> list[NodeCheck]:
        """Compare at the moved inputs, for every input of ``site.wrt``."""
        arrays = [
            move(a, JITTER, rng) if i in self.site.wrt and a is not None else a for i, a in enumerate(self.inputs)
        ]
        probes = zip(*(_cotangents(y, rng) for y in self.outputs.values()), strict=True)
        gs = [dict(zip(self.outputs, row, strict=True)) for row in probes]
        runs = [self._run(arrays, g) for g in gs]
        exact = [None if a is None else widened(a) for a in arrays]
        ys = self.function(exact)
        apart = max(relative_difference(runs[0][f"y{k}"], ys[k]) for k in self.outputs)
        if not apart <= AGREEMENT:
            return [self._result(i, "undecided", None, _DISAGREE.format(apart)) for i in self.site.wrt]
        size = np.array([_norm([g[k] * ys[k] for k in g]) for g in gs])
        return [self._compare(i, exact, gs, [run[f"grad{i}"] for run in runs], size, rng) for i in self.site.wrt]

    def _run(self, arrays: Arrays, g: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
        fed = {f"x{i}": a for i, a in enumerate(arrays)} | {f"g{k}": a for k, a in g.items()}
        return self.session.run(self.session.outputs, {name: fed[name] for name in self.session.inputs})

    def _compare(
        self,
        i: int,
        arrays: Arrays,
        gs: Sequence[Mapping[int, np.ndarray]],
        gradients: Sequence[np.ndarray],
        size: np.ndarray,
        rng: np.random.Generator,
    ) -> NodeCheck:
        """Over the directions by norm, over the cotangents the worst; a kink spoils one step length, not both."""
        found = []
        for step in STEPS:
            expected, measured = np.array(
                [self._slopes(i, arrays, gs, gradients, step, rng) for _ in range(DIRECTIONS)]
            ).transpose(1, 2, 0)
            found.append(_judge(expected, measured, size))
            if found[-1][0] == "pass":
                break
        status, error, message = min(found, key=lambda f: (f[1] is None, f[1]))
        return self._result(i, status, error, message)

    def _slopes(
        self,
        i: int,
        arrays: Arrays,
        gs: Sequence[Mapping[int, np.ndarray]],
        gradients: Sequence[np.ndarray],
        step: float,
        rng: np.random.Generator,
    ) -> tuple[list[float], list[float]]:
        """Along one random direction of the scale of x: what the rule says and what f does, for each cotangent."""
        x = arrays[i]
        assert x is not None
        v = rng.standard_normal(x.shape) * step * _scale(x)
        ends = [x + v, x - v]
        plus, minus = (self.function([*arrays[:i], end, *arrays[i + 1 :]]) for end in ends)
        moved = (ends[0] - ends[1]) / (2 * step)
        expected = [float(np.vdot(widened(gradient), moved)) for gradient in gradients]
        measured = [sum(float(np.vdot(widened(g[k]), plus[k] - minus[k])) for k in g) / (2 * step) for g in gs]
        return expected, measured

    def _result(self, i: int, status: Status, error: float | None, message: str) -> NodeCheck:
        node = self.site.node
        value = node.inputs[i]
        name = "" if value is None else value.name or ""
        return NodeCheck(node.name or "", node.op_type, i, name, status, error, message)


_DISAGREE = "the node in float64 differs from the runtime's by {:.1e} of its largest value"


def _judge(expected: np.ndarray, measured: np.ndarray, size: np.ndarray) -> tuple[Status, float | None, str]:
    """Of slopes (cotangents, directions); ``size``: ‖g · y‖ for each cotangent."""
    if not (np.isfinite(expected).all() and np.isfinite(measured).all()):
        return "undecided", None, "its derivative is not finite"
    larger = np.maximum(np.linalg.norm(expected, axis=1), np.linalg.norm(measured, axis=1))
    errors = np.linalg.norm(expected - measured, axis=1) / np.where(larger > 0, larger, 1)
    good = (larger > 0) & (errors <= LIMIT)
    bad = (errors > LIMIT) & (larger > RESOLUTION * size)
    if bad.any():
        return "fail", float(errors[bad].max()), ""
    if good.any():
        return "pass", float(errors[good].max()), ""
    return "undecided", None, "the derivative is zero, or below what float32 resolves"


def _norm(arrays: Sequence[np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(np.square(a, dtype=np.float64)) for a in arrays)))


def _array(value: ir.Value, known: Mapping[str, np.ndarray]) -> np.ndarray:
    array = constant(value)
    return known[value.name or ""] if array is None else array


def _alone(site: Site, arrays: Arrays, table: Mapping[Key, Rule]) -> ir.Model:
    """The node as a model: inputs x<i> and cotangents g<k> → outputs y<k> and grad<i>, by the rules of ``table``.

    What is known of shapes before the run is known here, no more: the rules write the nodes that they wrote in the
    whole graph.
    """
    node, graph = site.node, site.node.graph
    assert graph is not None
    inputs = [
        None if v is None else _like(v, f"x{i}", a) for i, (v, a) in enumerate(zip(node.inputs, arrays, strict=True))
    ]
    copy = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        node.attributes.values(),
        num_outputs=len(node.outputs),
        name=node.name,
    )
    for k, (mine, theirs) in enumerate(zip(copy.outputs, node.outputs, strict=True)):
        mine.name = f"y{k}" if theirs.name else ""
        mine.dtype, mine.shape = theirs.dtype, theirs.shape
    given = [v for v in inputs if v is not None]
    part = ir.Graph(
        [v for v in given if v.const_value is None],
        [copy.outputs[k] for k in site.outputs],
        nodes=[copy],
        initializers=[v for v in given if v.const_value is not None],
        opset_imports=graph.opset_imports,
        name="node",
    )
    op = Builder(part)
    gs: list[ir.Value | None] = [None] * len(copy.outputs)
    for k in site.outputs:
        y = copy.outputs[k]
        gs[k] = ir.val(f"g{k}", dtype=y.dtype, shape=y.shape)
        part.inputs.append(gs[k])
    for i in site.wrt:
        gradient = op.Identity(op.expand(registry.apply(table, op, copy, i, gs), inputs[i]))
        gradient.name = f"grad{i}"
        part.outputs.append(gradient)
    return ir.Model(part, ir_version=10)


def _like(value: ir.Value, name: str, array: np.ndarray | None) -> ir.Value:
    """A value with the type of ``value``; an initializer where that is constant."""
    dtype = value.dtype if array is None else ir.DataType.from_numpy(array.dtype)
    const = value.const_value
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape, const_value=const)
