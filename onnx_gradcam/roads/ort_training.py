"""The gradient by onnxruntime-training's own builder: an independent check of our rules.

PyPI's onnxruntime-training-cpu 1.19.2 is the last release. It brings the package ``onnxruntime`` itself, so it needs an
environment of its own, and only there its graphs run (com.microsoft ConvGrad, ReluGrad …).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_gradcam.engine.program import with_score
from onnx_gradcam.errors import ModelError, NoGradientPath, ProviderError, UnsupportedGradient
from onnx_gradcam.explain.network import Network
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.names import TOTAL_OUTPUT, GradientNames, values_by_name
from onnx_gradcam.roads.forms import write_out

OPSET, IR = 21, 10  # the newest of release 1.19


def by_builder(network: Network, names: Sequence[str]) -> onnx.ModelProto:
    """Return the model of a network with the gradients that onnxruntime-training's builder writes.

    Raises what ``add_gradients`` raises.
    """
    builder()
    return add_gradients(*with_score(network.scored_model, network.written_score, names))


def add_gradients(model: ir.Model, names: GradientNames) -> onnx.ModelProto:
    """Return ``model`` with the gradient of the summed score as an output for every value that ``names`` has one of.

    ``model`` is changed: what the builder has no right gradient for is written out, see ``forms``.

    Raises:
        ProviderError: another ONNX Runtime is installed.
        ModelError: the model's opset is above 21.
        UnsupportedGradient: the builder does not differentiate the model, or names in it would clash.
        NoGradientPath: the score does not depend on a value.
    """
    write_out(model.graph, list(names.gradients), names.score)
    return as_it_is(model, names)


def as_it_is(model: ir.Model, names: GradientNames) -> onnx.ModelProto:
    """Return the same with nothing written out: what onnxruntime-training makes of the model itself, right or wrong."""
    graph, make = model.graph, builder()
    _refuse_taken(graph)
    if graph.opset_imports[""] > OPSET:
        raise ModelError(
            f"onnxruntime-training reads opsets up to {OPSET}; this model has {graph.opset_imports['']}",
            hint='engine="rules", or the model exported with opset 18 to 21',
            opset=graph.opset_imports[""],
        )
    value = values_by_name(graph)[names.score]
    if value.dtype != ir.DataType.FLOAT:
        raise UnsupportedGradient(
            f"onnxruntime-training differentiates float32 only; the score is {value.dtype}", hint='engine="rules"'
        )
    op = Builder(graph)
    total = op.ReduceSum(value, keepdims=0)
    total.name = op.claim(TOTAL_OUTPUT)
    graph.outputs.append(total)
    RemoveUnusedNodesPass()(model)
    model.ir_version = min(model.ir_version, IR)
    written = onnx.load_from_string(_build(make, ir.to_proto(model), list(names.gradients), total.name))
    onnx.helper.set_model_props(written, model.metadata_props | names.as_metadata())
    return _renamed(written, names.gradients, total.name)


def _refuse_taken(graph: ir.Graph) -> None:
    """Raise ``UnsupportedGradient`` where the model has a value that is called as the builder calls a gradient."""
    values = values_by_name(graph)
    for name in values:
        if _given(name) in values:
            raise UnsupportedGradient(
                f"onnxruntime-training calls the gradient of {name!r} {_given(name)!r}, as the model calls a value",
                hint='engine="rules"',
                name=_given(name),
            )


def builder() -> Any:
    """Return the class that writes gradient graphs. Raises ``ProviderError`` where it is not installed."""
    try:
        from onnxruntime.capi._pybind_state import GradientGraphBuilder
    except ImportError:
        raise ProviderError(
            'engine="ort-training" needs onnxruntime-training, and this environment has none',
            hint="an environment of its own (it replaces onnxruntime; Python up to 3.12): "
            'pip install onnx-gradcam onnxruntime-training-cpu==1.19.2; or engine="rules"',
        ) from None
    return GradientGraphBuilder


def _build(make: Any, proto: onnx.ModelProto, names: Sequence[str], total: str) -> bytes:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        made = make(proto.SerializeToString(), {total}, set(names), total)
        made.build()
        written: bytes = made.get_model()
    except (RuntimeError, state.Fail, state.InvalidArgument, state.InvalidGraph, state.RuntimeException) as error:
        reason = " ".join(str(error).rpartition("[ONNXRuntimeError]")[2].split())
        kind = NoGradientPath if "unreachable" in reason else UnsupportedGradient
        raise kind(
            f"onnxruntime-training cannot differentiate the model: {reason[-300:]}", hint='engine="rules"'
        ) from None
    return written


def _renamed(written: onnx.ModelProto, gradients: Mapping[str, str], total: str) -> onnx.ModelProto:
    """Return the model whose outputs are called as in our gradient graphs, the ``gradients`` by those of the values."""
    graph = written.graph
    known = {value.name: value for value in [*graph.input, *graph.output, *graph.value_info]}
    inner = {total, *map(_given, gradients)}
    kept = [value for value in graph.output if value.name not in inner]
    graph.value_info.extend(value for value in graph.output if value.name in inner)  # kernels of pools read their shape
    for name, output in gradients.items():
        if _given(name) not in known:
            raise NoGradientPath(
                f"onnxruntime-training wrote no gradient of {name!r}", hint='engine="rules"', value=name
            )
        graph.node.append(onnx.helper.make_node("Identity", [_given(name)], [output], name=output))
        value = onnx.ValueInfoProto()
        value.CopyFrom(known.get(name, known[_given(name)]))
        value.name = output
        kept.append(value)
    del graph.output[:]
    graph.output.extend(kept)
    return written


def _given(name: str) -> str:
    """Return the name that the builder gives the gradient of a value."""
    return f"{name}_grad"
