"""The engines that write gradients into a model, behind one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

import onnx
import onnx_ir as ir

from onnx_gradcam.engine.program import differentiate
from onnx_gradcam.errors import LayerError, MethodError, nearest
from onnx_gradcam.explain.network import Network, open_network
from onnx_gradcam.explain.opening import Opening, spelled_out
from onnx_gradcam.graph.load import ModelLike
from onnx_gradcam.graph.names import values_by_name
from onnx_gradcam.roads import ort_training


def by_rules(network: Network, names: Sequence[str]) -> onnx.ModelProto:
    """Return the model of a network with the gradients that the rules of this package write."""
    whole = differentiate(network.scored_model, network.written_score, names)
    whole.model.metadata_props.update(whole.names.as_metadata())
    return ir.to_proto(whole.model)


ENGINES: Mapping[str, Callable[[Network, Sequence[str]], onnx.ModelProto]] = {
    "rules": by_rules,
    "ort-training": ort_training.by_builder,
}


@spelled_out
def gradient_model(
    model: ModelLike | Network, wrt: Sequence[str], *, engine: str = "rules", **opening: Unpack[Opening]
) -> onnx.ModelProto:
    """Return a model with gradients as extra outputs.

    The model has the original outputs, each value named in ``wrt``, ``grad/<name>`` in the value's full shape,
    ``grad/score`` (N,) and ``grad/class_index`` (N,). Its extra input ``target_index`` is int64 (N,): the class whose
    score before softmax is differentiated, −1 for the model's own top-1. It is the summed score over the batch that is
    differentiated, so each image gets its own gradient. A model that computes in float16 or bfloat16 between the score
    and ``wrt`` has one more input, ``grad_scale`` (float32, no axes): the gradients come multiplied by it. A power of
    two that keeps them off zero and infinity, 1024 say, is to be divided out in float32.

    Args:
        model: path, bytes, ``onnx.ModelProto``, or a ``Network``.
        wrt: the names of the values that the score is differentiated with respect to.
        engine: "rules", our own, writes standard operators, which every runtime has. "ort-training" is
            onnxruntime-training's builder: its graph runs in an environment that has this package, and nowhere else.
        **opening: the keywords of ``Opening``; those that say how sessions are opened are of no use here, since
            nothing is run.

    Raises:
        ModelError, ScoreError, UnsupportedGradient, NoGradientPath: the model cannot be read or differentiated.
        LayerError: the model has no value of such a name.
        MethodError: there is no such engine.
        ProviderError: the engine is not installed.
    """
    if engine not in ENGINES:
        raise MethodError(f"no engine {engine!r}", hint=f"one of {nearest(engine, ENGINES)}", engine=engine)
    network = open_network(model, **opening)
    values = values_by_name(network.prepared.graph)
    for name in wrt:
        if name not in values:
            raise LayerError(f"the model has no value {name!r}", hint=f"one of {nearest(name, values)}", name=name)
    return ENGINES[engine](network, list(dict.fromkeys(wrt)))
