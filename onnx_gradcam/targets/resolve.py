"""The targets of a call, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.errors import TargetError
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.targets.base import TargetObject
from onnx_gradcam.targets.bound import BoundTarget, Context
from onnx_gradcam.targets.classes import FORMS, TOP1, Classes, TopK, class_index


@dataclass(frozen=True)
class Each:
    """All of these targets, for every image: class indices, labels, target objects."""

    targets: tuple[int | str | TargetObject, ...]

    def __init__(self, targets: Sequence[int | str | TargetObject]) -> None:
        object.__setattr__(self, "targets", tuple(targets))


One = int | str | TargetObject
Target = None | One | Sequence[One] | TopK | Classes | Each
Wanted = list[tuple[int | TargetObject, ...]]


def resolve(target: Target, images: int, count: int, labels: Sequence[str] | None) -> Wanted | TopK:
    """For each image its class indices (TOP1 for the model's own top-1) and target objects; a TopK is left to the run.

    Raises ``TargetError`` for an unknown or ambiguous label, a class out of range, or a wrong number of targets.
    """

    def one(given: One) -> int | TargetObject:
        return given if isinstance(given, TargetObject) else class_index(given, count, labels)

    if isinstance(target, TopK):
        if not isinstance(target.k, (int, np.integer)) or not 1 <= target.k <= count:
            raise TargetError(f"top-{target.k} of {count} classes", hint=f"a number from 1 to {count}", target=target)
        return target
    if target is None:
        return [(TOP1,)] * images
    if isinstance(target, Classes | Each):
        several = target.indices if isinstance(target, Classes) else target.targets
        if not several:
            name, thing = (type(target).__name__, "class" if isinstance(target, Classes) else "target")
            raise TargetError(f"{name}([]) names no {thing}", hint="at least one", target=target)
        return [tuple(one(t) for t in several)] * images
    if isinstance(target, (int, np.integer, str, TargetObject)):
        return [(one(target),)] * images
    if not isinstance(target, Sequence) and not (isinstance(target, np.ndarray) and target.ndim == 1):
        raise TargetError(f"{target!r} is not a target", hint=FORMS, target=target)
    given = list(target)
    if len(given) != images:
        raise TargetError(
            f"{len(given)} targets for {images} images",
            hint=f"one target per image, or one for all: {FORMS}",
            target=target,
        )
    return [(one(t),) for t in given]


def bind_targets(wanted: Wanted | TopK, context: Context) -> list[tuple[int | BoundTarget, ...]] | TopK:
    """How each target object is carried out on the model; classes stay as they are.

    Raises ``TargetError`` for a target that does not fit the model.
    """
    if isinstance(wanted, TopK):
        return wanted
    made = {id(t): t.bind(context) for several in wanted for t in several if isinstance(t, TargetObject)}
    return [tuple(made[id(t)] if isinstance(t, TargetObject) else t for t in several) for several in wanted]


def branch(wanted: Sequence[tuple[int | BoundTarget, ...]] | TopK) -> str:
    """The values of a detector that the scores are made of, "logits" but for objectness and boxes.

    Raises ``TargetError`` where there are several: they are explained at layers of their own.
    """
    if isinstance(wanted, TopK):
        return "logits"
    found = {g.kind.branch if isinstance(g, BoundTarget) else "logits" for several in wanted for g in several}
    if len(found) > 1:
        raise TargetError(
            f"targets of different branches of a detector: {', '.join(sorted(found))}",
            hint="one call for class scores, one for objectness, one for the overlap of boxes",
            target=wanted,
        )
    return found.pop() if found else "logits"


def in_input(target: Target, geometry: Geometry) -> Target:
    """The same target with places in the pixels of the model's input instead of the photo's."""
    if isinstance(target, TargetObject):
        return target.in_input(geometry)
    if isinstance(target, Each):
        return Each([t.in_input(geometry) if isinstance(t, TargetObject) else t for t in target.targets])
    if isinstance(target, list | tuple):
        return [t.in_input(geometry) if isinstance(t, TargetObject) else t for t in target]
    return target
