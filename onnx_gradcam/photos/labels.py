"""Class names: from the user, the model's metadata, or, for 1000 classes, guessed to be ImageNet's."""

from __future__ import annotations

import importlib.resources
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_gradcam.errors import TargetError
from onnx_gradcam.photos.preprocess.choice import labels_from

IMAGENET = "imagenet"
FORMS = '["cat", "dog"] or {"0": "cat", "1": "dog"}'
LabelsLike = str | os.PathLike[str] | Sequence[str] | Mapping[int, str] | None


@dataclass(frozen=True)
class Labels:
    """``names`` by class index (None: not known) and where they come from: "declared: …" or "guessed: …"."""

    names: tuple[str, ...] | None
    source: str


def find_labels(given: LabelsLike, metadata: Mapping[str, str], count: int, kind: str) -> Labels:
    """The labels of a model with ``count`` classes.

    ``given``: a file (one label a line, or JSON: a list, or an object {index: label}), "imagenet", the labels
    themselves, or None: the model's metadata, else ImageNet's for 1000 classes. One label of a single sigmoid logit
    names class 1.

    Raises ``TargetError`` for a file that cannot be read, and for more labels than classes.
    """
    if given is not None:
        found = Labels(
            _given(given), f"declared: {given}" if isinstance(given, str | os.PathLike) else "declared: user"
        )
    elif (own := labels_from(metadata)) is not None:
        found = Labels(own, "declared: model metadata")
    elif count == 1000 and kind == "classes":
        return Labels(_imagenet(), "guessed: 1000 classes are taken for ImageNet's")
    else:
        return Labels(None, "not known")
    names = found.names or ()
    if kind == "binary" and len(names) == 1:
        names = (f"not {names[0]}", names[0])
    if len(names) > count and kind != "regression":
        raise TargetError(
            f"{len(names)} labels for a score of {count} classes",
            where=found.source,
            hint="the labels of this model, one for each class",
        )
    return Labels(names, found.source)


def label_of(index: int, labels: Sequence[str] | None) -> str:
    """Return the label of a class, or its index as a string where labels are not known."""
    if labels is None or not 0 <= index < len(labels):
        return str(index)
    return labels[index]


def _given(given: str | os.PathLike[str] | Sequence[str] | Mapping[int, str]) -> tuple[str, ...]:
    if isinstance(given, str | os.PathLike):
        return _imagenet() if given == IMAGENET else _read(Path(given))
    try:
        return _listed(given)
    except ValueError as error:
        raise TargetError(f"these are no labels: {error}", hint=FORMS) from None


def _listed(content: object) -> tuple[str, ...]:
    """A list, or an object {index: label}; where an index is left out, it is its own label."""
    if isinstance(content, Mapping):
        by_index = {int(k): str(v) for k, v in content.items()}
        return tuple(by_index.get(i, str(i)) for i in range(max(by_index, default=-1) + 1))
    if isinstance(content, Sequence) and not isinstance(content, str):
        return tuple(str(v) for v in content)
    raise ValueError("neither a list nor an object")


def _imagenet() -> tuple[str, ...]:
    text = (importlib.resources.files("onnx_gradcam.models") / "imagenet-1k.txt").read_text("utf-8")
    return tuple(text.splitlines())


def _read(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise TargetError(
            f"cannot read the labels {str(path)!r}: {error}",
            hint="a UTF-8 file with one label a line, a JSON list, or 'imagenet'",
            path=path,
        ) from None
    if path.suffix.lower() != ".json":
        return tuple(line.strip() or str(i) for i, line in enumerate(text.rstrip().splitlines()))
    try:
        return _listed(json.loads(text))
    except ValueError as error:
        raise TargetError(f"{str(path)!r} holds no labels: {error}", hint=FORMS, path=path) from None
