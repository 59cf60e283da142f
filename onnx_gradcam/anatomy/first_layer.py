"""What the first layers of a network tell of the numbers that its image input takes.

Three things can be read off: by which constants the graph itself standardises its input, in which range it stores it as
integers, and on which numbers its first BatchNormalization was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_gradcam.anatomy.affine import Affine, InputChannel, normalisation, walk
from onnx_gradcam.graph.constants import constant
from onnx_gradcam.graph.quantization import real_range

Floats = NDArray[np.float64]
NEIGHBOUR = 0.95
"""The correlation of two pixels beside one another in a photo; it falls with their distance."""
COLOUR = 0.9
"""The correlation of two channels of one pixel."""
WINDOW = 1024  # pixels of the largest kernel whose response is computed


class Numbers(NamedTuple):
    """The mean and the deviation of numbers."""

    mean: float
    deviation: float


class Estimate(NamedTuple):
    """A number, and its standard error."""

    value: float
    error: float


@dataclass(frozen=True)
class FirstLayer:
    """What is known of the numbers in an image input, None for what is not.

    Attributes:
        scale, shift: what the graph does to each channel of the input before anything else: x · scale + shift. None
            where it does nothing.
        stored: the least and the greatest number that the integers hold as which the input is stored.
        trained: mean and deviation of the input's numbers that the first BatchNormalization saw in training.
        expected: the deviation of the input at which the first convolution gives numbers of deviation 1, as it does
            where a BatchNormalization has been folded into it.
        centre: the mean of the input at which the biases of that convolution are as they are.
    """

    scale: tuple[float, ...] | None = None
    shift: tuple[float, ...] | None = None
    stored: tuple[float, float] | None = None
    trained: Numbers | None = None
    expected: float | None = None
    centre: Estimate | None = None


def first_layer(graph: ir.Graph, image: ir.Value, axis: int) -> FirstLayer:
    """Return what the first layers tell of the numbers in an input.

    Args:
        graph: a prepared graph.
        image: the input that takes images.
        axis: the axis of its channels.
    """
    columns = walk(graph, image, axis)
    stored = next((r for v in quantized(columns, image) if (r := real_range(v)) is not None), None)
    entered = _entered(columns)
    if entered is None:
        return FirstLayer(stored=stored)
    scale, shift = _standardisation(columns[entered].columns)
    return replace(_told_by(entered, columns[entered]), stored=stored, scale=scale, shift=shift)


def quantized(columns: Mapping[ir.Value, Affine], image: ir.Value) -> list[ir.Value]:
    """Return the integers as which the numbers of the input are stored, before anything is computed with them."""
    stored = [v for v in columns if (n := v.producer()) is not None and n.op_type == "QuantizeLinear"]
    return [v for v in stored if all((c.scale, c.shift) == (1.0, 0.0) for c in columns[v].columns)]


def _entered(columns: Mapping[ir.Value, Affine]) -> ir.Value | None:
    """Return the value that the first convolution or BatchNormalization reads; else the last that is only scaled."""
    for value in columns:
        if any(n.op_type in ("Conv", "BatchNormalization") and n.inputs[0] is value for n in value.consumers()):
            return value
    return next(reversed(list(columns)), None)


def _standardisation(
    columns: tuple[InputChannel, ...],
) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """Return scale and shift of each channel of the input; (None, None) where it is left as it is."""
    channels = {c.source: c for c in columns}
    each = [channels[k] for k in sorted(channels)]
    if all((c.scale, c.shift) == (1.0, 0.0) for c in each) or any(c != channels[c.source] for c in columns):
        return None, None
    return tuple(c.scale for c in each), tuple(c.shift for c in each)


def _told_by(value: ir.Value, affine: Affine) -> FirstLayer:
    """Return what the convolution or the BatchNormalization that reads ``value`` tells of the input's numbers."""
    for node in value.consumers():
        if node.op_type == "BatchNormalization" and (arrays := normalisation(node)) is not None:
            own = Numbers(float(arrays.mean.mean()), float(np.sqrt(arrays.variance.mean())))
            return FirstLayer(trained=_before(affine, own))
        weights = constant(node.inputs[1]) if node.op_type == "Conv" and node.inputs[0] is value else None
        if weights is not None and weights.ndim == 4 and weights.shape[1] == len(affine.columns):
            return _told_by_convolution(node, np.asarray(weights, np.float64), affine)
    return FirstLayer()


def _told_by_convolution(node: ir.Node, weights: Floats, affine: Affine) -> FirstLayer:
    response, sums = responses(weights), weights.sum(axis=(1, 2, 3))
    if response is None or not np.median(response) > 0:
        return FirstLayer()
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    shifts = np.zeros(len(weights)) if bias is None else np.asarray(bias, np.float64)
    behind = [normalisation(n) for n in node.outputs[0].consumers() if n.op_type == "BatchNormalization"]
    if behind and behind[0] is not None:
        spread = np.sqrt(behind[0].variance.clip(np.finfo(np.float64).tiny))
        centre, _ = line(sums / spread, (behind[0].mean - shifts) / spread)
        return FirstLayer(trained=_before(affine, Numbers(centre, float(np.median(spread / response)))))
    scale = float(np.mean([abs(c.scale) for c in affine.columns]))
    expected = float(1 / np.median(response) / scale)
    kept = response > 0.05 * np.median(response)  # the others are dead
    if bias is None or kept.sum() < 3 or any(c.shift for c in affine.columns):
        return FirstLayer(expected=expected)
    ones = 1 / response[kept]
    return FirstLayer(expected=expected, centre=_centre(sums[kept] * ones, shifts[kept] * ones, ones, scale))


def responses(weights: Floats) -> Floats | None:
    """Return the deviation of what each kernel (O, C, h, w) gives for photos of deviation 1; None for huge kernels."""
    outputs, channels, height, width = weights.shape
    if height * width > WINDOW:
        return None
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    near = NEIGHBOUR ** np.hypot(y[:, None] - y, x[:, None] - x)
    colours = np.full((channels, channels), COLOUR) + (1 - COLOUR) * np.eye(channels)
    flat = weights.reshape(outputs, channels, -1)
    return np.asarray(np.sqrt(np.einsum("ocp,ocp->o", flat, np.einsum("cd,odp->ocp", colours, flat @ near)).clip(0)))


def line(x: Floats, y: Floats) -> tuple[float, float]:
    """Return the factor by which ``y`` follows ``x``, through the origin, and its standard error."""
    power = float(x @ x) or 1.0
    factor = float(x @ y) / power
    return factor, float(np.sqrt(np.sum((y - factor * x) ** 2) / max(len(x) - 1, 1) / power))


def _centre(sums: Floats, shifts: Floats, ones: Floats, scale: float) -> Estimate:
    """Return the mean m of the input where biases are β − sum · m, with the same β for all."""
    spread = ones - ones * (ones @ sums) / (sums @ sums or 1.0)
    common = float(shifts @ spread) / (float(ones @ spread) or 1.0)
    factor, error = line(sums, shifts - common * ones)
    return Estimate(float(-factor / scale), float(error / scale))


def _before(affine: Affine, numbers: Numbers) -> Numbers:
    """Return mean and deviation of the input's numbers, from those of what the graph makes of them first."""
    scale = float(np.mean([c.scale for c in affine.columns])) or 1.0
    shift = float(np.mean([c.shift for c in affine.columns]))
    return Numbers((numbers.mean - shift) / scale, numbers.deviation / abs(scale))
