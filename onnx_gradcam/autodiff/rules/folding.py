"""Rules of operators that put columns or single elements back into an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnx_gradcam.autodiff.registry import Unwritten, vjp
from onnx_gradcam.autodiff.rules.axes import dims, reshape, reshape_like
from onnx_gradcam.autodiff.rules.elementwise import indicator
from onnx_gradcam.graph.builder import Builder, Value, ints_of


@vjp("Col2Im", wrt=0)
def col2im(
    op: Builder,
    g: Value,
    y: Value,
    input: Value,
    image_shape: Value,
    block_shape: Value,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Every column is added to its block of the image:  x̄ takes the blocks of g, by a convolution with one-hot taps."""
    block = ints_of(block_shape)
    if block is None:
        raise Unwritten("a block_shape that is not constant")
    taps = math.prod(block)
    one_hot = op.const(np.eye(taps).reshape(taps, 1, *block), like=input)
    image = reshape(op, g, [-1, 1, *dims(y)[2:]])  # channels as images
    return reshape_like(op, op.Conv(image, one_hot, dilations=dilations, pads=pads, strides=strides), input)


@vjp("MaxUnpool", wrt=0)
def max_unpool(
    op: Builder,
    g: Value,
    y: Value,
    X: Value,
    I: Value,  # noqa: E741, as the specification has it
    output_shape: Value | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """y[index] = x, zeros elsewhere:  x̄ = g[index]; of elements with the same index the last one stands in y."""
    places, line = op.Reshape(I, op.ints(-1)), op.Reshape(g, op.ints(-1))
    zero, one = op.array(np.array(0)), op.array(np.array(1))
    numbers = op.Range(zero, op.Size(X), one)
    written = op.ScatterElements(op.Expand(op.ints(0), op.Shape(line)), places, numbers, axis=0)
    stands = indicator(op, op.Equal(op.Gather(written, places), numbers), like=g)
    return reshape_like(op, op.Mul(op.Gather(line, places), stands), X)
