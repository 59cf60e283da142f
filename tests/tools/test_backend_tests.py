"""ONNX's own backend cases: the tool that judges them, on a few cases and on gradients that are wrong on purpose."""

from __future__ import annotations

import functools
import time
from dataclasses import replace

import backend_case
import backend_tests
import numpy as np
import onnx
import onnxruntime
import pytest
from backend_case import Case, Row, examine
from nets import one_node
from onnx import TensorProto, helper
from planted import planted, scaled

from onnx_gradcam.autodiff.walk import pull_back

F = np.float32


def case(op_type: str, *inputs: np.ndarray, name: str = "case", **attributes: object) -> Case:
    return Case("node", name, one_node(op_type, inputs, attributes), list(inputs))


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(F)


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (case("Tanh", random(2, 3)), "agrees"),
        (case("Relu", np.array([0, 1, -1], F)), "kink"),
        (case("Sqrt", np.array([0, 1, 4], F)), "kink"),
        (case("Ceil", random(3)), "none"),
        (case("Unique", np.array([2, 1, 1, 3], F)), "kink"),
        (case("Neg", np.array([1, 2])), "passed over"),
        (case("CumSum", random(2, 3), np.array(0, np.int32)), "agrees"),
        (case("CumProd", random(2, 3), np.array(0, np.int32)), "passed over"),  # that opset has no such operator
        (case("Dropout", random(2, 3), np.array(0.5, F), np.array(True)), "refused"),
    ],
    ids=lambda given: given.model.graph.node[0].op_type if isinstance(given, Case) else given,
)
def test_a_case_gets_its_verdict(given: Case, verdict: str) -> None:
    row = examine(given)
    assert row.verdict == verdict, row


def test_a_refusal_names_operator_and_reason() -> None:
    row = examine(case("Dropout", random(2, 3), np.array(0.5, F), np.array(True)))
    assert row.refusals == (("Dropout", "training_mode that is not constantly false for Dropout, input 0"),)


def test_an_axis_that_is_an_input_is_tried_as_a_constant() -> None:
    inputs = [random(2, 3), np.array(1, np.int32)]
    row = examine(Case("node", "case", one_node("CumProd", inputs, opset=26), inputs))
    assert row.verdict == "folded"
    assert row.refusals == (("CumProd", "an axis that is not constant for CumProd, input 0"),)


def test_a_wrong_rule_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = planted("Tanh", 0, scaled(1.01))
    monkeypatch.setattr(backend_case, "pull_back", functools.partial(pull_back, table=wrong))
    row = examine(case("Tanh", random(2, 3)))
    assert row.verdict == "wrong"
    assert "differences" in row.message


def test_weights_are_differentiated_too() -> None:
    x, w = random(2, 3), random(3, 4)
    model = one_node("MatMul", [x, w], constants=[1])
    row = examine(Case("simple", "weights", model, [x]))
    assert (row.verdict, row.inputs, row.oracle) == ("agrees", 2, "reference")


def test_bfloat16_goes_in_and_out() -> None:
    import ml_dtypes

    x = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    node = helper.make_node("Transpose", ["x"], ["y"])
    values = [
        helper.make_tensor_value_info(name, TensorProto.BFLOAT16, [2, 3][::step])
        for name, step in (("x", 1), ("y", -1))
    ]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]), ir_version=8)
    model.opset_import[0].version = 18
    assert examine(Case("node", "bfloat16", model, [x])).verdict == "agrees"


def test_whatever_is_raised_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the inliner fails")

    monkeypatch.setattr(backend_case, "pull_back", fail)
    row = examine(case("Tanh", random(2, 3)))
    assert (row.verdict, row.message) == ("crash", "RuntimeError: the inliner fails")


def test_the_page_counts_and_names() -> None:
    refused = Row("node", "test_b", 18, ("CumProd",), "refused", "no", refusals=(("CumProd", "an | axis"),))
    page = backend_tests.page([Row("node", "test_a", 18, ("Relu",), "agrees"), refused])
    assert "| all | 2 | 0 | 0 | 1 | 0 | 0 | 1 | 0 | 0 |" in page
    assert "| CumProd | an &#124; axis | 1: b |" in page


def test_the_page_is_of_the_installed_onnx_and_runtime() -> None:
    """Where it fails, onnx or onnxruntime has moved on: `make backend-tests` says what became of the gradients."""
    versions = f"onnx {onnx.__version__} and onnxruntime {onnxruntime.__version__}"
    assert versions in backend_tests.PAGE.read_text("utf-8")


@pytest.mark.slow
def test_a_worker_examines() -> None:
    key = ("simple", "test_single_relu_model")
    (row,) = backend_tests.examined([key], 1, 90)
    assert (row.kind, row.name, row.verdict) == (*key, "agrees")


@pytest.mark.slow
def test_a_worker_that_is_late_is_ended() -> None:
    late = replace(backend_tests._start(), key=("simple", "test_single_relu_model"), since=time.monotonic() - 2)
    assert backend_tests._received(late, False, 90) is None
    row = backend_tests._received(late, False, 1)
    assert row is not None
    assert (row.verdict, row.message) == ("crash", "not done after 1 s")
    assert late.process.exitcode is not None
