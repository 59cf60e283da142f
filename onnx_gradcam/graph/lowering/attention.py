"""Attention of com.microsoft, and its rotary embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_gradcam.graph.builder import Builder, Value, rank, same_dim
from onnx_gradcam.graph.lowering.activation import multiply
from onnx_gradcam.graph.lowering.registry import MICROSOFT, Unlowered, lowering
from onnx_gradcam.graph.ranges import Trust, range_of

FILTER = -10000.0  # is added where a key is masked


@lowering("Attention", domain=MICROSOFT)
def attention(
    op: Builder,
    input: Value,
    weights: Value,
    bias: Value | None = None,
    mask_index: Value | None = None,
    past: Value | None = None,
    attention_bias: Value | None = None,
    past_sequence_length: Value | None = None,
    *,
    num_heads: int,
    qkv_hidden_sizes: Sequence[int] | None = None,
    mask_filter_value: float = FILTER,
    scale: float = 0.0,
    unidirectional: int = 0,
    do_rotary: int = 0,
) -> tuple[Value | None, ...]:
    """y = Softmax(s · Q·Kᵀ + mask) · V, where Q, K and V are parts of x·W + b."""
    if past is not None or do_rotary:
        raise Unlowered("no VJP rule for a past state or rotary embedding")
    qkv = op.MatMul(input, weights)
    q, k, v = _parts(op, qkv if bias is None else op.Add(qkv, bias), qkv_hidden_sizes)
    q, k, v = (_heads(op, x, num_heads) for x in (q, k, v))
    added = _masks(op, q, k, mask_index, attention_bias, mask_filter_value, unidirectional)
    return _side_by_side(op, _attend(op, q, k, v, scale, added)[0]), None


@lowering("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(
    op: Builder,
    query: Value,
    key: Value | None = None,
    value: Value | None = None,
    bias: Value | None = None,
    key_padding_mask: Value | None = None,
    attention_bias: Value | None = None,
    past_key: Value | None = None,
    past_value: Value | None = None,
    past_sequence_length: Value | None = None,
    cache_indirection: Value | None = None,
    *,
    num_heads: int,
    mask_filter_value: float = FILTER,
    scale: float = 0.0,
    unidirectional: int = 0,
) -> tuple[Value | None, ...]:
    """y = Softmax(s · Q·Kᵀ + mask) · V of separate Q, K, V, or packed ones (batch, length, heads, 2 or 3, size)."""
    if past_key is not None or cache_indirection is not None:
        raise Unlowered("no VJP rule for a past state")
    if key is None:
        q, k, v = _unpack(op, query, 3)
    elif value is None:
        q, k, v = (_heads(op, query, num_heads), *_unpack(op, key, 2))
    else:
        q, k, v = (x if rank(x) == 4 else _heads(op, x, num_heads) for x in (query, key, value))
    if bias is not None:
        parts = op.node("Split", bias, op.ints(*(num_heads * _size(x) for x in (q, k, v))), outputs=3, axis=0)
        cached = key is not None and rank(key) == 4  # K and V of an encoder: they have their bias already
        q, k, v = (
            x if cached and x is not q else op.Add(x, op.Reshape(b, op.ints(num_heads, 1, _size(x))))
            for x, b in zip((q, k, v), parts, strict=True)
        )
    added = _masks(op, q, k, key_padding_mask, attention_bias, mask_filter_value, unidirectional)
    y, probability = _attend(op, q, k, v, scale, added)
    return _side_by_side(op, y), k, v, probability


@lowering("Attention")
def standard_attention(
    op: Builder,
    Q: Value,
    K: Value,
    V: Value,
    attn_mask: Value | None = None,
    *,
    q_num_heads: int = 0,
    kv_num_heads: int = 0,
    scale: float = 0.0,
    softcap: float = 0.0,
    is_causal: int = 0,
    qk_matmul_output_mode: int = 0,
) -> Value:
    """y = Softmax(s · Q·Kᵀ + mask) · V; other forms go through the function body, which takes three times the nodes."""
    if softcap or is_causal:
        raise Unlowered("no VJP rule of its own")
    flat = rank(Q) == 3
    q, k, v = (_heads(op, x, n) if flat else x for x, n in ((Q, q_num_heads), (K, kv_num_heads), (V, kv_num_heads)))
    assert q.shape is not None
    assert k.shape is not None
    if not same_dim(q.shape[1], k.shape[1]):
        raise Unlowered("no VJP rule of its own")
    if attn_mask is None:
        y, _ = _attend(op, q, k, v, scale, [])
    else:
        y = _attend_masked(op, q, k, v, scale, attn_mask)
    return _side_by_side(op, y) if flat else y


def _attend_masked(op: Builder, q: Value, k: Value, v: Value, scale: float, mask: Value) -> Value:
    """Write Softmax(s · Q·Kᵀ + mask) · V, and 0 for a query for which all keys are masked."""
    assert mask.shape is not None
    assert k.shape is not None
    width, keys = mask.shape[-1], k.shape[2]
    if isinstance(width, int) and isinstance(keys, int) and width != keys:
        raise Unlowered("no VJP rule of its own")
    if mask.dtype == ir.DataType.BOOL:
        mask = op.Where(mask, op.const(0, like=q), op.const(-math.inf, like=q))
    if range_of(mask).trust == Trust.FINITE:
        return _attend(op, q, k, v, scale, [mask])[0]
    zero = op.const(0, like=q)
    is_empty = op.Equal(op.ReduceMax(mask, op.ints(-1), keepdims=1), op.const(-math.inf, like=mask))
    _, probability = _attend(op, q, k, v, scale, [op.Where(is_empty, zero, mask)])
    return op.MatMul(op.Where(is_empty, zero, probability), v)


def _attend(op: Builder, q: Value, k: Value, v: Value, scale: float, added: Sequence[Value]) -> tuple[Value, Value]:
    """Write Softmax(s · Q·Kᵀ + added) · V, and the softmax; s is ``scale``, or 1/√size where that is 0."""
    scores = multiply(op, op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), scale or 1 / math.sqrt(_size(q)))
    for extra in added:
        scores = op.Add(scores, extra)
    probability = op.Softmax(scores, axis=-1)
    return op.MatMul(probability, v), probability


def _side_by_side(op: Builder, x: Value) -> Value:
    """Write (batch, heads, length, size) as (batch, length, heads · size)."""
    return op.Reshape(op.Transpose(x, perm=[0, 2, 1, 3]), op.ints(0, 0, -1))


def _parts(op: Builder, qkv: Value, sizes: Sequence[int] | None) -> tuple[Value, ...]:
    """Write Q, K and V apart, which lie side by side along the last axis."""
    if not sizes:
        return op.node("Split", qkv, outputs=3, axis=2, num_outputs=3)
    return op.node("Split", qkv, op.ints(*sizes), outputs=3, axis=2)


def _heads(op: Builder, x: Value, count: int) -> Value:
    """Write (batch, length, count · size) as (batch, count, length, size)."""
    return op.Transpose(op.Reshape(x, op.ints(0, 0, count, -1)), perm=[0, 2, 1, 3])


def _unpack(op: Builder, x: Value, count: int) -> tuple[Value, ...]:
    """Write (batch, length, heads, count, size) as ``count`` values (batch, heads, length, size)."""
    parts = op.node("Split", x, outputs=count, axis=3, num_outputs=count)
    return tuple(op.Transpose(op.Squeeze(part, op.ints(3)), perm=[0, 2, 1, 3]) for part in parts)


def _size(x: Value) -> int:
    """Return the length of the last axis, which must be known."""
    size = None if x.shape is None else x.shape[-1]
    if not isinstance(size, int):
        raise Unlowered("no VJP rule for a head size that is known in the run only,")
    return size


def _masks(
    op: Builder,
    q: Value,
    k: Value,
    mask: Value | None,
    bias: Value | None,
    low: float,
    unidirectional: int,
) -> list[Value]:
    """Write what is added to the scores (batch, heads, queries, keys): ``low`` where a key is masked, and the bias."""
    masks = [] if mask is None else [_masked_keys(op, q, k, mask)]
    terms = [op.Mul(op.Cast(h, to=q.dtype), op.const(low, like=q)) for h in masks]
    if unidirectional:
        later = op.Less(_reach(op, q, k), _positions(op, k))
        assert q.dtype is not None
        terms.append(op.Mul(op.Cast(later, to=q.dtype), op.const(np.finfo(q.dtype.numpy()).min / 2, like=q)))
    return terms if bias is None else [*terms, bias]


def _masked_keys(op: Builder, q: Value, k: Value, mask: Value) -> Value:
    """Write where a key is masked, as a value that broadcasts to (batch, heads, queries, keys)."""
    if rank(mask) == 1:
        return _keys_outside(op, q, k, mask)
    absent = op.Equal(mask, op.const(0, like=mask))
    if rank(mask) == 2:
        return op.Unsqueeze(absent, op.ints(1, 2))
    if rank(mask) == 3:
        return op.Unsqueeze(absent, op.ints(1))
    ends = op.Concat(_length(op, q), _length(op, k), axis=0)
    return op.Slice(absent, op.ints(0, 0), ends, op.ints(2, 3))


def _keys_outside(op: Builder, q: Value, k: Value, mask: Value) -> Value:
    """Write where a key lies outside the length of its row, or outside its (end, start).

    In the second form the mask holds all ends first, then all starts.
    """
    assert q.shape is not None
    assert mask.shape is not None
    batch, count = q.shape[0], mask.shape[0]
    keys = op.Cast(_positions(op, k), to=mask.dtype)
    if same_dim(batch, count):
        return op.Not(op.Less(keys, op.Unsqueeze(mask, op.ints(1, 2, 3))))
    if not isinstance(batch, int) or count != 2 * batch:
        raise Unlowered(f"no VJP rule for a mask of shape ({count}) with a batch of {batch},")
    ends, starts = op.node("Split", op.Unsqueeze(mask, op.ints(1, 2, 3)), outputs=2, axis=0, num_outputs=2)
    return op.Not(op.And(op.Less(keys, ends), op.Not(op.Less(keys, starts))))


def _length(op: Builder, x: Value) -> Value:
    """Write the number of tokens of (batch, heads, tokens, size), as a vector of one."""
    assert x.shape is not None
    known = x.shape[2]
    return op.ints(known) if isinstance(known, int) else op.Shape(x, start=2, end=3)


def _positions(op: Builder, x: Value) -> Value:
    """Write 0, 1, … for every token."""
    scalar = op.Squeeze(_length(op, x), op.ints(0))
    return op.Range(op.array(np.array(0, np.int64)), scalar, op.array(np.array(1, np.int64)))


def _reach(op: Builder, q: Value, k: Value) -> Value:
    """Write the last key that each query may attend to: the last query reaches the last key."""
    missing = op.Sub(_length(op, k), _length(op, q))
    return op.Unsqueeze(op.Add(_positions(op, q), missing), op.ints(1))


@lowering("RotaryEmbedding", domain=MICROSOFT)
def rotary_embedding(
    op: Builder,
    input: Value,
    position_ids: Value,
    cos_cache: Value,
    sin_cache: Value,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    is_packed_batching: int = 0,
    scale: float = 1.0,
) -> Value:
    """(a, b) → (a·cos − b·sin, a·sin + b·cos): pairs of each head turn by an angle that grows with the position."""
    if is_packed_batching:
        raise Unlowered("no VJP rule for packed batches")
    width = rotary_embedding_dim or 2 * _size(cos_cache)
    if rank(input) == 3:
        size = _size(input) // num_heads if num_heads else width
        x = op.Reshape(input, op.ints(0, 0, -1, size))
    else:
        size = _size(input)
        x = op.Transpose(input, perm=[0, 2, 1, 3])
    positions = position_ids
    if rank(position_ids) == 1:  # the position of the first token
        length = op.Squeeze(op.Shape(x, start=1, end=2), op.ints(0))
        counted = op.Range(op.array(np.array(0, np.int64)), length, op.array(np.array(1, np.int64)))
        positions = op.Unsqueeze(op.Add(counted, op.Cast(position_ids, to=ir.DataType.INT64)), op.ints(0))
    cos, sin = (op.Unsqueeze(op.Gather(table, positions), op.ints(2)) for table in (cos_cache, sin_cache))
    parts = [x] if width == size else op.node("Split", x, op.ints(width, size - width), outputs=2, axis=3)
    y = op.Concat(_rotate(op, parts[0], cos, sin, interleaved), *parts[1:], axis=3)
    return op.Reshape(y, op.shape_of(input)) if rank(input) == 3 else op.Transpose(y, perm=[0, 2, 1, 3])


def _rotate(op: Builder, x: Value, cos: Value, sin: Value, interleaved: int) -> Value:
    """Write ``x`` with its pairs turned; a pair is two neighbours, or one element of each half."""
    shape = op.ints(0, 0, 0, -1, 2) if interleaved else op.ints(0, 0, 0, 2, -1)
    axis = 4 if interleaved else 3
    a, b = op.node("Split", op.Reshape(x, shape), outputs=2, axis=axis, num_outputs=2)
    a, b = op.Squeeze(a, op.ints(axis)), op.Squeeze(b, op.ints(axis))
    first = op.Sub(op.Mul(a, cos), op.Mul(b, sin))
    second = op.Add(op.Mul(a, sin), op.Mul(b, cos))
    pairs = op.Concat(op.Unsqueeze(first, op.ints(axis)), op.Unsqueeze(second, op.ints(axis)), axis=axis)
    return op.Reshape(pairs, op.ints(0, 0, 0, -1))
