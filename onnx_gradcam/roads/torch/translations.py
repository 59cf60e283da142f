"""ATen's backward operators that torch's exporter has no ONNX form of, written in ONNX.

Each is the translation of one ATen operator and has its arguments. ``n`` spatial axes follow (N, C).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnxscript import opset18 as op

aten = torch.ops.aten


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

    The gradients of weight and bias, which no explanation reads, are placeholders: a translation gives every output.
    """
    if output_mask[1]:
        raise NotImplementedError("the target layer reaches the weights of a convolution, and not its input only")
    form = {"strides": _each(stride, x), "dilations": _each(dilation, x), "group": groups}
    pads = _each(padding, x)
    if transposed:
        found = _fit(op.Conv(g, weight, pads=[*pads, *pads], **form), x, [0] * len(pads))
    else:
        found = _fit(op.ConvTranspose(g, weight, **form), x, pads)
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
    rows = _ints([0, 0, -1])
    flat = op.Reshape(x, rows)
    zeros = op.Mul(flat, op.CastLike(0.0, flat))
    summed = op.ScatterElements(zeros, op.Reshape(indices, rows), op.Reshape(g, rows), axis=2, reduction="add")
    return op.Reshape(summed, op.Shape(x))


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
    kernel, pads = _each(kernel_size, x), _each(padding, x)
    strides = _each(stride, x) if stride else kernel
    ones = op.CastLike(op.Expand(1.0, _ints([1, 1, *kernel])), g)
    if divisor_override:
        count = op.CastLike(float(divisor_override), g)
    else:
        count = _counted(g, x, ones, strides, pads, count_include_pad)
    share = _one_channel(op.Div(g, count))
    return op.Reshape(_fit(op.ConvTranspose(share, ones, strides=strides), _one_channel(x), pads), op.Shape(x))


def adaptive_avg_pool_backward(g: Any, x: Any) -> Any:
    """x̄ = (A₁ᵀ ⊗ … ⊗ Aₙᵀ) g, A_k(o, i) = 1/n(o) where i is in bin o: ⌊o·I/O⌋ ≤ i < ⌈(o+1)·I/O⌉."""
    found = g
    for axis in range(2, len(x.shape)):
        found = _swap(op.MatMul(_swap(found, axis, g), _bins(g, x, axis)), axis, g)
    return found


def _counted(g: Any, x: Any, ones: Any, strides: Sequence[int], pads: Sequence[int], with_pads: bool) -> Any:
    """How many places each window counts, (1, 1, *space of g): those of x, and of its pads where they count."""
    n = len(pads)
    space = op.Slice(op.Shape(x), _ints([2]), _ints([2 + n]))
    inside = op.CastLike(op.Expand(1.0, op.Concat(_ints([1, 1]), space, axis=0)), g)
    padded = op.Pad(inside, _ints([0, 0, *pads, 0, 0, *pads]), op.CastLike(float(with_pads), g))
    reached = op.ConvTranspose(op.CastLike(op.Expand(1.0, _sizes_of_one(g, n)), g), ones, strides=strides)
    return op.Conv(_fit(padded, reached, [0] * n), ones, strides=strides)


def _sizes_of_one(x: Any, n: int) -> Any:
    """The shape of ``x`` with one image and one channel."""
    return op.Concat(_ints([1, 1]), op.Slice(op.Shape(x), _ints([2]), _ints([2 + n])), axis=0)


def _bins(g: Any, x: Any, axis: int) -> Any:
    """A (O, I) of one axis."""
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
    """``axis`` and the last one exchanged."""
    order = list(range(len(like.shape)))
    order[axis], order[-1] = order[-1], order[axis]
    return op.Transpose(value, perm=order)


def _one_channel(value: Any) -> Any:
    """(N, C, *space) as (N·C, 1, *space)."""
    space = op.Slice(op.Shape(value), _ints([2]), _ints([len(value.shape)]))
    return op.Reshape(value, op.Concat(_ints([-1, 1]), space, axis=0))


def _fit(value: Any, like: Any, begin: Sequence[int]) -> Any:
    """``value`` without its first ``begin`` places, and cut or filled with zeros at the end to the size of ``like``."""
    n = len(begin)
    sizes = [op.Slice(op.Shape(v), _ints([2]), _ints([2 + n])) for v in (like, value)]
    end = op.Add(op.Sub(*sizes), _ints(begin))
    return op.Pad(value, op.Concat(_ints([0, 0, *(-b for b in begin), 0, 0]), end, axis=0))


def _each(numbers: int | Sequence[int], x: Any) -> list[int]:
    """One number for each spatial axis."""
    given = [numbers] if isinstance(numbers, int) else list(numbers)
    return given * (len(x.shape) - 2) if len(given) == 1 else given


def _ints(numbers: Sequence[int]) -> Any:
    return op.Constant(value_ints=list(numbers))


TRANSLATIONS: Mapping[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: convolution_backward,
    aten.max_pool2d_with_indices_backward.default: max_pool_backward,
    aten.avg_pool2d_backward.default: avg_pool_backward,
    aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool_backward,
}
