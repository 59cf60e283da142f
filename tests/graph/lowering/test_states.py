"""Operators with a state, LinearAttention and CausalConvWithState: against NumPy versions, in float64."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from nets import one_node, run

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.errors import UnsupportedGradient
from onnx_gradcam.graph.builder import Builder
from onnx_gradcam.graph.load import load
from onnx_gradcam.graph.prepare.prepare import prepare

RNG = np.random.default_rng(27)
Arrays = Mapping[int, np.ndarray]


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def linear_attention(x: Arrays, rule: str, heads: tuple[int, int], scale: float = 0.0) -> list[np.ndarray]:
    """S_t = e^g S_{t−1} + β k ⊗ (v − e^g S_{t−1}ᵀ k), o_t = s · S_tᵀ q, row by row and head by head."""
    (batch, length, _), (q_heads, kv_heads) = x[0].shape, heads
    q, k, v = (x[i].reshape(batch, length, n, -1) for i, n in enumerate((q_heads, kv_heads, kv_heads)))
    size, width = k.shape[-1], v.shape[-1]
    states = np.zeros((batch, kv_heads, size, width)) if 3 not in x else x[3].copy()
    out = np.zeros((batch, length, q_heads, width))
    for n in range(batch):
        for h in range(kv_heads):
            for t in range(length):
                state = states[n, h]
                if "gated" in rule:
                    state = state * np.exp(x[4].reshape(batch, length, kv_heads, -1)[n, t, h])[:, None]
                if "delta" in rule:
                    rate = x[5].reshape(batch, length, -1)[n, t, h]
                    state = state + np.outer(k[n, t, h], rate * (v[n, t, h] - state.T @ k[n, t, h]))
                else:
                    state = state + np.outer(k[n, t, h], v[n, t, h])
                states[n, h] = state
                for r in range(q_heads // kv_heads):
                    each = h * (q_heads // kv_heads) + r
                    out[n, t, each] = (scale or size**-0.5) * state.T @ q[n, t, each]
    return [out.reshape(batch, length, -1), states]


def causal_conv(x: Arrays, activation: str) -> list[np.ndarray]:
    """y_t = Σ_j w_j · x_{t−k+1+j} + b for each channel, and SiLU of it; what is before the beginning is the state."""
    weight, (batch, channels, length) = x[1], x[0].shape
    width = weight.shape[-1]
    past = x.get(3, np.zeros((batch, channels, width - 1)))
    whole = np.concatenate([past, x[0]], axis=2)
    y = np.stack([(whole[:, :, t : t + width] * weight[:, 0]).sum(-1) for t in range(length)], axis=2)
    y = y + x[2][:, None] if 2 in x else y
    return [y / (1 + np.exp(-y)) if activation == "silu" else y, whole[:, :, length:]]


KEYS = {0: normal(2, 3, 8), 1: normal(2, 3, 8), 2: normal(2, 3, 6)}
PAST, DECAY, RATE = normal(2, 2, 4, 3), -np.abs(normal(2, 3, 2)), 1 / (1 + np.exp(-normal(2, 3, 2)))
TWO = {"q_num_heads": 2, "kv_num_heads": 2}
FOUR = {"q_num_heads": 4, "kv_num_heads": 2, "scale": 0.5, "update_rule": "gated_delta"}
Oracle = Callable[[Arrays], list[np.ndarray]]
CASES: dict[str, tuple[str, dict[int, np.ndarray], dict[str, Any], Oracle]] = {
    **{
        f"LinearAttention, {rule}": (
            "LinearAttention",
            KEYS | more,
            TWO | {"update_rule": rule},
            lambda x, rule=rule: linear_attention(x, rule, (2, 2)),  # type: ignore[misc]  # bound in the loop
        )
        for rule, more in {
            "linear": {},
            "gated": {4: DECAY},
            "delta": {3: PAST, 5: RATE},
            "gated_delta": {3: PAST, 4: DECAY, 5: RATE},
        }.items()
    },
    "LinearAttention, shared keys": (
        "LinearAttention",
        KEYS | {0: normal(2, 3, 16), 4: DECAY, 5: RATE},
        FOUR,
        lambda x: linear_attention(x, "gated_delta", (4, 2), 0.5),
    ),
    **{
        f"CausalConvWithState, {activation}, {len(more)} more": (
            "CausalConvWithState",
            {0: normal(2, 3, 5), 1: normal(3, 1, 4)} | more,
            {"activation": activation},
            lambda x, activation=activation: causal_conv(x, activation),  # type: ignore[misc]  # bound in the loop
        )
        for activation in ("none", "silu")
        for more in ({}, {2: normal(3)}, {2: normal(3), 3: normal(2, 3, 3)})
    },
}


def gradients(
    name: str, free: Collection[tuple[int, int]] = (), cotangents: list[np.ndarray] | None = None
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Return the outputs and gradients of a case on ONNX Runtime in float32, and the cotangents.

    ``free``: pairs (input, axis) whose length the model does not tell.
    """
    op_type, x, attributes, oracle = CASES[name]
    inputs = [x[i].astype(np.float32) if i in x else None for i in range(max(x) + 1)]

    def dims(i: int, array: np.ndarray) -> list[int | str]:
        return ["length" if (i, k) in free else d for k, d in enumerate(array.shape)]

    outputs = ["y", "state"]
    proto = one_node(op_type, inputs, attributes, outputs=outputs, opset=27, dims=dims)
    model = prepare(load(proto).model)
    gs = cotangents or [RNG.standard_normal(y.shape) for y in oracle(x)]
    values = {v.name: v for v in [*model.graph.inputs, *model.graph.outputs]}
    seeds = {values[o]: ir.val(f"g_{o}", dtype=values[o].dtype, shape=values[o].shape) for o in outputs}
    forward = list(model.graph)
    model.graph.inputs.extend(seeds.values())
    op = Builder(model.graph)
    for i, found in zip(x, pull_back(op, forward, seeds, [values[f"x{i}"] for i in x]), strict=True):
        out = op.Identity(found)
        out.name = f"grad{i}"
        model.graph.outputs.append(out)
    fed = {f"x{i}": a.astype(np.float32) for i, a in x.items()}
    fed |= {f"g_{o}": g.astype(np.float32) for o, g in zip(outputs, gs, strict=True)}
    return run(model, fed, [*outputs, *(f"grad{i}" for i in x)]), gs


@pytest.mark.parametrize("name", CASES)
def test_differences(name: str) -> None:
    _, x, _, oracle = CASES[name]
    found, gs = gradients(name)
    for y, expected in zip(("y", "state"), oracle(x), strict=True):
        np.testing.assert_allclose(found[y], expected, atol=2e-5)
    rng = np.random.default_rng(0)
    for i in x:
        assert found[f"grad{i}"].shape == x[i].shape
        for _ in range(3):
            v = rng.standard_normal(x[i].shape)
            plus, minus = (oracle({**x, i: x[i] + h * v}) for h in (1e-6, -1e-6))
            slope = sum(np.vdot(g, a - b) for g, a, b in zip(gs, plus, minus, strict=True)) / 2e-6
            scale = max(float(np.linalg.norm(found[f"grad{i}"])), 1.0)
            assert abs(np.vdot(found[f"grad{i}"].astype(float), v) - slope) <= 3e-5 * scale * np.linalg.norm(v)


def test_a_length_that_the_run_decides() -> None:
    """The convolution needs no Scan; the attention does, and is refused by name."""
    name = "CausalConvWithState, silu, 2 more"
    found, gs = gradients(name, free=[(0, 2)])
    known, _ = gradients(name, cotangents=gs)
    np.testing.assert_allclose(found["grad0"], known["grad0"], rtol=1e-6)
    with pytest.raises(UnsupportedGradient, match="length that is known in the run only, for LinearAttention"):
        gradients("LinearAttention, linear", free=[(0, 1), (1, 1), (2, 1)])
