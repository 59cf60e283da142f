"""Adapters where onnxruntime cannot be asked: before opset 7 closed forms, and the forms that are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from opsets import F, check_same, check_valid, f32, fed, old_node, raised, random, run

from onnx_gradcam.errors import ModelError

X = random(2, 3, 4, 5)
POSITIVE = np.abs(X) + F(0.1)
BN = [random(3), random(3) + F(1), random(3) * F(0.5), np.abs(random(3)) + F(0.5)]
BN_MAPS = [np.abs(random(3, 4, 5)) + F(0.5) for _ in range(4)]

SLOPE = np.abs(random(3)) + F(0.1)
TRUTH, MASK = X > 0, random(3, 4) > 0
ALIGNED = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
    "Pow": np.power,
}
LOGICAL = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}


def batch_normalized(x: np.ndarray, parameters: Sequence[np.ndarray], epsilon: float) -> np.ndarray:
    scale, bias, mean, variance = (p.reshape(-1, 1, 1) if p.ndim == 1 else p for p in parameters)
    return ((x - mean) / np.sqrt(variance + epsilon) * scale + bias).astype(F)


def selu(x: np.ndarray, alpha: float, gamma: float) -> np.ndarray:
    return (gamma * np.where(x > 0, x, alpha * (np.exp(x) - 1))).astype(F)


Old = tuple[str, int, list[Any], dict[str, Any], Sequence[np.ndarray]]
OLD: list[Old] = [
    *[
        (op, 6, [POSITIVE, b], {"broadcast": 1, "axis": 1}, [f(POSITIVE, b.reshape(aligned))])
        for op, f in ALIGNED.items()
        for b, aligned in [(SLOPE, (3, 1, 1)), (POSITIVE[0, :, :, 0], (3, 4, 1))]
    ],
    *[(op, 6, [TRUTH, MASK], {"broadcast": 1, "axis": 1}, [f(TRUTH, MASK[:, :, None])]) for op, f in LOGICAL.items()],
    ("Add", 6, [X, random(4)], {"broadcast": 1, "axis": -2}, [X + random(4)[:, None]]),
    ("Add", 6, [X, random(4, 5)], {"broadcast": 1}, [X + random(4, 5)]),
    ("Add", 6, [X, random(4, 5)], {"broadcast": 1, "axis": 2}, [X + random(4, 5)]),
    ("Add", 6, [X, random(1)], {"broadcast": 1}, [X + random(1)]),
    ("Add", 1, [X, X], {"consumed_inputs": [0, 0]}, [X + X]),
    ("Relu", 1, [X], {"consumed_inputs": [0]}, [np.maximum(X, 0)]),
    ("Sum", 1, [X, X, X], {"consumed_inputs": [0, 0, 0]}, [X + X + X]),
    ("BatchNormalization", 6, [X, *BN], {"is_test": 1, "epsilon": 0.01}, [batch_normalized(X, BN, 0.01)]),
    (
        "BatchNormalization",
        1,
        [X, *BN],
        {"is_test": 1, "consumed_inputs": [0, 0, 0, 1, 1]},
        [batch_normalized(X, BN, 1e-5)],
    ),
    (
        "BatchNormalization",
        6,
        [X, *BN_MAPS],
        {"is_test": 1, "spatial": 0},
        [batch_normalized(X, BN_MAPS, 1e-5)],
    ),
    ("Dropout", 6, [X], {"is_test": 1, "ratio": 0.7}, [X]),
    ("Concat", 1, [X, X], {}, [np.concatenate([X, X], 1)]),
    ("Concat", 3, [X, X], {"axis": 3}, [np.concatenate([X, X], 3)]),
    ("Cast", 1, [3 * X], {"to": "INT32"}, [(3 * X).astype(np.int32)]),
    ("Cast", 5, [X], {"to": "BOOL"}, [X != 0]),
    ("Clip", 1, [X], {"min": -0.5, "max": 0.5, "consumed_inputs": [0]}, [X.clip(-0.5, 0.5)]),
    ("PRelu", 6, [X, SLOPE], {}, [np.where(X > 0, X, X * SLOPE[:, None, None])]),
    ("PRelu", 1, [X, SLOPE[:1]], {"consumed_inputs": [0, 0]}, [np.where(X > 0, X, X * SLOPE[0])]),
    ("PRelu", 6, [random(4, 3), SLOPE], {}, [np.where(random(4, 3) > 0, random(4, 3), random(4, 3) * SLOPE)]),
    (
        "Gemm",
        6,
        [random(2, 3), random(3, 4), random(4)],
        {"broadcast": 1, "alpha": 2.0},
        [2 * random(2, 3) @ random(3, 4) + random(4)],
    ),
    ("GlobalLpPool", 1, [X], {"p": 3.0}, [(np.abs(X) ** 3).sum((2, 3), keepdims=True) ** F(1 / 3)]),
    ("LpPool", 1, [X], {"kernel_shape": [4, 5]}, [np.sqrt((X**2).sum((2, 3), keepdims=True))]),
    ("Selu", 5, [X], {}, [selu(X, 1.6732, 1.0507)]),
    ("Selu", 5, [X], {"alpha": 2.0, "gamma": 3.0}, [selu(X, 2, 3)]),
    ("Pad", 1, [X], {"paddings": [0, 0, 1, 2, 0, 0, 3, 0]}, [np.pad(X, [(0, 0), (0, 0), (1, 3), (2, 0)])]),
    ("Split", 1, [X], {"axis": 3, "split": [2, 3]}, np.split(X, [2], 3)),
    ("Split", 1, [X], {"axis": 2}, np.split(X, 2, 2)),
    ("Upsample", 1, [X], {"height_scale": 2.0, "width_scale": 3.0}, [X.repeat(2, 2).repeat(3, 3)]),
]


@pytest.mark.parametrize(
    ("op", "opset", "feeds", "attributes", "expected"),
    OLD,
    ids=[f"{c[0]}-{c[1]}-{i}" for i, c in enumerate(OLD)],
)
def test_raised_from_before_opset_7(
    op: str, opset: int, feeds: list[Any], attributes: dict[str, Any], expected: Sequence[np.ndarray]
) -> None:
    new = raised(old_node(op, opset, feeds, attributes, outputs=len(expected)))
    check_valid(new)
    check_same(run(new, fed(feeds)), expected)


def test_bilinear_upsample_of_opset_1() -> None:
    factors = {"height_scale": 1.5, "width_scale": 2.0, "mode": "bilinear"}
    twin = old_node("Upsample", 7, [X], {"scales": [1.0, 1.0, 1.5, 2.0], "mode": "linear"})
    check_same(run(raised(old_node("Upsample", 1, [X], factors)), fed([X])), run(twin, fed([X])))


@pytest.mark.parametrize(("op", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_recurrent_operators_of_opset_1(op: str, gates: int) -> None:
    feeds = [random(6, 2, 3), random(1, gates * 5, 3), random(1, gates * 5, 5)]
    attributes = {"hidden_size": 5, "direction": "forward"}
    expected = run(old_node(op, 7, feeds, attributes, outputs=2), fed(feeds))
    new = raised(old_node(op, 1, feeds, {**attributes, "output_sequence": 1}, outputs=2))
    check_valid(new)
    check_same(run(new, fed(feeds)), expected)


def test_batch_normalization_in_training_mode_stays_there() -> None:
    """Further outputs meant training mode, and a deployed model that lists them is run so by onnxruntime."""
    for opset in (7, 9, 13):
        model = old_node("BatchNormalization", opset, [X, *BN], outputs=5)
        del model.graph.output[3:]
        expected, at_rest = run(model, fed([X, *BN])), batch_normalized(X, BN, 1e-5)
        assert np.abs(expected[0] - at_rest).max() > 0.1
        new = raised(model)
        check_valid(new)
        check_same(run(new, fed([X, *BN])), expected)


def test_batch_normalization_with_nameless_further_outputs_is_at_inference() -> None:
    model = old_node("BatchNormalization", 9, [X, *BN])
    model.graph.node[0].output.extend(["", "", "", ""])
    check_same(run(raised(model), fed([X, *BN])), [batch_normalized(X, BN, 1e-5)])


def test_an_unused_dropout_mask_is_dropped() -> None:
    for opset in (7, 10):
        model = old_node("Dropout", opset, [X], outputs=2)
        del model.graph.output[1:]
        new = raised(model)
        check_valid(new)
        assert list(new.graph.node[0].output) == ["y0"]
        check_same(run(new, fed([X])), [X])


REFUSED: list[tuple[str, int, list[Any], dict[str, Any], dict[str, Any], str]] = [
    ("BatchNormalization", 6, [X, *BN], {}, {}, "is_test"),
    ("BatchNormalization", 7, [X, *BN_MAPS], {"spatial": 0}, {"n": 5}, "spatial"),
    ("BatchNormalization", 9, [X, *BN], {}, {"n": 5}, "'y3' is used"),
    ("Cast", 5, [X], {"to": "DECIMAL"}, {}, "'DECIMAL'"),
    ("Dropout", 6, [X], {}, {}, "is_test"),
    ("Dropout", 7, [X], {}, {"n": 2}, "'y1' is used"),
    ("LpPool", 1, [X], {"kernel_shape": [2, 2], "p": 2.5}, {}, "2.5"),
    ("MeanVarianceNormalization", 1, [random(2, 3, 4)], {}, {}, "(N, C, H, W)"),
    ("Add", 6, [X, SLOPE], {"broadcast": 1, "axis": 1}, {"ranked": False}, "rank of its input 'x0'"),
    ("Pad", 7, [X], {}, {}, "'pads' is missing"),
    ("Scan", 8, [None, X], {}, {}, "batch axis"),
    ("Split", 1, [X, f32(1, 2)], {"axis": 1}, {"n": 2}, "part lengths"),
    ("Tile", 5, [X, f32(2), f32(1)], {}, {}, "one axis"),
    ("Resize", 10, [X], {}, {}, "input 1 is missing"),
    *[
        (
            "Resize",
            11,
            [X],
            {"coordinate_transformation_mode": "tf_half_pixel_for_nn", **a},
            {"c": c},
            "no equal",
        )
        for a in ({"mode": "linear"}, {"nearest_mode": "ceil"})
        for c in [[f32(), f32(1, 1, 2, 2)]]
    ],
]


@pytest.mark.parametrize(
    ("op", "opset", "feeds", "attributes", "extra", "why"), REFUSED, ids=[f"{c[0]}-{c[5]}" for c in REFUSED]
)
def test_a_form_that_opset_18_lacks_is_refused_by_name(
    op: str, opset: int, feeds: list[Any], attributes: dict[str, Any], extra: dict[str, Any], why: str
) -> None:
    constants, outputs, ranked = extra.get("c", ()), extra.get("n", 1), extra.get("ranked", True)
    with pytest.raises(ModelError) as caught:
        raised(old_node(op, opset, feeds, attributes, constants, outputs, ranked))
    assert why in caught.value.what
    assert op in caught.value.what
    assert "'the_node'" in caught.value.where
    assert (caught.value.node, caught.value.op_type, caught.value.opset) == ("the_node", op, opset)
