"""The engines that write gradients into a model, behind one function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

from onnx_gradcam.engine import program as gradient
from onnx_gradcam.errors import MethodError, nearest
from onnx_gradcam.graph.load import ModelLike
from onnx_gradcam.roads import ort_training

ENGINES: dict[str, Callable[[ModelLike, Sequence[str], str], onnx.ModelProto]] = {
    "rules": gradient.gradient_model,
    "ort-training": ort_training.gradient_model,
}


def gradient_model(model: ModelLike, wrt: Sequence[str], score: str = "auto", engine: str = "rules") -> onnx.ModelProto:
    """The engine by itself: ``model`` with gradients as extra outputs.

    Returns a model with the original outputs, each value named in ``wrt``, ``grad/<name>`` in the value's full shape,
    ``grad/score`` (N,) and ``grad/class_index`` (N,). Its extra input ``target_index`` is int64 (N,): the class whose
    score before softmax is differentiated, −1 for the model's own top-1. It is the summed score over the batch that is
    differentiated, so each image gets its own gradient. A model that computes in float16 or bfloat16 between the score
    and ``wrt`` has one more input, ``grad_scale`` (float32, no axes): the gradients come multiplied by it. A power of
    two that keeps them off zero and infinity, 1024 say, is to be divided out in float32.

    ``engine``: "rules", our own, writes standard operators, which every runtime has. "ort-training" is
    onnxruntime-training's builder: its graph runs in an environment that has this package, and nowhere else.

    Raises ``ModelError``, ``ScoreError``, ``LayerError``, ``UnsupportedGradient``, ``NoGradientPath``; ``MethodError``
    for another engine, ``ProviderError`` for one that is not installed.
    """
    if engine not in ENGINES:
        raise MethodError(f"no engine {engine!r}", hint=f"one of {nearest(engine, ENGINES)}", engine=engine)
    return ENGINES[engine](model, wrt, score)
