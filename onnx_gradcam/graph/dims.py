"""Shapes of values as a reader should see them."""

from __future__ import annotations

import onnx_ir as ir

MADE_UP = "unk__"
"""How shape inference begins the names that it makes up."""


def named_dims(value: ir.Value) -> tuple[int | str, ...] | None:
    """Return the shape of a value: numbers, names that the model gives, and "?" for what nobody has named.

    None where not even the number of axes is known.
    """
    return None if value.shape is None else tuple(d if isinstance(d, int) else shown_dim(d) for d in value.shape)


def shown_dim(dim: ir.SymbolicDim) -> str:
    """Return the name of a dimension, or "?" where the model gives none."""
    return "?" if not dim.value or dim.value.startswith(MADE_UP) else dim.value


def shown_shape(value: ir.Value) -> str:
    """Return the shape of a value as text, such as "(N, 3, ?, ?)"; "(?)" where the number of axes is not known."""
    dims = named_dims(value)
    return "(?)" if dims is None else f"({', '.join(map(str, dims))})"
