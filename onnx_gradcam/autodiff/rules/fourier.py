"""Rules of Fourier transforms, whose numbers have a real and an imaginary part along the last axis."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_gradcam.autodiff.registry import Unwritten, vjp
from onnx_gradcam.autodiff.rules.axes import dims, length, pad, pad_at_run_time, positions, vector
from onnx_gradcam.autodiff.rules.elementwise import indicator
from onnx_gradcam.graph.builder import Builder, Value, ints_of, rank
from onnx_gradcam.graph.constants import constant


@vjp("DFT", wrt=0)
def dft(
    op: Builder,
    g: Value,
    y: Value,
    input: Value,
    dft_length: Value | None = None,
    axis: Value | int | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Value:
    """y = F x over N places:  x̄ = Fᴴ g, that is N · the inverse transform of g (or, of an inverse one, F g / N).

    Where y is half a spectrum, g has zeros in place of the other half, and x̄ is the real part of the transform. Where
    real numbers are made from half a spectrum, x̄ is F g at the places of that half, doubled where one stands for two.
    """
    along = _axis(op, axis, rank(input))
    n = dft_length
    if n is None:
        whole = input if onesided and not inverse else y
        size = dims(whole)[along]
        n = op.array(np.array(size)) if isinstance(size, int) else op.Squeeze(vector(op, [size]), op.ints(0))
    count = op.Cast(n, to=g.dtype)
    if onesided and inverse:
        z = _transform(op, g, n, along, inverse=0, onesided=1)
        z = op.Div(op.Mul(z, _weights(op, z, n, along)), count)
    else:
        z = _transform(op, g, n, along, inverse=1 - inverse, onesided=0)
        z = op.Div(z, count) if inverse else op.Mul(z, count)
    parts = dims(input)[-1]
    if parts != 2:  # real numbers, or what is known in the run only
        z = op.Slice(z, op.ints(0), vector(op, [parts]), op.ints(-1))
    return _fit(op, z, input, along)


def _axis(op: Builder, axis: Value | int | None, axes: int) -> int:
    """Return the axis; before opset 20 it is an attribute, with the default 1."""
    if axis is None:
        return 1 if op.opset < 20 else axes - 2
    if isinstance(axis, Value):
        known = ints_of(axis)
        if known is None:
            raise Unwritten("an axis that is not constant")
        (axis,) = known
    return axis % axes


def _transform(op: Builder, g: Value, n: Value, axis: int, inverse: int, onesided: int) -> Value:
    """Write the Fourier transform of ``g`` over ``n`` places along ``axis``."""
    form = {"inverse": inverse, "onesided": onesided}
    z = op.DFT(g, n, axis=axis, **form) if op.opset < 20 else op.DFT(g, n, op.array(np.array(axis)), **form)
    if z.shape is None:  # as onnx before opset 20 where N is not a constant
        z.shape = ir.Shape([None] * (rank(g) - 1) + [2])
    return z


def _weights(op: Builder, spectrum: Value, n: Value, axis: int) -> Value:
    """Write 2 for places that stand for two, 1 for the first place and for the one in the middle of N."""
    place = positions(op, dims(spectrum)[axis])
    alone = op.Equal(op.Mod(op.Mul(place, op.ints(2)), op.Cast(n, to=ir.DataType.INT64)), op.ints(0))
    weights = op.Sub(op.const(2, like=spectrum), indicator(op, alone, spectrum))
    return op.Unsqueeze(weights, op.ints(*range(1, rank(spectrum) - axis)))


def _fit(op: Builder, z: Value, x: Value, axis: int) -> Value:
    """Write ``z`` cut, or continued with zeros, to the length of x along ``axis``."""
    have, want = length(z, axis), length(x, axis)
    if have is not None and want is not None:
        return pad(op, z, {axis: (0, want - have)})
    size = vector(op, [dims(x)[axis]])
    missing = op.Max(op.Sub(size, vector(op, [dims(z)[axis]])), op.ints(0))
    return op.Slice(pad_at_run_time(op, z, axis, op.ints(0), missing), op.ints(0), size, op.ints(axis))


@vjp("STFT", wrt=0)
def stft(
    op: Builder,
    g: Value,
    y: Value,
    signal: Value,
    frame_step: Value,
    window: Value | None = None,
    frame_length: Value | None = None,
    *,
    onesided: int = 1,
) -> Value:
    """y = F (w · x) of frames that begin every s places:  x̄ = the frames w · Fᴴ g, added where they overlap.

    They are added by a ConvTranspose of stride s, whose kernel puts element t of a frame at place t.
    """
    step, size = _frames(frame_step, window, frame_length)
    frames = _pulled_frames(op, g, size)
    if window is not None:
        frames = op.Mul(frames, op.Unsqueeze(window, op.ints(1)))
    parts = _parts(signal)
    frames = op.Transpose(op.Slice(frames, op.ints(0), op.ints(parts), op.ints(-1)), perm=[0, 3, 2, 1])
    taps = op.const(np.tile(np.eye(size)[:, None], (parts, 1, 1)), like=g)
    lines = op.Reshape(frames, op.ints(0, parts * size, -1))
    added = op.ConvTranspose(lines, taps, strides=[step], group=parts)
    return _fit(op, op.Transpose(added, perm=[0, 2, 1]), signal, 1)


@vjp("STFT", wrt=2)
def stft_window(
    op: Builder,
    g: Value,
    y: Value,
    signal: Value,
    frame_step: Value,
    window: Value,
    frame_length: Value | None = None,
    *,
    onesided: int = 1,
) -> Value:
    """w̄ = Σ x · Fᴴ g, place by place over all frames of the signal, real and imaginary parts."""
    step, size = _frames(frame_step, window, frame_length)
    starts = op.Mul(op.Unsqueeze(positions(op, dims(y)[1]), op.ints(1)), op.ints(step))
    signals = op.Gather(signal, op.Add(starts, op.ints(*range(size))), axis=1)
    pulled = op.Slice(_pulled_frames(op, g, size), op.ints(0), op.ints(_parts(signal)), op.ints(-1))
    return op.ReduceSum(op.Mul(signals, pulled), op.ints(0, 1, 3), keepdims=0)


def _parts(signal: Value) -> int:
    """Return 1 for real numbers, 2 for complex ones."""
    parts = length(signal, -1)
    if parts is None:
        raise Unwritten("a signal of which it is not known whether it is real or complex")
    return parts


def _frames(frame_step: Value, window: Value | None, frame_length: Value | None) -> tuple[int, int]:
    """Return the step and the length of the frames of an STFT."""
    step, width = constant(frame_step), constant(frame_length)
    size = length(window, 0) if width is None and window is not None else None if width is None else int(width)
    if step is None or size is None:
        raise Unwritten("a frame length or step that is not constant")
    return int(step), size


def _pulled_frames(op: Builder, g: Value, size: int) -> Value:
    """Write Fᴴ g for each frame."""
    return op.Mul(_transform(op, g, op.array(np.array(size)), 2, inverse=1, onesided=0), op.const(size, like=g))
