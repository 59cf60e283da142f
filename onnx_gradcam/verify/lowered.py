"""Nodes that are differentiated through standard operators, one by one, at what the deployed run gave.

    ⟨rule(g), v⟩ = ⟨g, (f(x + hv) − f(x − hv)) / 2h⟩,   f: the standard operators in float64, without rounding

Where f clips, as quantized operators do, the rules read the deployed integers. g is 0 where f is within a step of a
bound: there the integers say "clipped" of what f does not clip yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import Key, Rule, find
from onnx_gradcam.autodiff.walk import pull_back, pull_through
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.graph.builder import Builder, Value, static_dims
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.flow import bodies_of
from onnx_gradcam.graph.lowering.table import works_on_quantized
from onnx_gradcam.graph.quantization import BOUNDS, Quantization, only_requantizes, quantization
from onnx_gradcam.verify.alone import array_of
from onnx_gradcam.verify.float64 import NoReference, in_float64, widened
from onnx_gradcam.verify.nodes import check_site, judge
from onnx_gradcam.verify.path import CheckedNode
from onnx_gradcam.verify.points import cotangents, normal, scale_of
from onnx_gradcam.verify.report import NodeCheck
from onnx_gradcam.verify.surrogate import NoSurrogate, surrogate

DIRECTIONS_OF_NODE = 3
SHARES = (2.0**-6, 2.0**-3, 1.0)  # standard deviations of other inputs, as shares of what their integers can stand for
STEP_SHARE = 1e-6  # share of the input's scale
# What they give is rounded on the way, and their rules read it: they are differentiated where they are compared, in
# the form without rounding.
ROUNDING_INSIDE = frozenset({"DynamicQuantizeLSTM"})
BY_DEFINITION = frozenset({"DequantizeLinear", "DynamicQuantizeLinear"})  # what the cotangents are cotangents of

Known = Mapping[str, np.ndarray]


def is_lowered_site(site: CheckedNode, table: Mapping[Key, Rule]) -> bool:
    """Tell whether quantized numbers go in or come out, or the operator has no rule of its own.

    A Loop or Scan of real numbers is none of these: onnx's reference evaluator runs it as it is.
    """
    quantized = any(quantization(v) is not None for v in [*site.node.inputs, *site.node.outputs])
    if bodies_of(site.node):
        return quantized
    return quantized or any(find(table, site.node, i) is None for i in site.wrt)


def parameters(site: CheckedNode) -> list[Value]:
    """Return the scales and zero points that the check needs beside the node's inputs."""
    found = [q for v in site.node.inputs if (q := quantization(v)) is not None]
    return [v for q in found for v in (q.scale, q.zero_point) if v is not None]


def check_lowered(
    site: CheckedNode, known: Known, options: Options, table: Mapping[Key, Rule], rng: np.random.Generator
) -> list[NodeCheck]:
    """Return one result for each input of ``site.wrt``; none for what is right by definition."""
    node = site.node
    sums = any((q := quantization(v)) is not None and q.scale is None for v in node.inputs)
    if node.op_type in BY_DEFINITION or sums or (node.op_type == "QuantizeLinear" and only_requantizes(node)):
        return []
    try:
        one = _One(site, known)
        if works_on_quantized(node):
            return one.check_moved(options, table, rng)
        return [one.check_or_elsewhere(i, options, table, rng) for i in site.wrt]
    except (NoReference, NoSurrogate) as reason:
        return [_result(site, i, str(reason)) for i in site.wrt]


def _result(site: CheckedNode, i: int, reason: str) -> NodeCheck:
    value = site.node.inputs[i]
    name = "" if value is None else value.name or ""
    return NodeCheck(site.node.name or "", site.node.op_type, i, name, "undecided", None, reason)


class _One:
    """The node as a model of its own: real numbers r<i> → QuantizeLinear → the node; and the same without rounding."""

    def __init__(self, site: CheckedNode, known: Known) -> None:
        self.site = site
        node = site.node
        assert node.graph is not None
        self.graph = ir.Graph([], [], nodes=[], opset_imports=node.graph.opset_imports, name="node")
        self.real: dict[str, np.ndarray] = {}
        self.bounds: dict[str, tuple[float, float]] = {}
        inputs = [None if v is None else self._given(i, v, known) for i, v in enumerate(node.inputs)]
        outputs = [ir.val(f"y{k}", type=v.type, shape=v.shape) for k, v in enumerate(node.outputs)]
        self.node = ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), outputs=outputs, name="alone")
        self.graph.append(self.node)
        self.graph.outputs.extend(outputs[k] for k in site.outputs)
        self.model = ir.Model(self.graph, ir_version=10)

    def _given(self, i: int, value: Value, known: Known) -> Value:
        array, q = array_of(value, known), quantization(value)
        if q is not None:
            return self._quantized(i, array, q, known)
        if i in self.site.wrt:
            return self._input(f"r{i}", array)
        return self._constant(f"c{i}", array)

    def _quantized(self, i: int, array: np.ndarray, q: Quantization, known: Known) -> Value:
        """Return the integers, made again by QuantizeLinear from the real numbers that they stand for."""
        assert q.scale is not None
        scale = array_of(q.scale, known)
        zero = np.zeros((), array.dtype) if q.zero_point is None else array_of(q.zero_point, known)
        if scale.size != 1:
            raise NoSurrogate("its input has no single scale")
        real = ((array.astype(np.float64) - zero.item()) * np.float64(scale.item())).astype(scale.dtype)
        source = self._input(f"r{i}", real)
        if (bounds := BOUNDS.get(ir.DataType.from_numpy(array.dtype))) is not None:
            low, high = ((bound - float(zero.item())) * float(scale.item()) for bound in bounds)
            self.bounds[f"r{i}"] = low, high
        made = ir.val(f"x{i}", dtype=ir.DataType.from_numpy(array.dtype), shape=array.shape)
        given = [source, self._constant(f"s{i}", scale), self._constant(f"z{i}", zero)]
        self.graph.append(ir.node("QuantizeLinear", given, outputs=[made], name=f"q{i}"))
        return made

    def _input(self, name: str, array: np.ndarray) -> Value:
        self.real[name] = array
        value = ir.val(name, dtype=ir.DataType.from_numpy(array.dtype), shape=array.shape)
        self.graph.inputs.append(value)
        return value

    def _constant(self, name: str, array: np.ndarray) -> Value:
        tensor = ir.tensor(np.asarray(array), name=name)
        value = ir.val(name, const_value=tensor, dtype=tensor.dtype, shape=array.shape)
        self.graph.register_initializer(value)
        return value

    def check_or_elsewhere(
        self, i: int, options: Options, table: Mapping[Key, Rule], rng: np.random.Generator
    ) -> NodeCheck:
        """Check input ``i``; where its own inputs decide nothing (all zero, or all clipped) at others, small to large.

        An output of few bits clips what is too large, and does not see what is too small.
        """
        first, real = self.check(i, options, table, rng), self.real
        for share in SHARES if first.status == "undecided" else ():
            self.real = {name: self._elsewhere(name, a, share, rng) for name, a in real.items()}
            found = self.check(i, options, table, rng)
            if found.status != "undecided":
                message = f"at normal inputs, {share:g} of their range; at its own {first.message}"
                return replace(found, message="; ".join(filter(None, [found.message, message])))
        self.real = real
        return first

    def _elsewhere(self, name: str, a: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
        """Return normal values; of a quantized input within what its integers can stand for."""
        if name not in self.bounds:
            return normal(a, rng)
        low, high = self.bounds[name]
        noise = rng.standard_normal(a.shape) * share * max(-low, high)
        return np.clip(noise, low, high).astype(a.dtype)

    def check(self, i: int, options: Options, table: Mapping[Key, Rule], rng: np.random.Generator) -> NodeCheck:
        """Compare the gradient at input ``i`` with differences of the surrogate."""
        name = f"r{i}"
        f = _in_float64(self._surrogate())
        exact = {k: widened(a) for k, a in self.real.items()}
        values, unclipped = f(exact), _in_float64(self._surrogate(clips=False))(exact)
        ys = {k: values[f"y{k}"] for k in self.site.outputs}
        near = {k: self._near_a_bound(k, unclipped[f"y{k}"]) for k in ys}
        probes = zip(*(cotangents(y.astype(np.float32), rng) for y in ys.values()), strict=True)
        gs = [{k: np.where(near[k], 0, g) for k, g in zip(ys, row, strict=True)} for row in probes]
        gradients = self._gradients(i, gs, options, table)
        step = STEP_SHARE * scale_of(exact[name])
        pairs = []
        for _ in range(DIRECTIONS_OF_NODE):
            v = rng.standard_normal(exact[name].shape) * (exact[name] != 0)  # 0 is where rectifiers have their kink
            plus, minus = (f({**exact, name: exact[name] + sign * step * v}) for sign in (1, -1))
            slopes = {k: (plus[f"y{k}"] - minus[f"y{k}"]) / (2 * step) for k in ys}
            pairs.append(([np.vdot(x, v) for x in gradients], [sum(np.vdot(g[k], slopes[k]) for k in ys) for g in gs]))
        claimed, measured = np.array(pairs).transpose(1, 2, 0)
        size = np.array([np.sqrt(sum(np.sum((g[k] * ys[k]) ** 2) for k in ys)) for g in gs])
        status, error, message = judge(claimed, measured, size)
        return replace(_result(self.site, i, message), status=status, error=error)

    def check_moved(self, options: Options, table: Mapping[Key, Rule], rng: np.random.Generator) -> list[NodeCheck]:
        """Check an operator that moves integers where it moves the real numbers: these have no ties."""
        smooth = self._surrogate()
        twin = next(n for n in smooth.graph if n.op_type == self.node.op_type)
        values = _in_float64(smooth)({k: widened(a) for k, a in self.real.items()})
        known = {name: y.astype(np.float32) if y.dtype == np.float64 else y for name, y in values.items()}
        found = check_site(CheckedNode(twin, self.site.wrt, self.site.outputs), known, options, table, rng)
        return [
            replace(_result(self.site, check.input, check.message), status=check.status, error=check.error)
            for check in found
        ]

    def _surrogate(self, clips: bool = True) -> ir.Model:
        """Return the node without rounding; its inputs are never clipped, since they lie within the bounds."""
        free = {f"x{i}" for i in range(len(self.node.inputs))}
        return surrogate(self.model, free if clips else free | {f"y{k}" for k in self.site.outputs})

    def _near_a_bound(self, k: int, y: np.ndarray) -> np.ndarray:
        q = quantization(self.node.outputs[k])
        if q is None or q.scale is None or q.scale.const_value is None:
            return np.zeros(y.shape, bool)
        step = float(q.scale.const_value.numpy().item())
        dtype = self.node.outputs[k].dtype
        assert dtype is not None
        zero = (
            0 if q.zero_point is None or q.zero_point.const_value is None else q.zero_point.const_value.numpy().item()
        )
        info = np.iinfo(dtype.numpy())
        low, high = (info.min - zero) * step, (info.max - zero) * step
        return np.asarray((np.abs(y - low) <= step) | (np.abs(y - high) <= step))

    def _gradients(
        self, i: int, gs: Sequence[Mapping[int, np.ndarray]], options: Options, table: Mapping[Key, Rule]
    ) -> list[np.ndarray]:
        rounds_inside = self.node.op_type in ROUNDING_INSIDE
        model = self._surrogate() if rounds_inside else self.model.clone()
        op = Builder(model.graph)
        kind = ir.DataType.from_numpy(next(iter(self.real.values())).dtype)
        seeds = [
            ir.val(f"g{k}", dtype=kind, shape=y.shape) if k in self.site.outputs else None
            for k, y in enumerate(self.node.outputs)
        ]
        model.graph.inputs.extend(seed for seed in seeds if seed is not None)
        if rounds_inside:
            source = next(v for v in model.graph.inputs if v.name == f"r{i}")
            ys = zip(model.graph.outputs, (seed for seed in seeds if seed is not None), strict=True)
            (share,) = pull_back(op, list(model.graph), dict(ys), [source], table)
        else:
            node = next(n for n in model.graph if n.name == "alone")
            ((source, share),) = pull_through(op, node, [i], seeds, table)
        gradient = op.Identity(op.expand(share, source))
        model.graph.outputs[:] = [gradient]
        session = Session(model, options)
        name = gradient.name or ""
        runs = [{**self.real, **{f"g{k}": a.astype(kind.numpy()) for k, a in g.items()}} for g in gs]
        return [widened(session.run([name], {k: run[k] for k in session.inputs})[name]) for run in runs]


def _in_float64(model: ir.Model) -> Callable[[Known], dict[str, np.ndarray]]:
    """Return all values of a model as a function of its inputs by name, node by node in float64."""
    graph = model.graph
    fixed = {v.name or "": a for n in graph for v in [*n.inputs, *n.outputs] if v and (a := constant(v)) is not None}
    fixed = {name: widened(array) for name, array in fixed.items()}
    moving = [node for node in graph if node.outputs[0].name not in fixed]
    steps = [(node, in_float64(node, static_dims(node.outputs[0]) or ())) for node in moving]

    def run(inputs: Known) -> dict[str, np.ndarray]:
        env = {**fixed, **inputs}
        for node, function in steps:
            results = function([None if v is None else env[v.name or ""] for v in node.inputs])
            env.update((v.name or "", y) for v, y in zip(node.outputs, results, strict=False))
        return env

    return run
