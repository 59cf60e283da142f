"""LSTM, GRU and RNN step by step, in the dtype of their input; onnx's evaluator runs only their plain forms.

Where the specification leaves it open, as onnxruntime has it: an Affine, ScaledTanh or ThresholdedRelu without alpha
or beta has 0, and what the last activation of an LSTM reads is not clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from onnx_gradcam.verify.windows import Attributes

Array = np.ndarray
Activation = Callable[[Array], Array]
Step = Callable[..., tuple[Array, ...]]

# activation → its parameters with their defaults, and its formula
FORMULAS: dict[str, tuple[dict[str, float], Callable[..., Array]]] = {
    "relu": ({}, lambda x: np.maximum(x, 0)),
    "tanh": ({}, np.tanh),
    "sigmoid": ({}, lambda x: 1 / (1 + np.exp(-x))),
    "softsign": ({}, lambda x: x / (1 + np.abs(x))),
    "softplus": ({}, lambda x: np.logaddexp(x, 0)),
    "affine": ({"alpha": 0.0, "beta": 0.0}, lambda x, alpha, beta: alpha * x + beta),
    "scaledtanh": ({"alpha": 0.0, "beta": 0.0}, lambda x, alpha, beta: alpha * np.tanh(beta * x)),
    "leakyrelu": ({"alpha": 0.01}, lambda x, alpha: np.where(x > 0, x, alpha * x)),
    "thresholdedrelu": ({"alpha": 0.0}, lambda x, alpha: np.where(x > alpha, x, 0)),
    "elu": ({"alpha": 1.0}, lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))),
    "hardsigmoid": ({"alpha": 0.2, "beta": 0.5}, lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1)),
}
DEFAULT_ACTIVATIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def recurrent(op_type: str, attributes: Attributes, arrays: Sequence[Array | None]) -> list[Array]:
    """Return Y, Y_h and for an LSTM Y_c; ``arrays``: the inputs, None where left out."""
    x, w, r, b, lengths, h, c, p = [*arrays, *[None] * 8][:8]
    assert x is not None
    assert w is not None
    assert r is not None
    first = bool(attributes.get("layout", 0))
    x = x.swapaxes(0, 1) if first else x
    states = [_directions(a, first) for a in ((h, c) if op_type == "LSTM" else (h,))]
    ways, steps, batch, hidden = len(w), len(x), x.shape[1], r.shape[2]
    lengths = np.full(batch, steps) if lengths is None else lengths
    acts = _activations(op_type, attributes.get("activations", DEFAULT_ACTIVATIONS[op_type] * ways), attributes)
    y = np.zeros((steps, ways, batch, hidden), x.dtype)
    last = [np.zeros((ways, batch, hidden), x.dtype) for _ in states]
    for d in range(ways):
        bias = np.zeros(2 * w.shape[1]) if b is None else b[d]
        count = len(DEFAULT_ACTIVATIONS[op_type])
        step = RECURRENT_STEPS[op_type](
            w[d], r[d], bias, None if p is None else p[d], acts[count * d : count * (d + 1)], attributes
        )
        backwards = d == 1 or attributes.get("direction") == "reverse"
        for n in range(batch):
            now = tuple(np.zeros(hidden) if s is None else s[d, n] for s in states)
            for t in _places(int(lengths[n]), backwards):
                now = step(x[t, n], *now)
                y[t, d, n] = now[0]
            if lengths[n] > 0:
                for k, state in enumerate(now):
                    last[k][d, n] = state
    if first:
        return [y.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in last)]
    return [y, *last]


def _directions(state: Array | None, first: bool) -> Array | None:
    return state.swapaxes(0, 1) if state is not None and first else state


def _places(length: int, backwards: bool) -> Iterator[int]:
    return reversed(range(length)) if backwards else iter(range(length))


def _activations(op_type: str, names: Sequence[str], attributes: Attributes) -> list[Activation]:
    """Those with an alpha or beta take the next of the list; what they read is clipped, but for the last of an LSTM."""
    given = {"alpha": iter(attributes.get("activation_alpha", ())), "beta": iter(attributes.get("activation_beta", ()))}
    clip = attributes.get("clip") or np.inf

    def made(k: int, name: str) -> Activation:
        defaults, formula = FORMULAS[name.lower()]
        parameters = {k: next(given[k], v) for k, v in defaults.items()}
        bound = np.inf if op_type == "LSTM" and k % 3 == 2 else clip
        return lambda x: formula(np.clip(x, -bound, bound), **parameters)

    return [made(k, name) for k, name in enumerate(names)]


def _rnn(w: Array, r: Array, b: Array, p: Array | None, acts: Sequence[Activation], attributes: Attributes) -> Step:
    bias_w, bias_r = np.split(b, 2)
    return lambda x, h: (acts[0](w @ x + bias_w + r @ h + bias_r),)


def _gru(w: Array, r: Array, b: Array, p: Array | None, acts: Sequence[Activation], attributes: Attributes) -> Step:
    f, g = acts
    (w_z, w_r, w_n), (r_z, r_r, r_n) = np.split(w, 3), np.split(r, 3)
    b_z, b_r, b_n, c_z, c_r, c_n = np.split(b, 6)

    def step(x: Array, h: Array) -> tuple[Array]:
        z = f(w_z @ x + b_z + r_z @ h + c_z)
        reset = f(w_r @ x + b_r + r_r @ h + c_r)
        late = reset * (r_n @ h + c_n) if attributes.get("linear_before_reset") else r_n @ (reset * h) + c_n
        return ((1 - z) * g(w_n @ x + b_n + late) + z * h,)

    return step


def _lstm(w: Array, r: Array, b: Array, p: Array | None, acts: Sequence[Activation], attributes: Attributes) -> Step:
    f, g, h_of = acts
    hidden = r.shape[1]
    p_i, p_o, p_f = np.split(np.zeros(3 * hidden) if p is None else p, 3)
    bias_w, bias_r = np.split(b, 2)

    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        i, o, forget, new = np.split(w @ x + bias_w + r @ h + bias_r, 4)
        i = f(i + p_i * c)
        forget = 1 - i if attributes.get("input_forget") else f(forget + p_f * c)
        memory = forget * c + i * g(new)
        return f(o + p_o * memory) * h_of(memory), memory

    return step


RECURRENT_STEPS: dict[str, Callable[..., Any]] = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}
