"""What is explained: model outputs → one score per row, written as graph; and the forms in which users name it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_gradcam.errors import TargetError, nearest
from onnx_gradcam.graph.builder import Builder, Value, rank
from onnx_gradcam.graph.score import Score

TOP1 = -1  # as a class index in the graph: the model's own top-1
FORMS = "None, an int, a label, TopK(k), Classes([...]) or a list with one int or label for each image"


@dataclass(frozen=True)
class TopK:
    """The k classes with the highest scores, for every image."""

    k: int


@dataclass(frozen=True)
class Classes:
    """These classes, by index or label, for every image."""

    indices: Sequence[int | str]

    def __init__(self, indices: Sequence[int | str]) -> None:
        object.__setattr__(self, "indices", tuple(indices))


Target = None | int | str | Sequence[int | str] | TopK | Classes


def class_score(op: Builder, score: Score, index: Value) -> tuple[Value, Value]:
    """The score of class ``index`` (int64 (N,), −1 for top-1) as graph: (score (N,), class index (N,)).

    Several classes: y_c, the entry of the score tensor. One logit z with a Sigmoid: z for class 1, −z for class 0; its
    top-1 is class 1 where z > 0. A regression: the value itself. Many scores per image: the logit of the class at its
    most probable cell; top-1 is the most probable class.
    """
    y = score.value
    per_row = op.ints(-1)
    if score.kind == "regression":
        return op.Reshape(y, per_row), op.Mul(index, op.ints(0))
    top1 = op.Less(index, op.ints(0))
    if score.kind == "binary":
        z = op.Reshape(y, per_row)
        positive = op.Cast(op.Greater(z, op.const(0, like=z)), to=int(ir.DataType.INT64))
        chosen = op.Where(top1, positive, index)
        sign = op.Sub(op.Mul(op.Cast(chosen, to=int(_float(z))), op.const(2, like=z)), op.const(1, like=z))
        return op.Mul(z, sign), chosen
    axis = score.class_axis
    assert axis is not None
    ranking = y if score.dense is None else score.dense.ranking
    best = op.Reshape(op.ArgMax(ranking, axis=axis, keepdims=0), per_row)
    chosen = op.Where(top1, best, index)
    ones = [1] * (rank(y) - 1)
    classes = op.array(np.arange(score.count, dtype=np.int64).reshape([-1, *ones[axis:]]))
    is_chosen = op.Equal(op.Reshape(chosen, op.ints(-1, *ones)), classes)
    alone = op.Where(is_chosen, y, op.const(0, like=y))  # no product: a masked class may be −∞
    return op.ReduceSum(alone, op.ints(*range(1, rank(y))), keepdims=0), chosen


def _float(value: Value) -> ir.DataType:
    assert value.dtype is not None
    return value.dtype


def resolve(target: Target, images: int, count: int, labels: Sequence[str] | None) -> list[tuple[int, ...]] | TopK:
    """For each image its class indices (TOP1 for the model's own top-1); a TopK is left to the run.

    Raises ``TargetError`` for an unknown or ambiguous label, a class out of range, or a wrong number of targets.
    """
    if isinstance(target, TopK):
        if not isinstance(target.k, (int, np.integer)) or not 1 <= target.k <= count:
            raise TargetError(f"top-{target.k} of {count} classes", hint=f"a number from 1 to {count}", target=target)
        return target
    if target is None:
        return [(TOP1,)] * images
    if isinstance(target, Classes):
        if not target.indices:
            raise TargetError("Classes([]) names no class", hint="at least one index", target=target)
        return [tuple(class_index(i, count, labels) for i in target.indices)] * images
    if isinstance(target, (int, np.integer, str)):
        return [(class_index(target, count, labels),)] * images
    if not isinstance(target, Sequence) and not (isinstance(target, np.ndarray) and target.ndim == 1):
        raise TargetError(f"{target!r} is not a target", hint=FORMS, target=target)
    given = list(target)
    if len(given) != images:
        raise TargetError(
            f"{len(given)} targets for {images} images",
            hint=f"one target per image, or one for all: {FORMS}",
            target=target,
        )
    return [(class_index(t, count, labels),) for t in given]


def class_index(target: int | str | np.integer, count: int, labels: Sequence[str] | None) -> int:
    """The class index of an index, a string of digits, a label or ``label:<label>``."""
    if isinstance(target, str) and target.removeprefix("-").isdecimal():
        target = int(target)
    if isinstance(target, str):
        return _label_index(target.removeprefix("label:"), labels)
    if isinstance(target, (bool, np.bool_)) or not isinstance(target, (int, np.integer)):
        raise TargetError(f"{target!r} is not a target", hint=FORMS, target=target)
    if not 0 <= target < count:
        raise TargetError(
            f"class {target} is out of range: the score has {count} classes",
            hint=f"a class index from 0 to {count - 1}",
            target=int(target),
            count=count,
        )
    return int(target)


def _label_index(label: str, labels: Sequence[str] | None) -> int:
    if labels is None:
        raise TargetError(
            f"the label {label!r} cannot be looked up: the model's labels are not known",
            hint="a class index, or --labels FILE (one label a line, or a JSON list)",
            target=label,
        )
    exact = [i for i, known in enumerate(labels) if known.casefold() == label.casefold()]
    found = exact or [i for i, known in enumerate(labels) if label.casefold() in _synonyms(known)]
    if not found:
        names = [*labels, *(s for known in labels for s in _synonyms(known))]
        raise TargetError(f"no label {label!r}", hint=f"one of {nearest(label, names)}", target=label)
    if len(found) > 1:
        raise TargetError(
            f"the label {label!r} is ambiguous: classes {', '.join(map(str, found))}",
            hint=f"a class index: {', '.join(f'{i} ({labels[i]})' for i in found)}",
            target=label,
            indices=tuple(found),
        )
    return found[0]


def _synonyms(label: str) -> list[str]:
    """ImageNet style: "tabby, tabby cat"."""
    return [part.strip().casefold() for part in label.split(",")]


def label_of(index: int, labels: Sequence[str] | None) -> str:
    """The label of a class, or its index as a string where labels are not known."""
    if labels is None or not 0 <= index < len(labels):
        return str(index)
    return labels[index]


def parse(texts: Sequence[str], count: int, labels: Sequence[str] | None) -> Target:
    """``--target``: ``top1``, ``top5``, an index or a label; several of the last two for every image."""
    if len(texts) > 1:
        return Classes([class_index(text, count, labels) for text in texts])
    text = texts[0]
    if text == "top1":
        return None
    if text.startswith("top") and text[3:].isdecimal():
        return TopK(int(text[3:]))
    return class_index(text, count, labels)
