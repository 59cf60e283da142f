from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import run
from reference import evaluator
from rule_cases import feeds
from vjp_check import Case, check_float16, check_vjp, forward_model, pulled_back, with_gradients

from onnx_gradcam.autodiff.walk import pull_back
from onnx_gradcam.errors import ModelError, UnsupportedGradient
from onnx_gradcam.graph.builder import Builder

RNG = np.random.default_rng(5)
FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
T, N, FEATURES, H = 4, 3, 5, 2


def case(
    op_type: str,
    id: str,
    *,
    states: bool = False,
    lengths: Sequence[int] | None = None,
    bias: bool = True,
    peepholes: bool = False,
    fixed: bool = True,
    **attributes: Any,
) -> Case:
    """X, and with ``states`` the initial ones, are differentiated; ``lengths`` are constant where ``fixed``."""
    ways = 2 if attributes.get("direction") == "bidirectional" else 1
    first = bool(attributes.get("layout"))
    state = (N, ways, H) if first else (ways, N, H)
    rows = GATES[op_type] * H
    inputs = [
        RNG.standard_normal((N, T, FEATURES) if first else (T, N, FEATURES)),
        RNG.standard_normal((ways, rows, FEATURES)) / 2,
        RNG.standard_normal((ways, rows, H)) / 2,
        RNG.standard_normal((ways, 2 * rows)) / 2 if bias else None,
        None if lengths is None else np.array(lengths, np.int32),
        RNG.standard_normal(state) if states else None,
    ]
    wrt, constants = [0], [1, 2]
    if states:
        wrt.append(5)
    if bias:
        constants.append(3)
    if lengths is not None and fixed:
        constants.append(4)
    if op_type == "LSTM":
        inputs.append(RNG.standard_normal(state) if states else None)
        if states:
            wrt.append(6)
        inputs.append(RNG.standard_normal((ways, 3 * H)) if peepholes else None)
        if peepholes:
            constants.append(7)
    return Case(
        op_type,
        inputs,
        {"hidden_size": H, **attributes},
        wrt=wrt,
        constants=constants,
        free=(0, 1),
        outputs=3 if op_type == "LSTM" else 2,
        ort=not first,  # onnxruntime has no layout 1
        id=id,
    )


def activated(op_type: str, name: str, alpha: float | None = None, beta: float | None = None) -> Case:
    count = ACTIVATIONS[op_type]
    more: dict[str, Any] = {} if alpha is None else {"activation_alpha": [alpha] * count}
    more |= {} if beta is None else {"activation_beta": [beta] * count}
    return case(op_type, f"{name}-{alpha}", activations=[name] * count, **more)


CASES = [
    *[
        made
        for op_type in GATES
        for made in (
            *[case(op_type, way, direction=way) for way in ("forward", "reverse", "bidirectional")],
            *[case(op_type, f"{way}-states", direction=way, states=True) for way in ("forward", "bidirectional")],
            *[
                case(op_type, f"{way}-lengths", direction=way, lengths=(2, 4, 0), states=True)
                for way in ("forward", "bidirectional")
            ],
            case(op_type, "lengths-at-run-time", direction="bidirectional", lengths=(3, 4, 1), fixed=False),
            case(op_type, "no-bias", bias=False),
            case(op_type, "clip", clip=0.3, direction="bidirectional", states=True),
            case(op_type, "layout", layout=1, direction="bidirectional", states=True, lengths=(2, 4, 3)),
        )
    ],
    activated("RNN", "Relu"),
    activated("RNN", "Affine", 0.7, 0.1),
    activated("RNN", "ScaledTanh", 1.7, 0.6),
    activated("RNN", "LeakyRelu"),
    activated("RNN", "LeakyRelu", 0.3),
    activated("RNN", "ThresholdedRelu", 0.05),
    activated("RNN", "HardSigmoid"),
    activated("RNN", "HardSigmoid", 0.3, 0.4),
    activated("RNN", "Elu"),
    activated("RNN", "Elu", 0.6),
    activated("RNN", "Softsign"),
    activated("RNN", "Softplus"),
    activated("GRU", "LeakyRelu", 0.3),
    case("GRU", "mixed", activations=["HardSigmoid", "Elu"], activation_alpha=[0.3, 0.7], activation_beta=[0.4]),
    case("GRU", "mixed-both", direction="bidirectional", activation_alpha=[0.3, 0.7, 0.1], activation_beta=[0.4],
         activations=["HardSigmoid", "Elu", "Sigmoid", "leakyrelu"], clip=0.5),
    *[
        case("GRU", f"linear-{id}", linear_before_reset=1, **more)
        for id, more in {
            "forward": {},
            "no-bias": {"bias": False},
            "bidirectional": {"direction": "bidirectional", "states": True, "lengths": (1, 4, 2)},
        }.items()
    ],
    case("LSTM", "peepholes", peepholes=True, direction="bidirectional", states=True),
    case("LSTM", "peepholes-clip", peepholes=True, clip=0.4, states=True),
    case("LSTM", "input-forget", input_forget=1, peepholes=True, states=True),
    case("LSTM", "mixed", activations=["hardsigmoid", "SOFTSIGN", "LeakyRelu"], activation_alpha=[0.3, 0.2],
         activation_beta=[0.4]),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("made", CASES, ids=str)
def test_vjp(made: Case) -> None:
    check_vjp(made)


@pytest.mark.parametrize("made", [made for made in CASES if made.ort], ids=str)
def test_the_reference_computes_what_the_runtime_computes(made: Case) -> None:
    """In every form; what the specification leaves open is onnxruntime's choice."""
    found = run(forward_model(made, FLOAT32, False), feeds(made, FLOAT32))
    expected = evaluator(forward_model(made, FLOAT64, False)).run(None, feeds(made, FLOAT64))
    for a, b in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6, rtol=2e-6)


def test_the_defaults_of_activations_are_the_runtimes() -> None:
    """An Affine or ScaledTanh without alpha and beta is 0; a ThresholdedRelu without alpha is a Relu."""
    for name in ("Affine", "ScaledTanh", "ThresholdedRelu"):
        made = activated("RNN", name)
        test_the_reference_computes_what_the_runtime_computes(made)
        check_vjp(made)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("op_type", GATES)
def test_torch(op_type: str, bidirectional: bool) -> None:
    """torch's gates are i f g o (LSTM) and r z n (GRU), its GRU is linear before reset."""
    torch = pytest.importorskip("torch", reason="torch: not installed")
    order = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}[op_type]
    more = {"linear_before_reset": 1} if op_type == "GRU" else {}
    direction = "bidirectional" if bidirectional else "forward"
    made = case(op_type, "torch", states=True, direction=direction, **more)
    net = getattr(torch.nn, op_type)(FEATURES, H, bidirectional=bidirectional, dtype=torch.float64)
    for k, parameter in enumerate([*net.parameters()]):
        d, kind = divmod(k, 4)
        source = made.inputs[kind + 1 if kind < 2 else 3][d]
        if kind > 1:
            source = np.split(source, 2)[kind - 2]
        gates = np.split(source, GATES[op_type])
        mine = np.concatenate([gates[order.index(g)] for g in range(len(gates))])
        parameter.data.copy_(torch.tensor(mine))
    x, *states = [torch.tensor(made.inputs[i], requires_grad=True) for i in made.wrt]
    y, last = net(x, tuple(states) if op_type == "LSTM" else states[0])
    ys = [y, *last] if op_type == "LSTM" else [y, last]
    gs = [np.random.default_rng(k).standard_normal(v.shape) for k, v in enumerate(ys)]
    expected = torch.autograd.grad(ys, [x, *states], [torch.tensor(g) for g in gs])
    per_way = gs[0].reshape(T, N, -1, H).transpose(0, 2, 1, 3)
    found = pulled_back(made, per_way, *gs[1:], dtype="float64")
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-12)
    parameters = list(net.parameters())
    again, _ = net(x, tuple(states) if op_type == "LSTM" else states[0])
    theirs = torch.autograd.grad(again, parameters, torch.tensor(gs[0]))
    zeros = [np.zeros(g.shape) for g in gs[1:]]
    mine = pulled_back(replace(made, wrt=(1, 2, 3), constants=()), per_way, *zeros, dtype="float64")
    for k, gradient in enumerate(theirs):
        d, kind = divmod(k, 4)
        own = mine[kind][d] if kind < 2 else np.split(mine[2][d], 2)[kind - 2]
        gates = np.split(gradient.numpy(), GATES[op_type])
        np.testing.assert_allclose(own, np.concatenate([gates[g] for g in order]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize("kept", [0, 1])
def test_outputs_that_the_model_leaves_out(op_type: str, kept: int) -> None:
    """Y is asked for where only Y_h is used; what is not used has no cotangent."""
    made = case(op_type, "one output", direction="bidirectional")
    whole = case_outputs(made)
    model = ir.from_proto(forward_model(made, FLOAT32, False))
    graph = model.graph
    node = graph[0]
    y = node.outputs[kept]
    graph.outputs[:] = [y]
    for k, other in enumerate(node.outputs):
        if k != kept:
            other.name, other.shape = "", None
    values = ir.convenience.create_value_mapping(graph)
    g = ir.val("g", dtype=y.dtype, shape=y.shape)
    (gradient,) = pull_back(Builder(graph), [node], {y: g}, [values["x0"]])
    graph.inputs.append(g)
    graph.outputs.append(gradient)
    data = ir.to_proto(model)
    onnx.checker.check_model(data)
    cotangent = np.random.default_rng(0).standard_normal(whole[kept])
    found = run(data, feeds(made, FLOAT32) | {"g": cotangent.astype(np.float32)}, [gradient.name])[gradient.name]
    gs = [cotangent if k == kept else np.zeros(shape) for k, shape in enumerate(whole)]
    (expected,) = pulled_back(made, *gs, dtype="float64")
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0)


def case_outputs(made: Case) -> list[tuple[int, ...]]:
    model = forward_model(made, FLOAT32, False)
    return [tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in model.graph.output]


def weighted(made: Case) -> Case:
    """The same with the weights as inputs, which are differentiated, too."""
    weights = [i for i in (1, 2, 3, 7) if i < len(made.inputs) and made.inputs[i] is not None]
    return replace(made, wrt=sorted({*made.wrt, *weights}), constants=[i for i in made.constants if i == 4])


IN_ALL_FORMS = (
    "RNN-bidirectional-lengths RNN-layout GRU-bidirectional-lengths GRU-no-bias GRU-linear-bidirectional".split()
)
COMPUTED = [
    weighted(made)
    for made in CASES
    if str(made) in [*IN_ALL_FORMS, "LSTM-layout", "LSTM-peepholes", "LSTM-input-forget"]
]


@pytest.mark.slow
@pytest.mark.parametrize("made", COMPUTED, ids=str)
def test_computed_weights(made: Case) -> None:
    check_vjp(made)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(UnsupportedGradient, match="activation 'cosine' for RNN, input 0"):
        with_gradients(activated("RNN", "cosine"), FLOAT32, False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "made", [c for c in CASES if c.ort and c.id in ("bidirectional-lengths", "clip", "linear-forward")], ids=str
)
def test_float16(made: Case) -> None:
    check_float16(made)


def test_a_sequence_of_unknown_rank_is_an_error() -> None:
    model = ir.from_proto(forward_model(case("LSTM", "unknown"), FLOAT32, False))
    graph = model.graph
    x, y = graph.inputs[0], graph.outputs[0]
    x.shape = None
    with pytest.raises(ModelError, match="'x0'"):
        pull_back(Builder(graph), list(graph), {y: ir.val("g", dtype=y.dtype, shape=y.shape)}, [x])
