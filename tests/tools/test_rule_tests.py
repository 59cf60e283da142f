"""What docs/operators.md says of tests is read from the tests."""

from __future__ import annotations

from rule_tests import checked_by

from onnx_gradcam.autodiff import rules  # noqa: F401 (importing the rules registers them)
from onnx_gradcam.autodiff.registry import RULES

ROUNDING = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}  # differences of these prove nothing
BRANCHING = {"If"}  # has tests of its own, on whole graphs


def test_every_rule_is_checked_against_differences() -> None:
    assert {op_type for op_type, _ in RULES} - checked_by("check_vjp", "check_affine") == ROUNDING | BRANCHING


def test_what_calls_a_check_is_seen_and_nothing_else() -> None:
    assert {"Relu", "Conv", "Einsum"} <= checked_by("check_torch")
    assert "Concat" not in checked_by("check_torch")  # has no row there
    assert {"LSTM", "GRU", "RNN"} <= checked_by("importorskip")  # parametrized over names
    assert "Celu" not in checked_by("check_float16")  # left out of the table by name
    assert checked_by("no such check") == frozenset()
