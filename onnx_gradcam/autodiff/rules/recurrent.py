"""Rules of LSTM, GRU and RNN: the equations of one step, which ``recurrence`` derives through time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_gradcam.autodiff.registry import EACH, PullBack, Refused, Unwritten, vjp
from onnx_gradcam.autodiff.rules.recurrence import Cell, Pass, Pulled, pull_through_time, through_input, through_weights
from onnx_gradcam.graph.attributes import Recurrent
from onnx_gradcam.graph.builder import Builder, Value, rank

ActivationFunction = Callable[[Builder, Value], Value]

INITIAL_STATES = {5: "initial_h", 6: "initial_c"}

# activation → its parameters, and what onnxruntime takes where they are left out; the case of a name does not matter
PARAMETERS: dict[str, dict[str, float]] = {
    "affine": {"alpha": 0.0, "beta": 0.0},
    "scaledtanh": {"alpha": 0.0, "beta": 0.0},
    "leakyrelu": {"alpha": 0.01},
    "thresholdedrelu": {"alpha": 0.0},
    "elu": {"alpha": 1.0},
    "hardsigmoid": {"alpha": 0.2, "beta": 0.5},
}
ACTIVATION_OPERATORS = {
    name.lower(): name
    for name in "Relu Tanh Sigmoid Softsign Softplus LeakyRelu ThresholdedRelu Elu HardSigmoid".split()
}


@vjp("RNN", wrt=EACH, multi=True, nested=True)
def rnn(
    op: Builder,
    gs: tuple[Value | None, ...],
    ys: tuple[Value, ...],
    X: Value,
    W: Value,
    R: Value,
    B: Value | None = None,
    sequence_lens: Value | None = None,
    initial_h: Value | None = None,
    *,
    at: Recurrent,
    activations: Sequence[str] = ("Tanh", "Tanh"),
    layout: int = 0,
    i: int,
    pull_back: PullBack,
) -> Value:
    """h = f(W·x + R·h + b):  backpropagation through time."""
    directions = _Directions(op, gs, ys, X, W, R, B, sequence_lens, (initial_h,), at.direction, layout)
    functions = _activation_functions(activations, at)

    def cell(d: int) -> Cell:
        f = _clip_input(functions[d], at.clip)

        def step(op: Builder, pre: Value) -> tuple[Value]:
            return (f(op, pre),)

        return Cell(step, directions.part(W, d), directions.part(R, d), *directions.biases(d))

    return directions.pull_back(pull_back, cell, i)


@vjp("GRU", wrt=EACH, multi=True, nested=True)
def gru(
    op: Builder,
    gs: tuple[Value | None, ...],
    ys: tuple[Value, ...],
    X: Value,
    W: Value,
    R: Value,
    B: Value | None = None,
    sequence_lens: Value | None = None,
    initial_h: Value | None = None,
    *,
    at: Recurrent,
    activations: Sequence[str] | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    i: int,
    pull_back: PullBack,
) -> Value:
    """h = (1 − z)·n + z·h, n = g(W·x + R·(r·h)) or g(W·x + r·(R·h)):  backpropagation through time."""
    directions = _Directions(op, gs, ys, X, W, R, B, sequence_lens, (initial_h,), at.direction, layout)
    functions = _activation_functions(activations or ["Sigmoid", "Tanh"] * len(directions), at)

    def cell(d: int) -> Cell:
        f, g = (_clip_input(a, at.clip) for a in functions[2 * d : 2 * d + 2])
        recurrent, (bias_w, bias_r) = directions.part(R, d), directions.biases(d)
        new = None
        if not linear_before_reset:
            recurrent, *new = op.node("Split", recurrent, directions.lengths(2, 1), outputs=2, axis=0)
            if bias_r is not None:
                bias_r, late = op.node("Split", bias_r, directions.lengths(2, 1), outputs=2, axis=0)
                new.append(late)

        def step(op: Builder, x: Value, r: Value, h: Value) -> tuple[Value]:
            x_z, x_r, x_n = op.node("Split", x, outputs=3, axis=1, num_outputs=3)
            if new is None:
                r_z, r_r, r_n = op.node("Split", r, outputs=3, axis=1, num_outputs=3)
                n = op.Mul(f(op, op.Add(x_r, r_r)), r_n)
            else:
                r_z, r_r = op.node("Split", r, outputs=2, axis=1, num_outputs=2)
                n = op.Gemm(op.Mul(f(op, op.Add(x_r, r_r)), h), *new, transB=1)
            z, n = f(op, op.Add(x_z, r_z)), g(op, op.Add(x_n, n))
            return (op.Add(n, op.Mul(z, op.Sub(h, n))),)

        return Cell(step, directions.part(W, d), recurrent, bias_w, bias_r, gated=True, inside=new or ())

    return directions.pull_back(pull_back, cell, i)


@vjp("LSTM", wrt=EACH, multi=True, nested=True)
def lstm(
    op: Builder,
    gs: tuple[Value | None, ...],
    ys: tuple[Value, ...],
    X: Value,
    W: Value,
    R: Value,
    B: Value | None = None,
    sequence_lens: Value | None = None,
    initial_h: Value | None = None,
    initial_c: Value | None = None,
    P: Value | None = None,
    *,
    at: Recurrent,
    activations: Sequence[str] | None = None,
    input_forget: int = 0,
    layout: int = 0,
    i: int,
    pull_back: PullBack,
) -> Value:
    """c = f·c + i·n, h = o·tanh(c):  backpropagation through time."""
    directions = _Directions(op, gs, ys, X, W, R, B, sequence_lens, (initial_h, initial_c), at.direction, layout)
    functions = _activation_functions(activations or ["Sigmoid", "Tanh", "Tanh"] * len(directions), at)

    def cell(d: int) -> Cell:
        f, g = (_clip_input(a, at.clip) for a in functions[3 * d : 3 * d + 2])
        h = functions[3 * d + 2]
        peepholes = None if P is None else op.node("Split", directions.part(P, d), outputs=3, axis=0, num_outputs=3)

        def add_peephole(op: Builder, gate: Value, k: int, c: Value) -> Value:
            return gate if peepholes is None else op.Add(gate, op.Mul(peepholes[k], c))

        def step(op: Builder, pre: Value, c: Value) -> tuple[Value, Value]:
            i, o, forget, new = op.node("Split", pre, outputs=4, axis=1, num_outputs=4)
            i = f(op, add_peephole(op, i, 0, c))
            forget = op.Sub(op.const(1, like=i), i) if input_forget else f(op, add_peephole(op, forget, 2, c))
            memory = op.Add(op.Mul(forget, c), op.Mul(i, g(op, new)))
            o = f(op, add_peephole(op, o, 1, memory))
            return op.Mul(o, h(op, memory)), memory

        read = () if peepholes is None else peepholes[:2] if input_forget else peepholes
        return Cell(step, directions.part(W, d), directions.part(R, d), *directions.biases(d), inside=read)

    return directions.pull_back(pull_back, cell, i)


def _activation_functions(names: Sequence[str], at: Recurrent) -> list[ActivationFunction]:
    """Return the activations in their order; each takes the next alpha and beta if it has such a parameter."""
    numbers = {"alpha": iter(at.activation_alpha or ()), "beta": iter(at.activation_beta or ())}
    functions = []
    for name in map(str.lower, names):
        if name not in ACTIVATION_OPERATORS and name not in ("affine", "scaledtanh"):
            raise Refused(f"activation {name!r}")
        defaults = PARAMETERS.get(name, {})
        functions.append(_activation(name, {k: next(numbers[k], v) for k, v in defaults.items()}))
    return functions


def _activation(name: str, parameters: dict[str, float]) -> ActivationFunction:
    """Return the activation as a function that writes it."""

    def affine(op: Builder, x: Value) -> Value:
        return op.Add(op.Mul(x, op.const(parameters["alpha"], like=x)), op.const(parameters["beta"], like=x))

    def scaled_tanh(op: Builder, x: Value) -> Value:
        return op.Mul(op.Tanh(op.Mul(x, op.const(parameters["beta"], like=x))), op.const(parameters["alpha"], like=x))

    def operator(op: Builder, x: Value) -> Value:
        return op.node(ACTIVATION_OPERATORS[name], x, outputs=1, **parameters)[0]

    composed: dict[str, ActivationFunction] = {"affine": affine, "scaledtanh": scaled_tanh}
    return composed.get(name, operator)


def _clip_input(activation: ActivationFunction, clip: float | None) -> ActivationFunction:
    """Return the activation with its input clipped to ±clip.

    As in onnxruntime, the last activation of an LSTM is not clipped.
    """
    if not clip:
        return activation
    return lambda op, x: activation(op, op.Clip(x, op.const(-clip, like=x), op.const(clip, like=x)))


@dataclass(frozen=True)
class _Directions:
    """The inputs, outputs and cotangents of a node, which come for all directions together."""

    op: Builder
    gs: Sequence[Value | None]
    ys: Sequence[Value]
    X: Value
    W: Value
    R: Value
    B: Value | None
    sequence_lens: Value | None
    initial: Sequence[Value | None]
    direction: str
    layout: int

    def __len__(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    def part(self, value: Value, d: int, axis: int = 0) -> Value:
        """Write the part of ``value`` that belongs to direction d."""
        return self.op.Gather(value, self.op.array(np.array(d, np.int64)), axis=axis)

    def biases(self, d: int) -> tuple[Value | None, Value | None]:
        """Write b_W and b_R of direction d."""
        if self.B is None:
            return None, None
        bias_w, bias_r = self.op.node("Split", self.part(self.B, d), outputs=2, axis=0, num_outputs=2)
        return bias_w, bias_r

    def lengths(self, *parts: int) -> Value:
        """Return lengths that are given in units of H, as an int64 vector."""
        return self.op.ints(*(n * self.hidden for n in parts))

    @property
    def hidden(self) -> int:
        """Return H, the length of h."""
        size = None if self.R.shape is None else self.R.shape[-1]
        if not isinstance(size, int):
            raise Unwritten("weights of unknown shape")
        return size

    def pull_back(self, walk: PullBack, cell: Callable[[int], Cell], i: int) -> Value:
        """Write the cotangent of input i, over all directions.

        Args:
            walk: differentiates the nodes of a step.
            cell: returns the cell of a direction.
            i: the input.
        """
        op = self.op
        rank(self.X)
        of_weights = i and i not in INITIAL_STATES
        cells, passes = [cell(d) for d in range(len(self))], list(self._passes())
        pulled = [
            pull_through_time(op, walk, c, run, weights=bool(of_weights)) for c, run in zip(cells, passes, strict=True)
        ]
        if i == 0:
            parts = [through_input(op, c, p) for c, p in zip(cells, pulled, strict=True)]
            g_x = parts[0] if len(parts) == 1 else op.Add(*parts)
            return op.Transpose(g_x, perm=[1, 0, 2]) if self.layout else g_x
        if of_weights:
            parts = [self._weights(i, c, run, p) for c, run, p in zip(cells, passes, pulled, strict=True)]
        else:
            parts = [p.initial[i - 5] for p in pulled]
        axis = 1 if self.layout and not of_weights else 0
        parts = [op.Unsqueeze(g, op.ints(axis)) for g in parts]
        return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=axis)

    def _weights(self, i: int, cell: Cell, run: Pass, pulled: Pulled) -> Value:
        """Write the cotangent of W, R, B or P of one direction; a part of R and B may be read inside of the step."""
        op, parts = self.op, through_weights(self.op, run, pulled)
        inside = list(pulled.inside)
        late = inside if cell.gated else []
        if i == 1:
            return parts["W"]
        if i == 2:
            return self._join([parts["R"], *late[:1]])
        if i == 3:
            return self._join([parts["bias_w"], parts["bias_r"], *late[1:]])
        unread = [op.Expand(op.const(0, like=self.X), self.lengths(1))] * (3 - len(inside))
        return self._join([*inside, *unread])

    def _join(self, parts: Sequence[Value]) -> Value:
        return parts[0] if len(parts) == 1 else self.op.Concat(*parts, axis=0)

    def _passes(self) -> Iterator[Pass]:
        """Yield what each direction reads and returns, time first."""
        op, axis = self.op, 1 if self.layout else 0
        x = op.Transpose(self.X, perm=[1, 0, 2]) if self.layout else self.X
        mask = None if self.sequence_lens is None else self._mask(x, self.sequence_lens)
        g_h, *g_states = [*self.gs, *[None] * 3][: 1 + len(self.initial)]
        y = self._y(x)
        for d in range(len(self)):
            yield Pass(
                x=x,
                h=self._sequence(y, d),
                initial=[None if v is None else self.part(v, d, axis) for v in self.initial],
                zero=self._zero(x),
                mask=mask,
                backwards=d == 1 or self.direction == "reverse",
                g_h=None if g_h is None else self._sequence(g_h, d),
                g_states=[None if g is None else self.part(g, d, axis) for g in g_states],
            )

    def _sequence(self, y: Value, d: int) -> Value:
        """Write h of all places (T, N, H) in direction d, out of Y or of its cotangent."""
        if self.layout:
            return self.op.Transpose(self.part(y, d, 2), perm=[1, 0, 2])
        return self.part(y, d, 1)

    def _y(self, x: Value) -> Value:
        """Return Y, which the node may leave out."""
        y = self.op.request(self.ys[0])
        if y.shape is None:
            assert x.shape is not None
            length, batch = x.shape[0], x.shape[1]
            dims = [batch, length, len(self), self.hidden] if self.layout else [length, len(self), batch, self.hidden]
            y.type, y.shape = x.type, type(x.shape)(dims)
        return y

    def _mask(self, x: Value, lengths: Value) -> Value:
        """Write 1 before the end of each sequence, else 0 (T, N, 1)."""
        op = self.op
        size = op.Squeeze(op.Slice(op.shape_of(x), op.ints(0), op.ints(1), op.ints(0)), op.ints(0))
        places = op.Cast(
            op.Range(op.array(np.array(0, np.int64)), size, op.array(np.array(1, np.int64))), to=lengths.dtype
        )
        mask = op.Cast(op.Less(op.Unsqueeze(places, op.ints(1)), lengths), to=x.dtype)
        return op.Unsqueeze(mask, op.ints(2))

    def _zero(self, x: Value) -> Value:
        """Write an initial state of zeros (N, H)."""
        op = self.op
        assert x.shape is not None
        batch = x.shape[1]
        rows = (
            op.ints(batch) if isinstance(batch, int) else op.Slice(op.shape_of(x), op.ints(1), op.ints(2), op.ints(0))
        )
        zero = op.Expand(op.const(0, like=x), op.Concat(rows, op.ints(self.hidden), axis=0))
        zero.shape = type(x.shape)([batch, self.hidden])
        return zero
