"""Class names, from the user or from the model's metadata; for some numbers of classes they are guessed."""

from __future__ import annotations

import importlib.resources
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_gradcam.errors import TargetError
from onnx_gradcam.photos.preprocess.choice import labels_from

BUNDLED: Mapping[str, str] = {"imagenet": "imagenet-1k.txt", "coco": "coco-80.txt"}
"""Lists of labels that come with the package: name → file."""
GUESSES: Mapping[tuple[str, int], tuple[str, str]] = {
    ("classes", 1000): ("imagenet", "guessed: 1000 classes are taken for ImageNet's"),
    ("detector", 80): ("coco", "guessed: 80 classes of a detector are taken for COCO's"),
}
"""(Family of models, number of classes) → the list that is guessed, and what is said of the guess."""
BACKGROUND = "background"
UNUSED_IDS = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
"""The ids below 90 that COCO has no class for; models of 90 classes leave them free."""
LABEL_FORMS = '["cat", "dog"] or {"0": "cat", "1": "dog"}'
LabelsLike = str | os.PathLike[str] | Sequence[str] | Mapping[int, str] | None


@dataclass(frozen=True)
class Labels:
    """The class names of a model.

    Attributes:
        names: one for each class index; None where they are not known.
        source: where they come from: "declared: <file or metadata>", "chosen: …", "guessed: …", or "not known".
    """

    names: tuple[str, ...] | None
    source: str


def find_labels(request: LabelsLike, metadata: Mapping[str, str], count: int, kind: str) -> Labels:
    """Return the labels of a model.

    Args:
        request: a file (one label a line, or JSON: a list, or an object {index: label}), "imagenet", "coco", the labels
            themselves, or None: the model's metadata, or else ImageNet's labels for 1000 classes, and COCO's for the 80
            of a detector.
        metadata: the metadata properties of the model.
        count: the number of classes.
        kind: the family of models, as ``family_of`` tells it. For "binary", a single sigmoid logit, one label is
            enough: it names class 1.

    Raises:
        TargetError: the file cannot be read, or there are more labels than classes.
    """
    if request is not None:
        labels = Labels(_names(request, count), _source(request))
    elif (own := labels_from(metadata)) is not None:
        labels = Labels(own, "declared: model metadata")
    elif (kind, count) in GUESSES:
        name, source = GUESSES[kind, count]
        return Labels(_bundled(name, count), source)
    else:
        return Labels(None, "not known")
    names = labels.names or ()
    if kind == "binary" and len(names) == 1:
        names = (f"not {names[0]}", names[0])
    if len(names) > count and kind != "regression":
        raise TargetError(
            f"{len(names)} labels for a score of {count} classes",
            where=labels.source,
            hint="the labels of this model, one for each class",
        )
    return Labels(names, labels.source)


def _source(request: object) -> str:
    """Return where labels come from: only a file declares them, the user chooses."""
    if not isinstance(request, str | os.PathLike):
        return "chosen: user"
    return f"{'chosen' if request in BUNDLED else 'declared'}: {request}"


def label_of(index: int, labels: Sequence[str] | None) -> str:
    """Return the label of a class, or its index as a string where labels are not known."""
    if labels is None or not 0 <= index < len(labels):
        return str(index)
    return labels[index]


def _names(request: str | os.PathLike[str] | Sequence[str] | Mapping[int, str], count: int) -> tuple[str, ...]:
    if isinstance(request, str) and request in BUNDLED:
        return _bundled(request, count)
    if isinstance(request, str | os.PathLike):
        return read_label_file(Path(request))
    try:
        return _list(request)
    except ValueError as error:
        raise TargetError(f"these are not labels: {error}", hint=LABEL_FORMS) from None


def _list(content: object) -> tuple[str, ...]:
    """Return the labels in a list, or in an object {index: label}, where an index left out is its own label."""
    if isinstance(content, Mapping):
        by_index = {int(k): str(v) for k, v in content.items()}
        return tuple(by_index.get(i, str(i)) for i in range(max(by_index, default=-1) + 1))
    if isinstance(content, Sequence) and not isinstance(content, str):
        return tuple(str(v) for v in content)
    raise ValueError("neither a list nor an object")


def _bundled(name: str, count: int) -> tuple[str, ...]:
    """Return a bundled list as a model of so many classes counts it: also with a background, or by the ids of COCO."""
    text = (importlib.resources.files("onnx_gradcam.models") / BUNDLED[name]).read_text("utf-8")
    names = tuple(text.splitlines())
    if name == "coco" and count in (90, 91):
        given = iter(names)
        names = tuple(str(i) if i in UNUSED_IDS else next(given) for i in range(1, 91))
    if count == len(names) + 1:
        names = (BACKGROUND, *names)
    if count > len(names):
        raise TargetError(
            f"{len(names)} labels for a score of {count} classes",
            where=f"the labels {name!r}",
            hint="the labels of this model, one for each class",
        )
    return names


def read_label_file(path: Path) -> tuple[str, ...]:
    """Return the labels in a file. Raises ``TargetError`` where it cannot be read."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise TargetError(
            f"cannot read the labels {str(path)!r}: {error}",
            hint="a UTF-8 file with one label a line, a JSON list, or " + " or ".join(map(repr, BUNDLED)),
            path=path,
        ) from None
    if path.suffix.lower() != ".json":
        return tuple(line.strip() or str(i) for i, line in enumerate(text.rstrip().splitlines()))
    try:
        return _list(json.loads(text))
    except ValueError as error:
        raise TargetError(f"{str(path)!r} does not hold labels: {error}", hint=LABEL_FORMS, path=path) from None
