"""The targets of a call, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_gradcam.errors import TargetError
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.targets.base import TargetObject
from onnx_gradcam.targets.bound import BoundTarget, Context, class_target, ranked_target
from onnx_gradcam.targets.classes import TARGET_FORMS, TOP1, Classes, TopK, class_index, plain
from onnx_gradcam.targets.levels import over_all_levels


@dataclass(frozen=True)
class Each:
    """Several targets, for every image.

    Attributes:
        targets: class indices, labels and target objects.
    """

    targets: tuple[int | str | TargetObject, ...]

    def __init__(self, targets: Sequence[int | str | TargetObject]) -> None:
        object.__setattr__(self, "targets", tuple(targets))


OneTarget = int | str | TargetObject
Target = None | OneTarget | Sequence[OneTarget] | TopK | Classes | Each
TargetsByImage = list[tuple[int | TargetObject, ...]]


def resolve(target: Target, images: int, count: int, labels: Sequence[str] | None) -> TargetsByImage | TopK:
    """Return the targets of each image.

    Args:
        target: as ``Explainer.explain`` takes it.
        images: how many images there are.
        count: how many classes there are.
        labels: their labels; None: not known.

    Returns:
        For each image its class indices (``TOP1`` for the model's own top-1) and target objects. A ``TopK`` is returned
        as it is: its classes are known after the run.

    Raises:
        TargetError: an unknown or ambiguous label, a class out of range, or a wrong number of targets.
    """

    def one(each: OneTarget) -> int | TargetObject:
        return each if isinstance(each, TargetObject) else class_index(each, count, labels)

    target = plain(target)
    if isinstance(target, TopK):
        k = plain(target.k)
        if not isinstance(k, int) or not 1 <= k <= count:
            raise TargetError(f"top-{k} of {count} classes", hint=f"a number from 1 to {count}", target=target)
        return TopK(k)
    if target is None:
        return [(TOP1,)] * images
    if isinstance(target, Classes | Each):
        several = target.indices if isinstance(target, Classes) else target.targets
        if not several:
            name, thing = (type(target).__name__, "class" if isinstance(target, Classes) else "target")
            raise TargetError(f"{name}([]) names no {thing}", hint="at least one", target=target)
        return [tuple(one(t) for t in several)] * images
    if isinstance(target, int | str | TargetObject):
        return [(one(target),)] * images
    if not isinstance(target, Sequence):
        raise TargetError(f"{target!r} is not a target", hint=TARGET_FORMS, target=target)
    listed = list(target)
    if len(listed) != images:
        raise _wrong_count(target, images)
    return [(one(t),) for t in listed]


def one_for_each(target: Target, images: int) -> list[Target]:
    """Return for each image what is explained of it: its own of a list, or the same for all.

    Raises ``TargetError`` for a list with another number of targets.
    """
    target = plain(target)
    if isinstance(target, str) or not isinstance(target, Sequence):
        return [target] * images
    if len(target) != images:
        raise _wrong_count(target, images)
    return list(target)


def _wrong_count(target: Sequence[OneTarget], images: int) -> TargetError:
    return TargetError(
        f"{len(target)} targets for {images} images",
        hint=f"one target per image, or one for all: {TARGET_FORMS}",
        target=target,
    )


def bind_targets(
    targets: TargetsByImage | TopK, context: Context, images: int, all_levels: bool = False
) -> list[tuple[BoundTarget, ...]]:
    """Return for each of the images its targets, bound to the model; classes over ``all_levels`` of a detector.

    Raises:
        TargetError: a target does not fit the model: one of its own, or a class where the model has none.
    """
    if isinstance(targets, TopK) or not all(isinstance(t, TargetObject) for several in targets for t in several):
        context.require_classes()
    if isinstance(targets, TopK):
        return [tuple(_ranked(rank, context, all_levels) for rank in range(targets.k))] * images
    bound = {id(t): t.bind(context) for several in targets for t in several if isinstance(t, TargetObject)}
    return [
        tuple(bound[id(t)] if isinstance(t, TargetObject) else _class(t, context, all_levels) for t in several)
        for several in targets
    ]


def _ranked(rank: int, context: Context, all_levels: bool) -> BoundTarget:
    if not all_levels:
        return ranked_target(rank)
    return over_all_levels(context, lambda forward, image: int(forward.order[image, rank]))


def _class(index: int, context: Context, all_levels: bool) -> BoundTarget:
    if not all_levels:
        return class_target(index)
    return over_all_levels(context, lambda forward, image: forward.best(image, index))


def branches_of(targets: Sequence[tuple[BoundTarget, ...]]) -> list[str]:
    """Return the branches of a detector that the scores come from: "logits", "objectness", "boxes", in their order."""
    return list(dict.fromkeys(target.kind.branch for several in targets for target in several)) or ["logits"]


def in_input(target: Target, geometry: Geometry) -> Target:
    """Return the same target with places in the pixels of the model's input instead of the photo's."""
    if isinstance(target, TargetObject):
        return target.in_input(geometry)
    if isinstance(target, Each):
        return Each([t.in_input(geometry) if isinstance(t, TargetObject) else t for t in target.targets])
    if isinstance(target, list | tuple):
        return [t.in_input(geometry) if isinstance(t, TargetObject) else t for t in target]
    return target
