"""Read a tensor between its elements: every place takes the weighted elements around it.

It reads Σ x[i₀, i₁, …] · w₀ · w₁ · …, over one tap (i, w) of each axis. The transpose adds at these places.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_gradcam.autodiff.rules.axes import Dim, reshape_like, vector
from onnx_gradcam.autodiff.rules.elementwise import indicator
from onnx_gradcam.autodiff.rules.scatter import put_elements
from onnx_gradcam.graph.builder import HALF_PRECISION, Builder, Value


@dataclass(frozen=True)
class Tap:
    """What places (N, L) read along one axis.

    Attributes:
        index: the number of the element.
        weight: its weight.
        slope: how the weight changes with the place, None where it does not.
    """

    index: Value
    weight: Value
    slope: Value | None


def widen(op: Builder, value: Value) -> Value:
    """Write half precision as float32: places need it, and so does onnxruntime's addition at places."""
    return op.Cast(value, to=ir.DataType.FLOAT) if value.dtype in HALF_PRECISION else value


def narrow(op: Builder, value: Value, like: Value) -> Value:
    """Write ``value`` in the dtype of ``like``."""
    return op.Cast(value, to=like.dtype) if like.dtype in HALF_PRECISION else value


def as_float(op: Builder, size: Dim, like: Value) -> Value:
    """Write a length as a scalar of the dtype of ``like``."""
    if isinstance(size, int):
        return op.const(size, like=like)
    return op.Cast(op.Squeeze(vector(op, [size]), op.ints(0)), to=like.dtype)


def tap(op: Builder, index: Value, weight: Value, slope: Value | None, size: Value, *, outside: bool) -> Tap:
    """Return a tap at a whole number; beyond the axis it reads the last element, or nothing.

    Args:
        op: writes the nodes.
        index: the number of the element for each place (N, L), as floating-point numbers.
        weight: its weight.
        slope: how the weight changes with the place.
        size: the length of the axis, a scalar.
        outside: whether elements beyond the axis count as the last one.
    """
    last = op.Sub(size, op.const(1, like=index))
    inside = op.Clip(index, op.const(0, like=index), last)
    if not outside:
        hit = indicator(op, op.Equal(index, inside), like=index)
        weight = op.Mul(weight, hit)
        slope = slope if slope is None else op.Mul(slope, hit)
    return Tap(op.Cast(inside, to=ir.DataType.INT64), weight, slope)


def linear(op: Builder, place: Value, size: Value, *, outside: bool) -> list[Tap]:
    """Return taps at the two elements around each place; the parameters are those of ``tap``."""
    low, one = op.Floor(place), op.const(1, like=place)
    t = op.Sub(place, low)
    return [
        tap(op, low, op.Sub(one, t), op.Neg(one), size, outside=outside),
        tap(op, op.Add(low, one), t, one, size, outside=outside),
    ]


@dataclass(frozen=True)
class Samples:
    """Places in a tensor: the taps along each axis, and the lengths of the axes."""

    axes: Sequence[Sequence[Tap]]
    sizes: Sequence[Dim]

    def each(self, op: Builder) -> Iterator[tuple[Value, tuple[Tap, ...]]]:
        """Yield every choice of one tap for each axis, with the row-major number of the element (N, 1, L)."""
        for taps in itertools.product(*self.axes):
            flat = taps[0].index
            for size, other in zip(self.sizes[1:], taps[1:], strict=True):
                flat = op.Add(op.Mul(flat, vector(op, [size])), other.index)
            yield op.Unsqueeze(flat, op.ints(1)), taps

    def add_back(self, op: Builder, g: Value, x: Value) -> Value:
        """Write the cotangent of ``x``; ``g`` (N, C, L) is the cotangent of the values that the places read."""
        wide = widen(op, g)
        shape = op.Shape(wide)
        elements = functools.reduce(op.Mul, [vector(op, [size]) for size in self.sizes])
        size = op.Concat(op.Slice(shape, op.ints(0), op.ints(2)), elements, axis=0)
        total = op.Expand(op.const(0, like=wide), size)
        for index, taps in self.each(op):
            share = op.Mul(wide, op.Unsqueeze(_product(op, [t.weight for t in taps]), op.ints(1)))
            total = put_elements(op, total, op.Expand(index, shape), share, 2, "add")
        return reshape_like(op, narrow(op, total, x), x)

    def read(self, op: Builder, x: Value, shape: Value) -> Iterator[tuple[Value, tuple[Tap, ...]]]:
        """Yield the elements of ``x`` (N, C, elements) for every choice of taps, in the ``shape`` (N, C, L)."""
        for index, taps in self.each(op):
            yield op.GatherElements(x, op.Expand(index, shape), axis=2), taps

    def values(self, op: Builder, x: Value, shape: Value) -> Value:
        """Write what the places read (N, C, L) of ``x`` (N, C, elements)."""
        parts = [
            op.Mul(elements, op.Unsqueeze(_product(op, [t.weight for t in taps]), op.ints(1)))
            for elements, taps in self.read(op, x, shape)
        ]
        return functools.reduce(op.Add, parts)

    def slopes(self, op: Builder, g: Value, x: Value) -> list[Value]:
        """Write the cotangents (N, L) of the places along each axis; ``x`` is (N, C, elements), ``g`` (N, C, L)."""
        sums: list[list[Value]] = [[] for _ in self.axes]
        for elements, taps in self.read(op, x, op.Shape(g)):
            agreement = op.ReduceSum(op.Mul(g, elements), op.ints(1), keepdims=0)
            for k, tap_ in enumerate(taps):
                if tap_.slope is not None:
                    others = [t.weight for j, t in enumerate(taps) if j != k]
                    sums[k].append(op.Mul(agreement, _product(op, [tap_.slope, *others])))
        return [functools.reduce(op.Add, parts) for parts in sums]


def _product(op: Builder, factors: Sequence[Value]) -> Value:
    return functools.reduce(op.Mul, factors)
