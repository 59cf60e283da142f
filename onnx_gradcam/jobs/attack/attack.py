"""Adversarial images by our own gradient: how little must change until a deployed model changes its mind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any, Unpack

import numpy as np

from onnx_gradcam.errors import InputError, MethodError, nearest
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.network import Network
from onnx_gradcam.explain.opening import Opening, spelled_out
from onnx_gradcam.graph.load import ModelLike
from onnx_gradcam.jobs.attack.losses import LOSSES, loss_gradient, scores_of_images
from onnx_gradcam.jobs.attack.ready import check_model, prepare_images
from onnx_gradcam.jobs.attack.result import GREY_LEVELS, OWN_NUMBERS, AttackResult
from onnx_gradcam.jobs.attack.room import pictures_of
from onnx_gradcam.jobs.attack.steps import NORMS, Array, changed_by, fgsm, length, pgd
from onnx_gradcam.methods.copies import is_whole
from onnx_gradcam.photos.decode import MAX_PIXELS
from onnx_gradcam.photos.labels import LabelsLike, label_of
from onnx_gradcam.photos.preprocess.choice import Choice, PreprocessLike
from onnx_gradcam.targets import class_index, one_for_each

ATTACKS = ("fgsm", "pgd")
NO_INPUTS: Mapping[str, Any] = MappingProxyType({})
ClassLike = int | str | Sequence[int | str] | None
FLAT = (
    "{} of {} images: the loss has the gradient 0 everywhere, so that the attack says nothing: a saturated softmax "
    "(another loss may help), or a network that is constant there"
)


@spelled_out
def attack(
    model: ModelLike | Network | Explainer,
    x: Any,
    target: ClassLike = None,
    *,
    true: ClassLike = None,
    method: str = "fgsm",
    epsilon: float | None = None,
    steps: int = 10,
    step_size: float | None = None,
    norm: str = "linf",
    loss: str = "cross-entropy",
    random_start: bool = True,
    seed: int = 0,
    preprocess: PreprocessLike | Choice | None = "auto",
    bounds: tuple[float, float] | None = None,
    inputs: Mapping[str, Any] = NO_INPUTS,
    labels: LabelsLike = None,
    max_pixels: int = MAX_PIXELS,
    **opening: Unpack[Opening],
) -> AttackResult:
    """Return images changed as little as ε allows so that a classifier changes its mind: an audit of its robustness.

    The gradient is that of the deployed file. Changes are measured in grey levels of 0 to 255 at the size of the
    model's input, and pixels stay within 0 to 255; they are not rounded to whole levels.

    >>> from importlib.resources import files
    >>> import onnx_gradcam as ogc
    >>> demo = files("onnx_gradcam.models")
    >>> attacked = ogc.attack(demo / "shapes-resnet.onnx", demo / "images" / "cross.png", epsilon=8)
    >>> attacked.label(int(attacked.before[0])), bool((attacked.used <= 8.001).all())
    ('cross', True)

    Args:
        model: path, bytes, ``onnx.ModelProto``, a ``Network``, or an open ``Explainer``, which stays open.
        x: an array (N, …) with the shape and dtype of the model's input, or {input name: array}; or a photo as
            ``explain_image`` takes it, or a list of photos whose tensors have one shape.
        target: the class that the attack aims at, one or a list with one for each image; None: any other class than
            the true one.
        true: the class that an image is of, one or a list; None: what the model puts first.
        method: "fgsm", one step, or "pgd", many.
        epsilon: the largest norm of a change, in grey levels; None: 8 for "linf", 128 for "l2".
        steps: of "pgd".
        step_size: of "pgd", in grey levels; None: 2.5 · epsilon / steps.
        norm: "linf": the largest change of a value; "l2": the root of the sum of the squares.
        loss: "cross-entropy": −log p of the true class is raised, or that of the target lowered; "margin": the same of
            the score of this class minus the highest score of another.
        random_start: of "pgd": whether it begins at a random place within epsilon.
        seed: what this place is drawn from.
        preprocess: how photos become tensors, as for ``explain_image``; arrays are taken to be made in the same way.
            None: the input holds no pixels, and epsilon is in its own numbers.
        bounds: the smallest and the largest value of an input without pixels.
        inputs: arrays for the model's other inputs, by name.
        labels: as for ``Explainer``.
        max_pixels: the largest photo that is decoded.
        **opening: the keywords of ``Opening``.

    Returns:
        The images before and after, and what the model says of them.

    Raises:
        MethodError: the method, the norm, the loss or a number of the attack is unknown or out of range.
        InputError: the input holds integers, an array is no photo under the preprocessing, or an image is already of
            the class that is aimed at.
        ScoreError: the model has no classes.
        TargetError: there is no such class.
        OnnxGradcamError: all else that ``Explainer`` and ``explain`` raise, such as ``NoGradientPath``.
    """
    check_attack(method, norm, loss, epsilon, steps, step_size, seed)
    radius = NORMS[norm].epsilon if epsilon is None else float(epsilon)
    taken, size = 1, radius
    if method == "pgd":
        taken, size = steps, 2.5 * radius / steps if step_size is None else float(step_size)
    with ExitStack() as stack:
        explainer = model if isinstance(model, Explainer) else _open(model, labels, opening, stack)
        check_model(explainer)
        prepared = prepare_images(explainer, x, preprocess, bounds, inputs, max_pixels)
        images, room, choice = prepared.x, prepared.room, prepared.choice
        scores, before = scores_of_images(explainer, prepared, images)
        named = _classes(true, explainer, len(images))
        classes, aims = np.where(named < 0, scores.argmax(axis=1), named), _classes(target, explainer, len(images))
        _require_another_class(classes, aims, explainer.labels)
        gradient = loss_gradient(explainer, prepared, classes, aims, loss)
        if method == "fgsm":
            attacked = fgsm(images, gradient, room, radius, norm)
        else:
            how: dict[str, Any] = {"steps": taken, "step_size": size, "random_start": random_start, "seed": seed}
            attacked = pgd(images, gradient, room, radius, norm, **how)
        flat = np.asarray(~gradient(images).reshape(len(images), -1).any(axis=1))
        new_scores, after = scores_of_images(explainer, prepared, attacked)
        change = changed_by(images, attacked, room)
        return AttackResult(
            method=method,
            norm=norm,
            epsilon=radius,
            steps=taken,
            step_size=size,
            loss=loss,
            seed=seed,
            unit=GREY_LEVELS if choice else OWN_NUMBERS,
            x=images,
            adversarial=attacked,
            change=change,
            used=length(change, norm),
            true=classes,
            target=aims,
            before=scores.argmax(axis=1),
            after=new_scores.argmax(axis=1),
            probabilities_before=before,
            probabilities_after=after,
            flat=flat,
            labels=explainer.labels,
            model=explainer.source.name,
            sha256=explainer.network.sha256,
            versions=explainer.network.versions,
            pixels=(pictures_of(images, choice.preprocess), pictures_of(attacked, choice.preprocess))
            if choice
            else None,
            warnings=(
                *(choice.warnings if choice else ()),
                *([FLAT.format(int(flat.sum()), len(flat))] if flat.any() else []),
            ),
        )


def check_attack(
    method: str, norm: str, loss: str, epsilon: float | None, steps: int, step_size: float | None, seed: int
) -> None:
    """Raise ``MethodError`` for an attack that there is not, and for a number that is out of range."""
    for what, name, known in (("attack", method, ATTACKS), ("norm", norm, NORMS), ("loss", loss, LOSSES)):
        if name not in known:
            raise MethodError(f"unknown {what} {name!r}", hint=nearest(name, known), method=name)
    for name, value in (("epsilon", epsilon), ("step_size", step_size)):
        if value is not None and not 0 < value < float("inf"):
            raise MethodError(f"{name} is {value}", hint="grey levels of 0 to 255, above 0: 8", method=method)
    if not is_whole(steps) or steps < 1:
        raise MethodError(f"{steps} steps", hint="a whole number from 1", method=method)
    if not is_whole(seed) or seed < 0:
        raise MethodError(f"seed is {seed}", hint="a whole number from 0", method=method)


def _open(model: ModelLike | Network, labels: LabelsLike, opening: Opening, stack: ExitStack) -> Explainer:
    return stack.enter_context(Explainer(model, labels=labels, **opening))


def _classes(named: ClassLike, explainer: Explainer, count: int) -> Array:
    """Return a class for each image, (N,) int64; −1 where none is named."""
    each = named if named is None or isinstance(named, int | str) else list(named)
    classes = [
        -1 if one is None else class_index(one, explainer.score.count, explainer.labels)
        for one in one_for_each(each, count)
    ]
    return np.array(classes, np.int64)


def _require_another_class(classes: Array, aims: Array, labels: Sequence[str] | None) -> None:
    """Raise ``InputError`` for an image whose class is the one that the attack aims at: nothing would change."""
    same = np.flatnonzero(classes == aims)
    if len(same):
        number = int(classes[same[0]])
        raise InputError(
            f"the attack aims at {label_of(number, labels)!r}, which the image is already",
            where=f"image {same[0]} of {len(classes)}",
            hint="another target, or images of other classes",
        )
