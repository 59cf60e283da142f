"""Measure slopes of a backend case by differences, on the first oracle whose outputs are those of onnxruntime.

Oracles, the best first: onnx's reference evaluator in float64, with the operators of tests/support/reference in place
of those that it has wrong; onnxruntime in float64; onnxruntime as deployed, with coarse steps.
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

Array = npt.NDArray[Any]
Feeds = Mapping[str, Any]
Run = Callable[[Feeds], Mapping[str, Any]]

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
FINE = (1e-4, 1e-3, 1e-5, 1e-6, 1e-2)  # steps in float64, as shares of the size of the input
COARSE = (0.03, 0.1, 0.01, 0.3, 0.003)  # in float32
TOLERANCE = {"reference": 2e-3, "runtime in float64": 2e-3, "runtime": 1e-2}  # relative
NARROW_TOLERANCE = 3e-2  # of gradients in 16 bits
BFLOAT16 = "tensor(bfloat16)"
SLIGHT = 1e-2  # slopes below are held against this


@dataclass(frozen=True)
class Slopes:
    """The functional Σ ⟨cotangent, output⟩ of a case, at one point.

    Attributes:
        oracle: what evaluates it.
        run: returns the outputs for inputs and weights.
        feeds: the inputs and weights, by name; floats in the dtype of the oracle.
        free: the dtypes of the inputs, by name, which ``beside`` moves to numbers that these can hold.
        cotangents: those of the outputs, by name.
        tolerance: the relative distance from a slope that is let pass.
    """

    oracle: str
    run: Run
    feeds: Feeds
    free: Mapping[str, Any]
    cotangents: Mapping[str, Array]
    tolerance: float

    @property
    def steps(self) -> Sequence[float]:
        """Return the steps that are tried, as shares of the size of an input."""
        return COARSE if self.oracle == "runtime" else FINE

    def agree(self, name: str, v: Array, slope: float, norm: float) -> bool:
        """Tell whether ``slope`` is that along ``v``, by one of the steps; ``norm``: that of the gradient."""
        return any(self._near(slope, m, norm) for m in self.measured(name, v))

    def measured(self, name: str, v: Array) -> Iterator[float]:
        """Yield the slope along ``v`` by each step, extrapolated from it and its half."""
        for h in self.steps:
            wide, narrow = self._central(name, v, h), self._central(name, v, h / 2)
            yield (4 * narrow - wide) / 3

    def differ_by_side(self, name: str, v: Array) -> bool:
        """Tell whether a kink or a jump lies here: the two sides have different slopes, or slopes without bound."""
        h, here = self.steps[0], self._value(name, self.feeds[name])
        size = h * _size(self.feeds[name])
        before = (here - self._value(name, self._at(name, v, -h))) / size
        after = (self._value(name, self._at(name, v, h)) - here) / size
        wide, narrow = self._central(name, v, h), self._central(name, v, h / 10)
        return not self._near(before, after, 0) or not self._near(wide, narrow, 0)

    def beside(self, rng: np.random.Generator) -> Slopes:
        """Return the slopes at a point beside this one, by about a hundredth of the size of each input.

        Outputs that have other shapes there (those of Unique) get other cotangents.
        """
        moved = {k: _moved(x, self.free[k], rng) if k in self.free else x for k, x in self.feeds.items()}
        ys = {k: np.asarray(y, float) for k, y in self.run(moved).items() if k in self.cotangents}
        same = {k: g for k, g in self.cotangents.items() if g.shape == ys[k].shape}
        return replace(self, feeds=moved, cotangents={k: cotangent(y, rng) for k, y in ys.items()} | same)

    def _near(self, slope: float, measured: float, norm: float) -> bool:
        return abs(measured - slope) <= self.tolerance * max(abs(measured), norm, SLIGHT)

    def _central(self, name: str, v: Array, h: float) -> float:
        ahead, behind = (self._value(name, self._at(name, v, step)) for step in (h, -h))
        return (ahead - behind) / (2 * h * _size(self.feeds[name]))

    def _at(self, name: str, v: Array, h: float) -> Array:
        x = self.feeds[name]
        return np.asarray(x + h * _size(x) * v).astype(x.dtype)

    def _value(self, name: str, x: Array) -> float:
        ys = self.run({**self.feeds, name: x})
        if any(np.shape(ys[k]) != g.shape for k, g in self.cotangents.items()):
            return math.nan  # a jump
        return sum(float(np.sum(np.where(g == 0, 0, ys[k]) * g)) for k, g in self.cotangents.items())


def slopes_of(
    model: onnx.ModelProto, feeds: Feeds, weights: Feeds, outputs: Mapping[str, Array], cotangents: Mapping[str, Array]
) -> Slopes:
    """Return the slopes on the first oracle that gives the outputs of the deployed model.

    Args:
        model: the deployed model.
        feeds: its inputs.
        weights: the initializers that are differentiated, too.
        outputs: its floating-point outputs, as onnxruntime gives them.
        cotangents: their cotangents.
    """
    names = list(outputs)
    narrow = any(is_float(a) and a.dtype.itemsize == 2 for a in [*feeds.values(), *weights.values(), *outputs.values()])
    given = {**feeds, **weights}
    fed = {k: widened(x) for k, x in given.items()}
    wide = {k: g.astype(float) for k, g in cotangents.items()}
    oracle, run = "runtime", None
    for candidate, opened in (("reference", on_reference), ("runtime in float64", _on_runtime)):
        run = _tried(opened, in_float64(model), names, fed, outputs)
        if run is not None:
            oracle = candidate
            break
    tolerance = NARROW_TOLERANCE if narrow else TOLERANCE[oracle]
    if run is None:
        run, fed = _on_runtime(_opened_up(model, weights), names), given
    free = {k: x.dtype for k, x in feeds.items() if is_float(x)}
    return Slopes(oracle, run, fed, free, wide, tolerance)


def _tried(
    opened: Callable[[onnx.ModelProto, Sequence[str]], Run],
    model: onnx.ModelProto,
    names: Sequence[str],
    feeds: Feeds,
    outputs: Mapping[str, Array],
) -> Run | None:
    """Return a way to run the model, or None where it fails or gives other outputs than the deployed one."""
    try:
        run = opened(model, names)
        ys = run(feeds)
    except Exception:  # (what cannot run the case is no oracle, whatever it raises)
        return None
    same = all(np.shape(ys[k]) == y.shape and is_close(ys[k], y) for k, y in outputs.items())
    return run if same else None


def is_close(a: Any, b: Array) -> bool:
    """Tell whether an output is the deployed one ``b``, but for rounding in the dtype of that."""
    loose = 2e-2 if b.dtype.itemsize == 2 else 1e-3
    return np.allclose(np.asarray(a).astype(float), b.astype(float), rtol=loose, atol=loose / 10, equal_nan=True)


def on_reference(model: onnx.ModelProto, names: Sequence[str]) -> Run:
    """Return a way to run a model on the reference evaluator."""
    evaluator = importlib.import_module("reference").evaluator(model)

    def run(feeds: Feeds) -> Mapping[str, Any]:
        with np.errstate(all="ignore"):
            return dict(zip(names, evaluator.run(list(names), dict(feeds)), strict=True))

    return run


def _on_runtime(model: onnx.ModelProto, names: Sequence[str]) -> Run:
    session = opened(model)
    return lambda feeds: run(session, feeds, names)


def opened(model: onnx.ModelProto) -> ort.InferenceSession:
    """Return a quiet session on one core."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, feeds: Feeds, names: Sequence[str]) -> dict[str, Any]:
    """Return outputs by name; bfloat16 goes in and out as bits, since NumPy has no such type."""
    if not any(v.type == BFLOAT16 for v in [*session.get_inputs(), *session.get_outputs()]):
        return dict(zip(names, session.run(list(names), dict(feeds)), strict=True))
    given = {k: _to_runtime(x) for k, x in feeds.items()}
    return {k: _from_runtime(y) for k, y in zip(names, session.run_with_ort_values(list(names), given), strict=True)}


def _to_runtime(x: Array) -> ort.OrtValue:
    if x.dtype.name == "bfloat16":
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(x.view(np.uint16), TensorProto.BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(x)


def _from_runtime(y: ort.OrtValue) -> Array:
    if y.data_type() != BFLOAT16:
        return np.asarray(y.numpy())
    bits = (ctypes.c_uint16 * math.prod(y.shape())).from_address(y.data_ptr())
    return np.asarray(np.array(bits).view(ml_dtypes.bfloat16).reshape(y.shape()))


# --- a model in float64 ------------------------------------------------------------------------------------------


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with all its floats in float64, and its initializers as inputs with defaults."""
    copy = _opened_up(model, {t.name: None for t in model.graph.initializer})
    for graph in _graphs(copy.graph):
        for value in itertools.chain(graph.input, graph.output, graph.value_info):
            _widen_type(value.type)
        for tensor in graph.initializer:
            _widen_tensor(tensor)
    for node in [n for g in _graphs(copy.graph) for n in g.node] + [n for f in copy.functions for n in f.node]:
        for attribute in node.attribute:
            _widen_attribute(node, attribute)
    return copy


def _opened_up(model: onnx.ModelProto, names: Mapping[str, Any]) -> onnx.ModelProto:
    """Return a copy in which the initializers called so are inputs, too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {v.name for v in copy.graph.input}
    for tensor in copy.graph.initializer:
        if tensor.name in names and tensor.name not in known:
            copy.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return copy


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _graphs(inner)


def _widen_type(kind: onnx.TypeProto) -> None:
    if kind.HasField("tensor_type") and kind.tensor_type.elem_type in FLOATS:
        kind.tensor_type.elem_type = TensorProto.DOUBLE
    elif kind.HasField("sequence_type"):
        _widen_type(kind.sequence_type.elem_type)
    elif kind.HasField("optional_type"):
        _widen_type(kind.optional_type.elem_type)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in FLOATS:
        wide = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
        tensor.CopyFrom(wide)


def _widen_attribute(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> None:
    if attribute.HasField("t"):
        _widen_tensor(attribute.t)
    elif attribute.name in ("to", "dtype") and attribute.i in FLOATS:
        attribute.i = TensorProto.DOUBLE
    elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
        array = np.array(attribute.f if attribute.name == "value_float" else list(attribute.floats))
        attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(array)))


# --- arrays ------------------------------------------------------------------------------------------------------


def is_float(array: object) -> bool:
    """Tell whether this is an array of floats of at least 16 bits."""
    return isinstance(array, np.ndarray) and (array.dtype.kind == "f" or array.dtype.name == "bfloat16")


def cotangent(y: Array, rng: np.random.Generator) -> Array:
    """Return a random cotangent, 0 where the output is not finite, or as good as that."""
    g = rng.standard_normal(y.shape)
    limit = 1e4 if y.dtype == np.float16 else 1e30  # what is larger stands for infinity, as in masks
    return np.where(np.abs(y.astype(float)) < limit, g, 0).astype(y.dtype)


def widened(x: Any) -> Any:
    """Return floats as float64, in lists, too; everything else as it is."""
    if isinstance(x, list):
        return [widened(part) for part in x]
    return x.astype(np.float64) if is_float(x) else x


def _size(x: Array) -> float:
    """Return the size of the elements of ``x``; 1 where it is all zeros."""
    finite = x[np.isfinite(x.astype(float))].astype(float)
    return float(np.sqrt(np.mean(finite**2))) if finite.any() else 1.0


def _moved(x: Array, dtype: Any, rng: np.random.Generator) -> Array:
    return np.asarray(x + 0.01 * _size(x) * rng.standard_normal(x.shape)).astype(dtype).astype(x.dtype)
