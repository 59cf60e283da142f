"""Examine one of ONNX's own backend cases: our gradient of it against differences.

A case is a model with inputs. Its verdict is the worst of those of its floating-point inputs and weights:

- agrees: the gradient of a random functional of the outputs is the slope that differences measure.
- kink: the inputs lie on a kink or a jump, which one-sided differences show; beside it the gradient agrees.
- none: no gradient flows, by definition (Shape, ArgMax, a box of RoiAlign …).
- folded: refused where integers (an axis, a size) or regions are inputs; as constants they give what agrees.
- refused: an error of ours names the node.
- wrong: the gradient disagrees, is not finite, or has another shape, or the outputs have changed.
- crash: anything else was raised.
- passed over: onnxruntime does not run the case, or it takes or gives no floating-point tensor.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from backend_slopes import (
    Slopes,
    cotangent,
    in_float64,
    is_close,
    is_float,
    on_reference,
    opened,
    run,
    slopes_of,
    widened,
)
from onnx import numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.errors import OnnxGradcamError
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.flow import downstream
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.names import values_by_name
from onnx_gradcam.graph.prepare.prepare import prepare

Array = npt.NDArray[Any]
Feeds = Mapping[str, Any]

ORDER = (
    "passed over",
    "none",
    "agrees",
    "kink",
    "folded",
    "refused",
    "wrong",
    "crash",
)  # a later one outweighs those before
LARGE = 100_000  # elements; larger weights are not differentiated
SHAPED_BY_DATA = frozenset({"Range", "Unique"})
MOVES = 4  # points beside a kink that are tried
DIRECTIONS = 3  # along which each gradient is compared


@dataclass(frozen=True)
class Row:
    """What was found of one case: its verdict, the operators in it, and for each input that is not fine its reason."""

    kind: str
    name: str
    opset: int
    operators: tuple[str, ...]
    verdict: str
    message: str = ""
    inputs: int = 0  # that were differentiated
    oracle: str = ""
    refusals: tuple[tuple[str, str], ...] = ()  # operator and reason


@dataclass(frozen=True)
class Case:
    """A model of a backend case, and what it is fed."""

    kind: str
    name: str
    model: onnx.ModelProto
    inputs: Sequence[Any]


def read_case(case: Any) -> Case:
    """Return a case of onnx's loader with its model and inputs, from memory or from its folder."""
    if case.model is not None:
        return Case(case.kind, case.name, case.model, [_array(x) for x in case.data_sets[0][0]])
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    paths = sorted(folder.glob("test_data_set_0/input_*.pb"), key=lambda p: int(p.stem.rpartition("_")[2]))
    kinds = [value.type for value in model.graph.input]
    return Case(case.kind, case.name, model, [_read(p, kind) for p, kind in zip(paths, kinds, strict=False)])


def _array(given: Any) -> Any:
    """Return an input as an array, a list of arrays, or None."""
    if isinstance(given, list):
        return [_array(part) for part in given]
    if isinstance(given, onnx.TensorProto):
        return numpy_helper.to_array(given)
    return np.asarray(given) if isinstance(given, np.generic) else given


def _read(path: Path, kind: onnx.TypeProto) -> Any:
    if kind.HasField("sequence_type"):
        sequence = onnx.SequenceProto.FromString(path.read_bytes())
        return numpy_helper.to_list(sequence)
    if kind.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(path.read_bytes()))
    return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def examine(case: Case) -> Row:
    """Return the row of a case; nothing that is raised leaves it."""
    row = Row(case.kind, case.name, _opset(case.model), _operators(case.model.graph), "")
    names = [v.name for v in case.model.graph.input]
    feeds = dict(zip(names, case.inputs, strict=False))
    try:
        deployed = _run(case.model, feeds, [v.name for v in case.model.graph.output])
    except Exception as error:  # whatever onnxruntime raises, it does not run the case
        return _with(row, "passed over", f"onnxruntime does not run it: {_line(error)}")
    outputs = {k: y for k, y in deployed.items() if is_float(y) and y.size}
    wanted = [k for k, x in [*feeds.items(), *_weights(case.model)] if is_float(x) and x.size]
    if not outputs or not wanted:
        return _with(row, "passed over", f"no floating-point {'input' if outputs else 'output'}")
    try:
        return _judge(row, case.model, feeds, outputs, wanted)
    except OnnxGradcamError as error:
        return replace(row, verdict="refused", message=error.what, refusals=(_refusal(error),))
    except Exception as error:  # what this tool is there to find
        return _with(row, "crash", f"{type(error).__name__}: {_line(error)}")


def _judge(row: Row, model: onnx.ModelProto, feeds: Feeds, outputs: Mapping[str, Array], wanted: Sequence[str]) -> Row:
    """Return the row of a case that onnxruntime runs; ``wanted``: what it is differentiated by."""
    rng = np.random.default_rng(zlib.crc32(row.name.encode()))
    cotangents = {k: cotangent(y, rng) for k, y in outputs.items()}
    gradient = Gradient(_undeclared(model), list(outputs), wanted)
    row = replace(row, refusals=tuple(dict.fromkeys(_refusal(error) for error in gradient.refused.values())))
    is_folded = bool(gradient.refused)
    if is_folded:
        gradient = _folded(gradient, model, feeds, list(outputs))
    findings = {name: ("refused", error.what) for name, error in gradient.refused.items()}
    findings |= dict.fromkeys(gradient.constant, ("none", ""))
    oracle = ""
    if gradient.by:
        found = gradient.at(feeds, cotangents)
        weights = {k: a for k, a in _weights(model) if k in gradient.by and k not in feeds}
        slopes = slopes_of(model, feeds, weights, outputs, cotangents)
        oracle = slopes.oracle
        for k, y in outputs.items():
            if not is_close(found[k], y):
                return _with(row, "wrong", f"output {k!r} has changed")
        for name in gradient.by:
            findings[name] = _compared(name, found[f"grad/{name}"], gradient, slopes, rng)
    worst = max((verdict for verdict, _ in findings.values()), key=ORDER.index)
    reasons = dict.fromkeys(f"{name}: {why}" for name, (verdict, why) in findings.items() if verdict == worst and why)
    verdict = "folded" if is_folded and ORDER.index(worst) < ORDER.index("folded") else worst
    return _with(row, verdict, "; ".join(reasons), len(gradient.by), oracle)


def _folded(gradient: Gradient, model: onnx.ModelProto, feeds: Feeds, outputs: Sequence[str]) -> Gradient:
    """Return the gradient with all inputs as constants by which it has none: axes, sizes, lengths, regions."""
    differentiated = [*gradient.by, *gradient.refused]
    copy = _undeclared(model)
    settled = [v for v in copy.graph.input if v.name in feeds and v.name not in differentiated]
    for value in settled:
        if isinstance(feeds[value.name], np.ndarray):
            copy.graph.initializer.append(numpy_helper.from_array(feeds[value.name], value.name))
            copy.graph.input.remove(value)
    try:
        return Gradient(copy, outputs, differentiated)
    except OnnxGradcamError:
        return gradient


class Gradient:
    """The gradients of a functional of a model's outputs, as a model.

    Attributes:
        by: the inputs and weights that it has a gradient by.
        refused: the errors of those that have none because of a missing rule.
        constant: those on which the outputs do not depend differentiably.
    """

    def __init__(self, model: onnx.ModelProto, outputs: Sequence[str], wanted: Sequence[str]) -> None:
        prepared = prepare(load(model).model)
        values = values_by_name(prepared.graph)
        reached = [v for v in outputs if v in values]
        present = [name for name in wanted if name in values]
        self.constant = [n for n in wanted if n not in present or not _reaches(prepared.graph, values, n, reached)]
        self.refused: dict[str, OnnxGradcamError] = {}
        candidates = [n for n in present if n not in self.constant]
        self._model = self._together(prepared, reached, candidates)

    def _together(self, prepared: ir.Model, outputs: Sequence[str], names: Sequence[str]) -> ir.Model | None:
        """Return one model for all names; those that are refused are set aside."""
        self.by = list(names)
        if not names:
            return None
        try:
            return _differentiated(prepared, outputs, names)
        except OnnxGradcamError:
            for name in names:
                try:
                    _differentiated(prepared, outputs, [name])
                except OnnxGradcamError as error:
                    self.refused[name] = error
                    self.by.remove(name)
            return _differentiated(prepared, outputs, self.by) if self.by else None

    def at(self, feeds: Feeds, cotangents: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs, and the gradients as ``grad/NAME``, at these inputs."""
        assert self._model is not None
        fed = {**feeds, **{f"cotangent/{k}": g for k, g in cotangents.items()}}
        inputs = {v.name or "": v.dtype for v in self._model.graph.inputs}
        cast = {k: _cast(fed[k], dtype) for k, dtype in inputs.items() if k in fed}
        model, names = ir.to_proto(self._model), [v.name or "" for v in self._model.graph.outputs]
        try:
            return _run(model, cast, names)
        except NoKernel:  # the CPU provider has few kernels in bfloat16
            return dict(on_reference(in_float64(model), names)({k: widened(x) for k, x in cast.items()}))


def _reaches(graph: ir.Graph, values: Mapping[str, ir.Value], name: str, outputs: Sequence[str]) -> bool:
    reached = downstream(list(graph), [values[name]])
    return any(values[k] in reached for k in outputs)


def _differentiated(prepared: ir.Model, outputs: Sequence[str], names: Sequence[str]) -> ir.Model:
    """Return a copy with an input ``cotangent/OUTPUT`` for each output and an output ``grad/NAME`` for each name."""
    model = prepared.clone()
    graph = model.graph
    values = values_by_name(graph)
    nodes, op, seeds = list(graph), Builder(graph), {}
    for k in outputs:
        y = values[k]
        seeds[y] = ir.val(f"cotangent/{k}", type=y.type, shape=y.shape)
        graph.inputs.append(seeds[y])
    for name, gradient in zip(names, pull_back(op, nodes, seeds, [values[n] for n in names]), strict=True):
        out = op.Identity(gradient)
        out.name = f"grad/{name}"
        graph.outputs.append(out)
    return model


def _compared(name: str, found: Array, gradient: Gradient, slopes: Slopes, rng: np.random.Generator) -> tuple[str, str]:
    """Return the verdict of one gradient, and why it is not fine."""
    verdict, why = _against_differences(name, found, slopes, rng)
    if verdict != "kink":
        return verdict, why
    for _ in range(MOVES):
        beside = slopes.beside(rng)
        there = gradient.at(beside.feeds, beside.cotangents)[f"grad/{name}"]
        if _against_differences(name, there, beside, rng)[0] == "agrees":
            return "kink", ""
    return "wrong", f"{why}; beside the kink, too"


def _against_differences(name: str, found: Array, slopes: Slopes, rng: np.random.Generator) -> tuple[str, str]:
    """Return "agrees", "wrong", or "kink" where the two sides have different slopes; and the numbers."""
    x, wide = slopes.feeds[name], found.astype(float)
    if found.shape != x.shape:
        return "wrong", f"its gradient has the shape {found.shape}, it {x.shape}"
    for _ in range(DIRECTIONS):
        v = rng.standard_normal(x.shape)
        if not np.isfinite(wide).all():  # as that of √x at 0: along these elements there must be a kink
            v = np.where(np.isfinite(wide), 0, v)
            return "kink" if slopes.differ_by_side(name, v) else "wrong", "its gradient is not finite"
        slope = float(np.sum(wide * v))
        if not slopes.agree(name, v, slope, float(np.linalg.norm(wide))):
            numbers = ", ".join(f"{m:.5g}" for m in slopes.measured(name, v))
            return "kink" if slopes.differ_by_side(name, v) else "wrong", f"{slope:.5g}, differences {numbers}"
    return "agrees", ""


# --- small things ------------------------------------------------------------------------------------------------


def _run(model: onnx.ModelProto, feeds: Feeds, names: Sequence[str]) -> dict[str, Array]:
    return run(opened(model), feeds, names)


def _cast(array: Any, dtype: ir.DataType | None) -> Any:
    """Return floats in this dtype, everything else as it is."""
    return array.astype(dtype.numpy()) if is_float(array) and dtype is not None else array


def _weights(model: onnx.ModelProto) -> Iterator[tuple[str, Array]]:
    for tensor in model.graph.initializer:
        if 0 < np.prod(tensor.dims, dtype=int) <= LARGE:
            yield tensor.name, numpy_helper.to_array(tensor)


def _operators(graph: onnx.GraphProto) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node.op_type for node in graph.node))


def _opset(model: onnx.ModelProto) -> int:
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _with(row: Row, verdict: str, message: str, inputs: int = 0, oracle: str = "") -> Row:
    return replace(row, verdict=verdict, message=message, inputs=inputs, oracle=oracle)


def _refusal(error: OnnxGradcamError) -> tuple[str, str]:
    """Return the operator that an error names, "" for none, and what the error says."""
    return str(error.data.get("op_type", "")), error.what


def _undeclared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model without the shapes of its outputs, where these depend on the data."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if SHAPED_BY_DATA.intersection(_operators(model.graph)):
        for value in copy.graph.output:
            value.type.tensor_type.ClearField("shape")
    return copy
