"""ATen's backward operators that torch's exporter has no ONNX form of, written in ONNX.

Each translates one ATen operator in two or three dimensions, and has its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnxscript import opset18 as op

aten = torch.ops.aten
LAST = 2**63 - 1  # as the end of a slice: of the axis


def convolution_backward(
    g: Any,
    x: Any,
    weight: Any,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Any, Any, Any]:
    """y = x ⋆ W:  x̄ = ConvTranspose(g, W), and of a transposed convolution x̄ = g ⋆ W, cropped to the size of x.

    The gradients of weight and bias are placeholders, since a translation gives every output: ``joint`` refuses a graph
    that reads them.
    """
    form = {"strides": stride, "dilations": dilation, "group": groups}
    if transposed:
        found = _fit(op.Conv(g, weight, pads=[*padding, *padding], **form), x, [0] * len(padding))
    else:
        found = _fit(op.ConvTranspose(g, weight, **form), x, padding)
    return found, op.Identity(weight), op.Identity(weight)


def max_pool_backward(
    g: Any,
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Any,
) -> Any:
    """x̄(i) = Σ g(o) over the windows o whose maximum is at i; ``indices`` count within one channel."""
    n = len(kernel_size)
    flat, at, shares = (op.Reshape(op.Reshape(v, _one_channel(v, n)), _ints([0, -1])) for v in (x, indices, g))
    zeros = op.Mul(flat, op.CastLike(0.0, flat))
    return op.Reshape(op.ScatterElements(zeros, at, shares, axis=1, reduction="add"), op.Shape(x))


def avg_pool_backward(
    g: Any,
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> Any:
    """x̄(i) = Σ g(o)/n(o) over the windows o around i, n the number of places that are counted in o."""
    n, strides = len(kernel_size), stride or kernel_size
    ones = op.CastLike(op.Expand(1.0, _ints([1, 1, *kernel_size])), g)
    if divisor_override:
        count = op.CastLike(float(divisor_override), g)
    else:
        count = _counted(g, x, ones, strides, padding, count_include_pad)
    share = op.Reshape(op.Div(g, count), _one_channel(g, n))
    spread = op.ConvTranspose(share, ones, strides=strides)
    return op.Reshape(_fit(spread, op.Reshape(x, _one_channel(x, n)), padding), op.Shape(x))


def adaptive_avg_pool_backward(g: Any, x: Any) -> Any:
    """x̄ = (A₁ᵀ ⊗ … ⊗ Aₙᵀ) g, A_k(o, i) = 1/n(o) where i is in bin o: ⌊o·I/O⌋ ≤ i < ⌈(o+1)·I/O⌉."""
    found = g
    for axis in range(2, len(x.shape)):
        found = _swap(op.MatMul(_swap(found, axis, g), _bins(g, x, axis)), axis, g)
    return found


def _counted(g: Any, x: Any, ones: Any, strides: Sequence[int], pads: Sequence[int], with_pads: bool) -> Any:
    """Return how many elements each window counts, (1, 1, *space of g): those of x, and its pads where they count."""
    n = len(pads)
    inside, windows = (op.CastLike(op.Expand(1.0, op.Concat(_ints([1, 1]), _space(v, n), axis=0)), g) for v in (x, g))
    padded = op.Pad(inside, _ints([0, 0, *pads, 0, 0, *pads]), op.CastLike(float(with_pads), g))
    reached = op.ConvTranspose(windows, ones, strides=strides)
    return op.Conv(_fit(padded, reached, [0] * n), ones, strides=strides)


def _bins(g: Any, x: Any, axis: int) -> Any:
    """Return the matrix A (O, I) of one axis."""
    sizes = [op.Squeeze(op.Slice(op.Shape(v), _ints([axis]), _ints([axis + 1]))) for v in (g, x)]
    outer, inner = sizes
    one = op.Constant(value_int=1)
    o = op.Unsqueeze(op.Range(op.Constant(value_int=0), outer, one), _ints([1]))
    i = op.Unsqueeze(op.Range(op.Constant(value_int=0), inner, one), _ints([0]))
    begin = op.Div(op.Mul(o, inner), outer)
    end = op.Div(op.Sub(op.Add(op.Mul(op.Add(o, one), inner), outer), one), outer)
    is_inside = op.And(op.GreaterOrEqual(i, begin), op.Less(i, end))
    return op.Div(op.CastLike(is_inside, g), op.CastLike(op.Sub(end, begin), g))


def _swap(value: Any, axis: int, like: Any) -> Any:
    """Return ``value`` with ``axis`` and the last axis exchanged."""
    order = list(range(len(like.shape)))
    order[axis], order[-1] = order[-1], order[axis]
    return op.Transpose(value, perm=order)


def _one_channel(value: Any, n: int) -> Any:
    """Return the shape (N·C, 1, *space) of ``value``."""
    return op.Concat(_ints([-1, 1]), _space(value, n), axis=0)


def _space(value: Any, n: int) -> Any:
    """Return the sizes of the last ``n`` axes."""
    return op.Slice(op.Shape(value), _ints([-n]), _ints([LAST]))


def _fit(value: Any, like: Any, begin: Sequence[int]) -> Any:
    """Return ``value`` from ``begin`` on, cut or filled with zeros at the end to the size of ``like``."""
    n = len(begin)
    end = op.Add(_space(like, n), _ints(begin))
    missing = op.Max(op.Sub(end, _space(value, n)), _ints([0]))
    filled = op.Pad(value, op.Concat(_ints([0] * (n + 4)), missing, axis=0))
    return op.Slice(filled, _ints(begin), end, _ints(range(2, n + 2)))


def _ints(numbers: Sequence[int]) -> Any:
    return op.Constant(value_ints=list(numbers))


TRANSLATIONS: Mapping[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: convolution_backward,
    aten.max_pool2d_with_indices_backward.default: max_pool_backward,
    aten.max_pool3d_with_indices_backward.default: max_pool_backward,
    aten.avg_pool2d_backward.default: avg_pool_backward,
    aten.avg_pool3d_backward.default: avg_pool_backward,
    aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool_backward,
}
