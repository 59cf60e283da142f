"""Operators that move elements or number places."""

from __future__ import annotations

import numpy as np
from onnx.reference.op_run import OpRun


class Pad(OpRun):
    """Negative amounts take away before the others add, as in onnxruntime."""

    op_domain = ""

    def _run(self, data, pads, constant_value=None, axes=None, mode=None):  # type: ignore[no-untyped-def]
        along = list(range(data.ndim) if axes is None else axes)
        added, kept = [(0, 0)] * data.ndim, [slice(None)] * data.ndim
        for axis, before, after in zip(along, pads[: len(along)], pads[len(along) :], strict=True):
            added[axis] = (max(before, 0), max(after, 0))
            kept[axis] = slice(max(-before, 0), min(after, 0) or None)
        fill = {} if mode != "constant" or constant_value is None else {"constant_values": constant_value}
        return (np.pad(data[tuple(kept)], added, mode=mode, **fill),)


class GatherElements(OpRun):
    """The index may be shorter than the data along the other axes too, and may have more than 64 elements."""

    op_domain = ""

    def _run(self, data, indices, axis=None):  # type: ignore[no-untyped-def]
        axis = (axis or 0) % data.ndim
        within = tuple(slice(None) if k == axis else slice(n) for k, n in enumerate(indices.shape))
        return (np.take_along_axis(data[within], indices, axis),)


class MaxUnpool(OpRun):
    """The evaluator's own places elements per channel, and knows no output_shape."""

    op_domain = ""

    def _run(self, x, places, output_shape=None, kernel_shape=None, pads=None, strides=None):  # type: ignore[no-untyped-def]
        n = len(kernel_shape)
        pads, strides = pads or [0] * 2 * n, strides or [1] * n
        sizes = [
            (i - 1) * s + k - pads[j] - pads[n + j]
            for j, (i, s, k) in enumerate(zip(x.shape[2:], strides, kernel_shape, strict=True))
        ]
        y = np.zeros([*x.shape[:2], *sizes] if output_shape is None else output_shape, x.dtype)
        for place, element in zip(places.ravel(), x.ravel(), strict=True):
            y.flat[place] = element
        return (y,)


class AffineGrid(OpRun):
    """Point by point, in the dtype of θ; the evaluator's own rounds to float32."""

    op_domain = ""

    def _run(self, theta, size, align_corners=0):  # type: ignore[no-untyped-def]
        space = size[2:]
        y = np.zeros((len(theta), *space, len(space)), theta.dtype)
        for at in np.ndindex(*space):
            point = [
                i / (n - 1) * 2 - 1 if align_corners else (i + 0.5) / n * 2 - 1 for i, n in zip(at, space, strict=True)
            ]
            y[(slice(None), *at)] = theta @ [*reversed(point), 1]
        return (y,)


OPERATORS = (Pad, GatherElements, MaxUnpool, AffineGrid)
