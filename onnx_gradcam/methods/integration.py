"""Integrated gradients: all floating-point inputs of a model move together from a baseline to their values.

The first line of the docstring of the method is its formula and its source: the table of methods in the documentation
is made of these lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.copies.baselines import BASELINES
from onnx_gradcam.errors import MethodError, nearest

Array = npt.NDArray[Any]
Inputs = Mapping[str, Array]
GradientsAlong = Callable[[Iterable[Inputs]], Iterable[Inputs]]
"""From points of a path, each with an array (N, …) for every input, to the gradients there, several points at a time:
(points, R, …) for every input."""

FIXED = "fixed"
"""The baseline of an input that does not move."""

BaselineOf = float | Array | str
Baseline = BaselineOf | Mapping[str, BaselineOf]


def integrated_gradients(
    x: Inputs, images: Array, gradients_at: GradientsAlong, *, steps: int = 50, baseline: Baseline = 0.0
) -> dict[str, Array]:
    """(x − b) · mean_k ∂y/∂x at b + (k − ½)/m · (x − b), k = 1 … m.   Sundararajan et al. 2017, eq. 3.

    m is ``steps``. The paper's sum takes the right ends k/m of the steps; their midpoints come nearer to the integral.
    b is ``baseline``, a number or an array that broadcasts to x, in the space of the model's input, behind the
    preprocessing: 0 is a black photo for a model that takes 0 to 1, the mean colour for one that subtracts it. "mean"
    is the mean of each channel of each image, "blur" the image blurred.

    Of a model with several inputs x is all of them: the floating-point inputs with a batch axis on which the score
    depends move together along one line, and the attributions of all of them add up to the score's difference from the
    baseline. {input name: baseline} sets the baseline of each input, 0 where none is given, and "fixed" keeps an input
    as it is. On the command line: ``--option baseline.NAME=0.5``, ``--option baseline.NAME=fixed``.
    """
    if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 1:
        raise MethodError(f"integrated gradients in {steps!r} steps", hint="a whole number from 1", steps=steps)
    begin = baselines(baseline, x)
    wide = {name: each.astype(np.promote_types(each.dtype, np.float32)) for name, each in x.items()}
    away = {name: wide[name] - begin[name] for name in x}

    def point(k: int) -> dict[str, Array]:
        remaining = 1 - (k + 0.5) / steps
        return {name: (wide[name] - away[name] * remaining).astype(x[name].dtype) for name in x}

    mean = _means(gradients_at(point(k) for k in range(steps)))
    return {name: away[name][images] * mean[name] for name in x}


def moving_inputs(baseline: Baseline, candidates: Sequence[str], explained: str) -> tuple[str, ...]:
    """Return the names of the inputs that move from their baseline, the explained one first.

    Args:
        baseline: the option of ``integrated_gradients``.
        candidates: the inputs that can move.
        explained: the input that is explained, one of them.

    Raises:
        MethodError: a baseline is named for an input that cannot move, or the explained one is fixed.
    """
    named = baseline if isinstance(baseline, Mapping) else {explained: baseline}
    for name in named:
        if name not in candidates:
            raise MethodError(
                f"input {name!r} has no baseline: it does not move",
                where="floating-point inputs with a batch axis, on which the score depends, move",
                hint=f"one of {nearest(name, candidates)}",
                input=name,
            )
    fixed = [name for name, value in named.items() if isinstance(value, str) and value == FIXED]
    if explained in fixed:
        raise MethodError(
            f"the input {explained!r} is explained, and cannot be {FIXED!r}",
            hint="explain another input (--image-input, image_input=), or give this one a baseline",
            input=explained,
        )
    return (explained, *(name for name in candidates if name != explained and name not in fixed))


def spelled_out(baseline: Baseline, x: Array, explained: str, space: Sequence[int]) -> Baseline:
    """Return a baseline with numbers in the place of the words "mean" and "blur" for the explained input.

    Args:
        baseline: the option of ``integrated_gradients``.
        x: the explained input, (N, …).
        explained: its name.
        space: which of its axes are space.
    """
    if isinstance(baseline, Mapping):
        own = baseline.get(explained)
        return {**baseline, explained: _spelled_out(own, x, space)} if isinstance(own, str) else baseline
    return _spelled_out(baseline, x, space) if isinstance(baseline, str) else baseline


def _spelled_out(word: str, x: Array, space: Sequence[int]) -> BaselineOf:
    if word not in BASELINES:
        return word  # "fixed", or what will be refused
    last = range(x.ndim - len(space), x.ndim)
    arranged = np.moveaxis(x, space, last)
    images = arranged.reshape(len(x), -1, *(x.shape[k] for k in space))
    changed: Array = np.stack([BASELINES[word](image) for image in images])
    return np.moveaxis(changed.reshape(arranged.shape), last, space)


def baselines(baseline: Baseline, x: Inputs) -> dict[str, Array]:
    """Return where each input begins, in its own shape and dtype.

    Args:
        baseline: the option of ``integrated_gradients``; one value is that of the first input, and 0 of all others.
        x: the inputs that move.

    Raises:
        MethodError: a baseline is not finite, or does not broadcast to its input.
    """
    named = baseline if isinstance(baseline, Mapping) else {next(iter(x)): baseline}
    return {name: baseline_of(named.get(name, 0.0), each) for name, each in x.items()}


def baseline_of(baseline: BaselineOf, x: Array) -> Array:
    """Return a baseline in the shape and dtype of ``x``.

    Raises ``MethodError`` for a baseline that is not finite, or does not broadcast to ``x``.
    """
    try:
        values = np.broadcast_to(np.asarray(baseline, x.dtype), x.shape)
    except (TypeError, ValueError) as error:
        raise MethodError(
            f"this baseline does not fit an input of shape {x.shape}: {error}",
            hint=f"a number, 'mean', 'blur', an array that broadcasts to the input, {{input name: one of these}}, or "
            f"{FIXED!r} there",
            baseline=baseline,
        ) from None
    if not np.isfinite(values).all():
        raise MethodError("the baseline holds NaN or infinity", hint="finite numbers", baseline=baseline)
    return values


def _means(pieces: Iterable[Inputs]) -> dict[str, Array]:
    """Return for each input the mean over the first axis of all pieces, float32; it is summed in float64."""
    totals: dict[str, Any] = {}
    count = 0
    for piece in pieces:
        for name, gradients in piece.items():
            totals[name] = totals.get(name, 0.0) + gradients.sum(axis=0, dtype=np.float64)
        count += len(next(iter(piece.values())))
    return {name: np.asarray(total / count, np.float32) for name, total in totals.items()}
