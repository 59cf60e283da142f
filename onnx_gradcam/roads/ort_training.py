"""The gradient by onnxruntime-training's own builder: an independent check of our rules.

PyPI's onnxruntime-training-cpu 1.19.2 is the last release. It brings the package ``onnxruntime`` itself, so it needs an
environment of its own, and only there its graphs run (com.microsoft ConvGrad, ReluGrad …).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_gradcam.engine.program import SCORE, asked, with_score
from onnx_gradcam.errors import ModelError, NoGradientPath, ProviderError, UnsupportedGradient
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.load import ModelLike
from onnx_gradcam.roads.forms import write_out

OPSET, IR = 21, 10  # the newest of release 1.19
TOTAL = "grad/total"


def gradient_model(model: ModelLike, wrt: Sequence[str], score: str = "auto") -> onnx.ModelProto:
    """``model`` with gradients as extra outputs, by its builder: ``engines.gradient_model`` says what it has."""
    builder()
    prepared, found, names = asked(model, wrt, score)
    return add_gradients(with_score(prepared, found, names), names, SCORE)


def add_gradients(model: ir.Model, names: Sequence[str], score: str) -> onnx.ModelProto:
    """``model`` with outputs ``grad/<name>``: ∂ Σ score / ∂ value for every value of ``names``, in its shape.

    ``model`` is changed: what the builder has no right gradient for is written out, see ``forms``.

    Raises ``ProviderError`` where another ONNX Runtime is installed, ``ModelError`` for an opset above 21,
    ``UnsupportedGradient``, ``NoGradientPath``.
    """
    write_out(model.graph, names, score)
    return as_it_is(model, names, score)


def as_it_is(model: ir.Model, names: Sequence[str], score: str) -> onnx.ModelProto:
    """The same with nothing written out: what onnxruntime-training makes of the model itself, right or wrong."""
    graph, make = model.graph, builder()
    if graph.opset_imports[""] > OPSET:
        raise ModelError(
            f"onnxruntime-training reads opsets up to {OPSET}; this model has {graph.opset_imports['']}",
            hint='engine="rules", or the model exported with opset 18 to 21',
            opset=graph.opset_imports[""],
        )
    value = ir.convenience.create_value_mapping(graph)[score]
    if value.dtype != ir.DataType.FLOAT:
        raise UnsupportedGradient(
            f"onnxruntime-training differentiates float32 only; the score is {value.dtype}", hint='engine="rules"'
        )
    total = Builder(graph).ReduceSum(value, keepdims=0)
    total.name = TOTAL
    graph.outputs.append(total)
    RemoveUnusedNodesPass()(model)
    ir.external_data.load_to_model(model)
    model.ir_version = min(model.ir_version, IR)
    written = onnx.load_from_string(_build(make, ir.to_proto(model), names))
    return _renamed(written, names)


def builder() -> Any:
    """The class that writes gradient graphs. Raises ``ProviderError`` where it is not installed."""
    try:
        from onnxruntime.capi._pybind_state import GradientGraphBuilder
    except ImportError:
        raise ProviderError(
            'engine="ort-training" needs onnxruntime-training, and this environment has none',
            hint="an environment of its own (it replaces onnxruntime; Python up to 3.12): "
            'pip install onnx-gradcam onnxruntime-training-cpu==1.19.2; or engine="rules"',
        ) from None
    return GradientGraphBuilder


def _build(make: Any, proto: onnx.ModelProto, names: Sequence[str]) -> bytes:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    onnxruntime.set_default_logger_severity(3)  # the builder tells its transformations on stderr
    try:
        made = make(proto.SerializeToString(), {TOTAL}, set(names), TOTAL)
        made.build()
        written: bytes = made.get_model()
    except (RuntimeError, state.Fail, state.InvalidArgument, state.InvalidGraph, state.RuntimeException) as error:
        reason = " ".join(str(error).rpartition("[ONNXRuntimeError]")[2].split())
        kind = NoGradientPath if "unreachable" in reason else UnsupportedGradient
        raise kind(
            f"onnxruntime-training cannot differentiate the model: {reason[-300:]}", hint='engine="rules"'
        ) from None
    return written


def _renamed(written: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The outputs of the builder by the names that our gradient graphs have."""
    graph = written.graph
    known = {value.name: value for value in [*graph.input, *graph.output, *graph.value_info]}
    inner = {TOTAL, *map(_given, names)}
    kept = [value for value in graph.output if value.name not in inner]
    graph.value_info.extend(value for value in graph.output if value.name in inner)  # kernels of pools read their shape
    for name in names:
        if _given(name) not in known:
            raise NoGradientPath(
                f"onnxruntime-training wrote no gradient of {name!r}", hint='engine="rules"', value=name
            )
        output = f"grad/{name}"
        graph.node.append(onnx.helper.make_node("Identity", [_given(name)], [output], name=output))
        value = onnx.ValueInfoProto()
        value.CopyFrom(known.get(name, known[_given(name)]))
        value.name = output
        kept.append(value)
    del graph.output[:]
    graph.output.extend(kept)
    return written


def _given(name: str) -> str:
    """What the builder calls the gradient of a value."""
    return f"{name}_grad"
