"""How good the models of the tasks are: what they answer, say, find and colour on drawn scenes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from shapes import CLASSES
from task_scenes import (
    ANSWERS,
    CAPTION_WORDS,
    END,
    PAD,
    QUESTION_LENGTH,
    QUESTION_WORDS,
    QUESTIONS,
    START,
    NamedScene,
    box_of,
    class_map,
    describe,
)

import onnx_gradcam as ogc

Tensors = NDArray[np.float32]
SEED, PIECE, OVERLAPPING = 41, 50, 0.5


def run(explainer: ogc.Explainer, **feeds: NDArray[np.generic]) -> NDArray[np.float32]:
    """The only output of a model, some rows at a time."""
    session, count = explainer.network.untouched, len(next(iter(feeds.values())))
    pieces = [{name: rows[k : k + PIECE] for name, rows in feeds.items()} for k in range(0, count, PIECE)]
    return np.concatenate([next(iter(session.run(session.outputs, piece).values())) for piece in pieces])


def answers_right(explainer: ogc.Explainer, scenes: Sequence[NamedScene], x: Tensors) -> dict[str, float]:
    """The share of questions that are answered right, for each kind; half of those for presence are answered no."""
    shares = {}
    for kind, ask in QUESTIONS.items():
        rng = np.random.default_rng(SEED)
        asked = [ask(rng, scene.things) for scene in scenes]
        rows = [[QUESTION_WORDS.index(w) for w in (*each.words, *[PAD] * QUESTION_LENGTH)] for each in asked]
        answers = run(explainer, image=x, question=np.array([row[:QUESTION_LENGTH] for row in rows])).argmax(axis=1)
        shares[f"right answers: {kind}"] = float(
            np.mean([ANSWERS[k] == each.answer for k, each in zip(answers, asked, strict=True)])
        )
    return shares


def captions_right(explainer: ogc.Explainer, scenes: Sequence[NamedScene], x: Tensors) -> dict[str, float]:
    """The share of scenes whose own caption is right in each word."""
    length = explainer.inputs["caption"].shape[1] or 0
    said = np.full((len(scenes), length + 1), CAPTION_WORDS.index(PAD))
    said[:, 0] = CAPTION_WORDS.index(START)
    for step in range(length):
        said[:, step + 1] = run(explainer, image=x, caption=said[:, :length])[:, step].argmax(axis=1)
    texts = [" ".join(CAPTION_WORDS[k] for k in row[1:]).partition(f" {END}")[0] for row in said]
    right = [text == " ".join(describe(scene.things).words) for text, scene in zip(texts, scenes, strict=True)]
    return {"captions right in each word": float(np.mean(right))}


def overlap(first: NDArray[np.float32], second: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    both = float(np.prod(np.maximum(high - low, 0)))
    areas = [float((b[2] - b[0]) * (b[3] - b[1])) for b in (first, second)]
    return both / (sum(areas) - both)


def objects_found(explainer: ogc.Explainer, scenes: Sequence[NamedScene], x: Tensors) -> dict[str, float]:
    """The share of objects whose class has its most probable box on them, above the threshold that demos use."""
    found = []
    for scene, cells in zip(scenes, run(explainer, image=x), strict=True):
        for thing, mask in zip(scene.things, scene.masks, strict=True):
            best = cells[cells[:, 4 + thing.outline].argmax()]
            box = np.concatenate([best[:2] - best[2:4] / 2, best[:2] + best[2:4] / 2])
            found.append(best[4 + thing.outline] >= 0.25 and overlap(box, box_of(mask)) >= OVERLAPPING)
    return {"objects found (p at least 0.25, overlap at least 0.5)": float(np.mean(found))}


def pixels_right(explainer: ogc.Explainer, scenes: Sequence[NamedScene], x: Tensors) -> dict[str, float]:
    """The mean over the classes of the intersection over union of what is coloured and what is there."""
    given, true = run(explainer, image=x).argmax(axis=1), np.stack([class_map(scene) for scene in scenes])
    each = [((given == k) & (true == k)).sum() / ((given == k) | (true == k)).sum() for k in range(1 + len(CLASSES))]
    return {"mean overlap of the classes, background included": float(np.mean(each))}
