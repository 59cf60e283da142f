"""Maps of methods that read the attention maps of a network of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.anatomy.attention import AttentionMaps
from onnx_gradcam.engine.evaluation import Evaluation, RunResult
from onnx_gradcam.engine.heads import with_heads
from onnx_gradcam.engine.passes import Backward
from onnx_gradcam.engine.rows import hold_targets
from onnx_gradcam.errors import LayerError, MethodError
from onnx_gradcam.explain.drawn import Maps, MapTask, draw_cams
from onnx_gradcam.explain.network import Network
from onnx_gradcam.explain.smoothing import Cams
from onnx_gradcam.methods.tokens import MEAN, TOKEN_METHODS
from onnx_gradcam.results import notes
from onnx_gradcam.results.layer import LayerResult

Array = npt.NDArray[Any]


def token_maps(task: MapTask) -> Maps:
    """Return the maps of a method of attention maps, one for each (image, target).

    The layer of the result is the attention map of the last block; its activation is how much each head takes of each
    token for those that the score reads.
    """
    network, recipe = task.network, task.recipe
    if network.score.dense is not None:
        raise MethodError(
            f"method {recipe.method!r} follows attention back from the tokens that one score for each image reads, and "
            "this model has many",
            hint="'hirescam', 'gradcam'",
            method=recipe.method,
        )
    blocks = network.attention_at(task.feeds)
    method, count = TOKEN_METHODS[recipe.method], len(task.x)
    evaluation = _forward(network, blocks)
    run = evaluation.evaluate(task.feeds, task.targets, False)
    images = np.array([row.image for row in run.rows])
    attention = [_heads(name, run.results[name], count)[images] for name in blocks.maps]
    available: dict[str, Any] = {"attention": attention, "read": blocks.read}
    if "gradient" in method.needs:
        available["gradient"] = _gradients(task, blocks, run)
    arrays = [available[name] for name in method.needs]
    relevance = np.asarray(method.function(*arrays, **recipe.options), np.float32)
    grid = blocks.layout.token_grid
    assert grid is not None
    taken = np.einsum("t,nhts->nhs", blocks.read, attention[-1].astype(np.float32))
    cam = np.broadcast_to(relevance[:, grid], (len(images), *grid.shape))
    layer = LayerResult(blocks.maps[-1], taken[:, :, grid], None, None, np.ascontiguousarray(cam))
    sentences = tuple(notes.high_floor(recipe.method, layer.cam))
    return draw_cams(task, evaluation, Cams(run.results, run.rows, [layer], sentences, ()))


def _forward(network: Network, blocks: AttentionMaps) -> Evaluation:
    """Return what evaluates the model with its attention written out, and its gradients at the attention maps."""
    key = blocks.maps, "attention"
    return network.kept(key, lambda: network.new_evaluation(blocks.maps, Backward(), network.written_out))


def _gradients(task: MapTask, blocks: AttentionMaps, run: RunResult) -> list[Array]:
    """Return the gradient at each attention map for each row, (R, heads, T, T)."""
    network, recipe = task.network, task.recipe
    evaluation = _forward(network, blocks)
    if recipe.method == "legrad":
        tokens = {**TOKEN_METHODS["legrad"].options, **recipe.options}["tokens"]
        score, axis = network.score.value.name or "", blocks.layout.axes[2]
        evaluation = network.kept(
            (blocks.maps, f"legrad of {tokens} tokens"),
            lambda: _behind_blocks(network, blocks, score, axis, tokens),
        )
    held = hold_targets(run.rows, len(task.x))
    gradients = evaluation.evaluate(task.feeds, held, True).gradients
    assert gradients is not None
    sign = -1 if recipe.counterfactual else 1
    return [sign * _heads(name, gradients.of[name], len(run.rows)) for name in blocks.maps]


def _behind_blocks(network: Network, blocks: AttentionMaps, score: str, axis: int, tokens: str) -> Evaluation:
    headed = with_heads(network.written_out, score, blocks.behind, axis, tokens == MEAN)
    return network.new_evaluation(blocks.maps, Backward(through=headed.scores), headed.model)


def _heads(name: str, maps: Array, count: int) -> Array:
    """Return attention maps as (count, heads, T, T): some exporters lay images and heads along one axis."""
    if maps.shape[0] % count or (maps.ndim == 4 and maps.shape[0] != count):
        raise LayerError(
            f"{name!r} has {maps.shape[0]} entries for {count} images: not one attention map for each image",
            where=f"shape {maps.shape}",
            hint="'gradcam', 'eigencam'",
            name=name,
        )
    return maps.reshape(count, -1, *maps.shape[-2:])
