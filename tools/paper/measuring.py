"""How a piece is measured: scenes into files, and ``evaluate`` over them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from measured import digest, kept
from onnx import helper
from scenes import Scene, draw_many, one_object, two_objects, write_scenes

import onnx_gradcam as ogc
from paper.attacked import EPSILONS, attack_scenes
from paper.pieces import MODELS, Piece

SEEDS = {1: 21, 2: 22}  # of scenes with one and with two objects: no training uses them
PROBABILITIES = "probabilities"
SOURCES = tuple(sorted((MODELS.parent / "tools" / "scenes").glob("*.py")))
Figures = Mapping[str, Any]


def measure(piece: Piece) -> Figures:
    """Return the figures of a piece: metric → "map", "chance", "random_weights", "ceiling", and the accuracy."""
    path = MODELS / f"{piece.model}.onnx"
    question = {**asdict(piece), "model": digest(path), "scenes_from": digest(*SOURCES)}
    question["epsilons"] = EPSILONS if piece.attacked else ()
    return kept(question, lambda: _measured(piece, path))


def _measured(piece: Piece, path: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        table = write_scenes(Path(folder), scenes_of(piece), piece.objects)
        attack = attack_scenes(table, path) if piece.attacked else None
        evaluation = ogc.evaluate(
            with_probabilities(path) if piece.probability else path,
            attack.table if attack else table,
            piece.metrics,
            method=piece.method,
            target_layer=piece.layer,
            score=PROBABILITIES if piece.probability else "auto",
            providers=["cpu"],
            session_options=one_thread(),
        )
    figures = means_of(evaluation)
    return {**figures, "epsilon": attack.epsilon, "flipped": attack.flipped} if attack else figures


def means_of(evaluation: ogc.EvaluationResult) -> dict[str, Any]:
    """Return the means of an evaluation and its accuracy, ready for JSON."""
    return {"metrics": {one.name: _means(one) for one in evaluation.metrics}, "accuracy": evaluation.accuracy}


def _means(one: ogc.MetricResult) -> dict[str, Any]:
    means = {"map": one.map, "chance": one.chance, "random_weights": one.random_weights, "ceiling": one.ceiling}
    return {name: None if mean is None else asdict(mean) for name, mean in means.items()}


@cache
def _drawn(objects: int, count: int) -> list[Scene]:
    return draw_many(one_object if objects == 1 else two_objects, count, SEEDS[objects])


def scenes_of(piece: Piece) -> list[Scene]:
    """Return the scenes of a piece; equal pieces get equal scenes, and fewer are the first of more."""
    return _drawn(piece.objects, piece.scenes)


def one_thread() -> Any:
    """Return options of a session that runs on one core, so that figures are the same on every machine."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def with_probabilities(path: Path) -> onnx.ModelProto:
    """Return a classifier with one more output, the softmax of its logits."""
    model = onnx.load(path)
    logits = model.graph.output[0]
    model.graph.node.append(helper.make_node("Softmax", [logits.name], [PROBABILITIES], axis=-1))
    probabilities = onnx.ValueInfoProto()
    probabilities.CopyFrom(logits)
    probabilities.name = PROBABILITIES
    model.graph.output.append(probabilities)
    return model
