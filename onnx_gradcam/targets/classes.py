"""Classes as targets: by index, by label, several, the top k."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnx_gradcam.errors import TargetError, nearest

SHOWN = 8  # labels that a message names
TOP1 = -1  # as a class index in the graph: the model's own top-1
TARGET_FORMS = (
    "None, an int, a label, TopK(k), Classes([...]), a target object, or a list with one of these for each image"
)


@dataclass(frozen=True)
class TopK:
    """The k classes with the highest scores, for every image.

    >>> from importlib.resources import files
    >>> import onnx_gradcam as ogc
    >>> demo = files("onnx_gradcam.models")
    >>> explainer = ogc.Explainer(demo / "shapes-resnet.onnx")
    >>> len(explainer.explain_image(demo / "images" / "drop.png", target=ogc.TopK(3)))
    3

    Attributes:
        k: how many classes.
    """

    k: int


@dataclass(frozen=True)
class Classes:
    """Some classes, for every image.

    Attributes:
        indices: class indices or labels.
    """

    indices: Sequence[int | str]

    def __init__(self, indices: Sequence[int | str]) -> None:
        object.__setattr__(self, "indices", tuple(indices))


def plain(target: Any) -> Any:
    """Return what is like an integer or a list (a scalar or an array of NumPy or torch) as one; all else as it is."""
    return target.tolist() if hasattr(target, "tolist") else target


def class_index(target: Any, count: int, labels: Sequence[str] | None) -> int:
    """Return the class index that a target names.

    Args:
        target: an index (a Python, NumPy or torch integer, or an array without axes), a string of digits, a label, or
            ``label:<label>``.
        count: how many classes there are.
        labels: their labels; None: not known.

    Raises:
        TargetError: there is no such class, or several have the label.
    """
    target = plain(target)
    if isinstance(target, str) and target.removeprefix("-").isdecimal():
        target = int(target)
    if isinstance(target, str):
        return _label_index(target.removeprefix("label:"), labels)
    if isinstance(target, bool) or not isinstance(target, int):
        raise TargetError(f"{target!r} is not a target", hint=TARGET_FORMS, target=target)
    if not 0 <= target < count:
        raise TargetError(
            f"class {target} is out of range: the score has {count} classes",
            hint=f"a class index from 0 to {count - 1}",
            target=target,
            count=count,
        )
    return target


def _label_index(label: str, labels: Sequence[str] | None) -> int:
    if labels is None:
        raise TargetError(
            f"the label {label!r} cannot be looked up: the model's labels are not known",
            hint="a class index, or --labels FILE (one label a line, or a JSON list)",
            target=label,
        )
    exact = [i for i, known in enumerate(labels) if known.casefold() == label.casefold()]
    matches = exact or [i for i, known in enumerate(labels) if label.casefold() in _synonyms(known)]
    if not matches:
        raise TargetError(f"no label {label!r}", hint=f"one of {_alike(label, labels)}", target=label)
    if len(matches) > 1:
        raise TargetError(
            f"the label {label!r} is ambiguous: classes {', '.join(map(str, matches))}",
            hint=f"a class index: {', '.join(f'{i} ({labels[i]})' for i in matches)}",
            target=label,
            indices=tuple(matches),
        )
    return matches[0]


def _alike(label: str, labels: Sequence[str]) -> str:
    """Return the labels that hold ``label``, as a word of theirs first; where there are none, the nearest names."""
    text = label.casefold().strip()
    holding = [known for known in labels if text and text in known.casefold()]
    holding.sort(key=lambda known: text not in re.findall(r"\w+", known.casefold()))
    if not holding:
        return nearest(label, [*labels, *(s for known in labels for s in _synonyms(known))])
    more = f" and {len(holding) - SHOWN} more that hold it" if len(holding) > SHOWN else ""
    return ", ".join(repr(known) for known in holding[:SHOWN]) + more


def _synonyms(label: str) -> list[str]:
    """Return the names in a label of ImageNet's style, "tabby, tabby cat"."""
    return [part.strip().casefold() for part in label.split(",")]
