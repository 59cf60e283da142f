"""What a model file tells of the numbers that its image input takes, and which preset gives such numbers. Pure data."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.photos.preprocess.presets import PRESETS, Preprocess

Floats = NDArray[np.float64]
STRIDE = 32
"""That of most networks."""
TENSORFLOW, CAFFE = "TensorFlow", "Caffe"
FORMS = ("zero-one", "tf", "imagenet", "imagenet-caffe", "raw")
"""The presets whose numbers differ."""
PHOTO = (0.45, 0.26)
"""Mean and deviation of the pixels of photos, in units of 255."""
SAME_RANGE = 0.2
"""By how much of its width two ranges may differ at their ends, together, and be taken for the same."""
ALIKE = 1.0
"""How far numbers may be from those of a preset: ln of the ratio of deviations plus the distance of means in widths."""
LARGE = 40.0
"""The first convolution of a model whose input is standardised expects numbers of deviation 0.1 to 23; of 0..255, 57
or more, as 25 deployed models show."""
SURE = 3.0
"""Standard errors by which a mean must be off to be ruled out."""


@dataclass(frozen=True)
class Evidence:
    """What a model file tells of the numbers in its image input; None or "" for what it does not.

    Attributes:
        framework: ``TENSORFLOW`` or ``CAFFE``.
        origin: by what the framework is known.
        architecture: the names of the first nodes, in lower case.
        scale, shift: what the graph does to each channel of the input before anything else: x · scale + shift.
        stored: the range of the integers as which the input is stored.
        trained: mean and deviation of the numbers on which the first BatchNormalization was trained.
        expected: the deviation that the first convolution expects, where a BatchNormalization was folded into it.
        centre: the mean that its biases stand for, and the standard error.
        stride: by how much its coarsest grid is coarser than the input.
    """

    framework: str = ""
    origin: str = ""
    architecture: str = ""
    scale: Sequence[float] | None = None
    shift: Sequence[float] | None = None
    stored: tuple[float, float] | None = None
    trained: tuple[float, float] | None = None
    expected: float | None = None
    centre: tuple[float, float] | None = None
    stride: int = STRIDE


class InputNumbers(NamedTuple):
    """The numbers that an input takes: as a preset gives them, and why that is thought."""

    preset: str
    numbers: Preprocess
    reason: str


NO_EVIDENCE = Evidence()


def values_of(evidence: Evidence, by_names: bool = True) -> InputNumbers | None:
    """Return which numbers an input takes, by the strongest thing that is known of it; None where nothing tells.

    Args:
        evidence: what the model file tells.
        by_names: whether the framework and the names of layers count, and what may have two reasons, where the graph
            tells nothing that is sure.
    """
    finders = (*MEASURED, _stored_evenly, _named) if by_names else MEASURED
    return next((values for find in finders if (values := find(evidence)) is not None), None)


# --- what the graph itself does ---------------------------------------------------------------------------------------


def _stored(evidence: Evidence) -> InputNumbers | None:
    """Return the preset whose range is the one that the integers of the input stand for."""
    if evidence.stored is None:
        return None
    low, high = evidence.stored
    if -low >= high:  # the same on both sides of zero: only how far it reaches says something
        widths = {name: float(_ends(name)[1].max()) for name in FORMS if name not in ("zero-one", "tf")}
        name = min(widths, key=lambda k: abs(widths[k] - high))
        fits = abs(widths[name] - high) <= SAME_RANGE / 2 * widths[name]
    else:
        differences = {name: _difference(_whole(name), (low, high)) for name in FORMS}
        name = min(differences, key=lambda k: differences[k])
        fits = differences[name] <= SAME_RANGE
    return _values(name, _range_of(evidence.stored)) if fits else None


def _range_of(stored: tuple[float, float]) -> str:
    return f"the model stores its input as integers for {stored[0]:.3g} to {stored[1]:.3g}"


def _stored_evenly(evidence: Evidence) -> InputNumbers | None:
    """Return −1 to 1 where the input is stored for that: 0 to 1 may be stored so as well, where zero must stay zero."""
    if evidence.stored is None or _difference(_whole("tf"), evidence.stored) > SAME_RANGE:
        return None
    return _values("tf", _range_of(evidence.stored))


def _standardised(evidence: Evidence) -> InputNumbers | None:
    """Return the preset whose numbers the graph turns into those of another preset by its own constants."""
    if evidence.scale is None or evidence.shift is None:
        return None
    scale, shift = np.array(evidence.scale), np.array(evidence.shift)
    costs: dict[tuple[str, str, bool], float] = {}
    for given, to, flip in itertools.product(FORMS, FORMS, (False, True)):
        if given != to:
            computed = np.sort(_ends(given, len(scale), flip) * scale + shift, axis=0)
            costs[given, to, flip] = _difference(_ends(to, len(scale), flip), computed)
    best = min(costs, key=lambda k: costs[k])
    if costs[best] > SAME_RANGE:
        return None
    given, to, flip = best
    values = _values(given, f"the graph itself computes x · {_brief(scale)} + {_brief(shift)} first")
    by_channel = next((PRESETS[name].channels for name in (to, given) if len({*PRESETS[name].mean}) > 1), None)
    if by_channel is None or len(scale) != 3:
        return values
    return values._replace(numbers=_in_order(values.numbers, by_channel[::-1] if flip else by_channel))


def _in_order(preset: Preprocess, channels: str) -> Preprocess:
    """Return a preset for another order of the channels."""
    if channels == preset.channels:
        return preset
    return replace(preset, channels=channels, mean=preset.mean[::-1], std=preset.std[::-1])


def _trained(evidence: Evidence) -> InputNumbers | None:
    """Return the preset whose numbers are nearest to those that the first BatchNormalization saw."""
    if evidence.trained is None:
        return None
    mean, deviation = evidence.trained
    if not deviation > 0:
        return None
    reason = f"its first BatchNormalization was trained on numbers of about {mean:.3g} ± {deviation:.2g}"
    distances = {name: _distance(name, mean, deviation) for name in FORMS}
    name = min(distances, key=lambda k: distances[k])
    if distances[name] <= ALIKE:
        return _values(name, reason)
    factor = PHOTO[1] / deviation
    numbers = replace(PRESETS["zero-one"], mean=(PHOTO[0] - mean * factor,) * 3, std=(factor,) * 3)
    return InputNumbers("zero-one", numbers, f"no preset gives such numbers, and mean and std are set to: {reason}")


def _distance(name: str, mean: float, deviation: float) -> float:
    """Return how far mean and deviation are from those of photos under a preset; infinite where they cannot be."""
    low, high = _whole(name)
    width = high - low
    if not low - SAME_RANGE * width <= mean <= high + SAME_RANGE * width:
        return float("inf")
    middle, spread = low + PHOTO[0] * width, PHOTO[1] * width
    return float(abs(np.log(deviation / spread)) + abs(mean - middle) / width)


def _folded(evidence: Evidence) -> InputNumbers | None:
    """Return raw pixels, or pixels minus their mean, where the first convolution has weights as small as these need."""
    if evidence.expected is None or evidence.expected < LARGE:
        return None
    reason = f"its first convolution expects numbers of about ± {evidence.expected:.2g}"
    if evidence.centre is not None:
        centre, error = evidence.centre
        if abs(centre - 255 * PHOTO[0]) > SURE * error and abs(centre) <= SURE * error:
            return _values("imagenet-caffe", f"{reason} around zero, as Caffe's models do")
    return _values("raw", reason)


# --- what its names say -----------------------------------------------------------------------------------------------

APPLICATIONS = (
    (re.compile(r"vgg_?1[69]|resnet_?(50|101|152)(?!_?v2)"), "imagenet-caffe"),
    (re.compile(r"densenet_?\d+"), "imagenet"),
)
"""The models of keras.applications that take other numbers than −1 to 1 and do not compute them by themselves."""


def _named(evidence: Evidence) -> InputNumbers | None:
    if evidence.framework == CAFFE:
        return _values("imagenet-caffe", f"as Caffe's models take it, {evidence.origin}")
    if evidence.framework != TENSORFLOW:
        return None
    for pattern, name in APPLICATIONS:
        if (match := pattern.search(evidence.architecture)) is not None:
            return _values(name, f"as keras.applications prepares {match[0]}, {evidence.origin}")
    return _values("tf", f"as most models of TensorFlow take it, {evidence.origin}")


MEASURED: tuple[Callable[[Evidence], InputNumbers | None], ...] = (_stored, _standardised, _trained, _folded)


# --- presets as ranges ------------------------------------------------------------------------------------------------


def _values(name: str, reason: str) -> InputNumbers:
    return InputNumbers(name, PRESETS[name], reason)


def _ends(name: str, count: int = 3, flip: bool = False) -> Floats:
    """Return what black and white become under a preset, (2, channels); the channels in the other order to flip."""
    preset = PRESETS[name]
    mean, std = np.array(preset.mean), np.array(preset.std)
    ends = (np.outer((0.0, 255 * preset.scale), np.ones(3)) - mean) / std
    ends = ends[:, ::-1] if flip else ends
    return ends if count == 3 else np.repeat(ends.mean(axis=1, keepdims=True), count, axis=1)


def _whole(name: str) -> tuple[float, float]:
    low, high = _ends(name)
    return float(low.min()), float(high.max())


def _difference(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> float:
    """Return by how much two ranges differ at their ends, in widths of the first; of channels the largest."""
    (low, high), (other_low, other_high) = np.asarray(a), np.asarray(b)
    return float(np.max((abs(low - other_low) + abs(high - other_high)) / (high - low)))


def _brief(numbers: Floats) -> str:
    shown = [f"{v:.4g}" for v in numbers]
    return shown[0] if len({*shown}) == 1 else f"({', '.join(shown)})"
