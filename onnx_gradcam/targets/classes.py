"""Classes as targets: by index, by label, several, the top k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.errors import TargetError, nearest

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


def class_index(target: int | str | np.integer, count: int, labels: Sequence[str] | None) -> int:
    """Return the class index that a target names.

    Args:
        target: an index, a string of digits, a label, or ``label:<label>``.
        count: how many classes there are.
        labels: their labels; None: not known.

    Raises:
        TargetError: there is no such class, or several have the label.
    """
    if isinstance(target, str) and target.removeprefix("-").isdecimal():
        target = int(target)
    if isinstance(target, str):
        return _label_index(target.removeprefix("label:"), labels)
    if isinstance(target, (bool, np.bool_)) or not isinstance(target, (int, np.integer)):
        raise TargetError(f"{target!r} is not a target", hint=TARGET_FORMS, target=target)
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
    matches = exact or [i for i, known in enumerate(labels) if label.casefold() in _synonyms(known)]
    if not matches:
        names = [*labels, *(s for known in labels for s in _synonyms(known))]
        raise TargetError(f"no label {label!r}", hint=f"one of {nearest(label, names)}", target=label)
    if len(matches) > 1:
        raise TargetError(
            f"the label {label!r} is ambiguous: classes {', '.join(map(str, matches))}",
            hint=f"a class index: {', '.join(f'{i} ({labels[i]})' for i in matches)}",
            target=label,
            indices=tuple(matches),
        )
    return matches[0]


def _synonyms(label: str) -> list[str]:
    """Return the names in a label of ImageNet's style, "tabby, tabby cat"."""
    return [part.strip().casefold() for part in label.split(",")]
