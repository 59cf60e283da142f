"""Every rule in bfloat16, on the reference evaluator: what it gives in float64 at the same rounded numbers.

onnxruntime's CPU provider has no kernels to compare with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_reduce_sum import ReduceSum_13
from reference import OPERATORS
from rule_cases import Case, feeds, forward_model, typed_input, with_gradients
from rule_tables import tables

BFLOAT16, FLOAT64 = np.dtype(ml_dtypes.bfloat16), np.dtype("float64")
LIMIT = 3.2e-2  # share of the largest element, or of 1; that of float16 (vjp_check) times 8, as its rounding is
OPSET = 22  # the first in which convolutions and pools take bfloat16

# What cannot be checked here: the specification gives the operator no bfloat16, or the evaluator cannot run it.
NO_BFLOAT16 = {"Col2Im", "Det", "Einsum", "OneHot", "ReverseSequence", "STFT", "MaxRoiPool"}
INTEGERS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}  # alone they lead to no float
EVALUATOR = {"MeanVarianceNormalization", "GlobalLpPool", "LpPool", "LRN", "RNN", "GridSample", "MaxUnpool", "Mean"}
EVALUATOR |= {"GroupNormalization"}  # whose scale has another length from opset 21 on


def in_float32(op: type) -> type:
    """The operator computes in float32, as kernels sum: NumPy rounds every term, and has no einsum of bfloat16."""

    def run(self: Any, *arrays: np.ndarray | None, **attributes: Any) -> tuple[np.ndarray, ...]:
        wide = [a.astype(np.float32) if a is not None and a.dtype == BFLOAT16 else a for a in arrays]
        narrow = any(a is not None and a.dtype == BFLOAT16 for a in arrays)
        results = op._run(self, *wide, **attributes)  # type: ignore[attr-defined]
        return tuple(y.astype(BFLOAT16) if narrow and y.dtype == np.float32 else y for y in results)

    return type(op.__name__.partition("_")[0], (op,), {"_run": run})


OPS = [*map(in_float32, [*OPERATORS, ReduceSum_13])]


def cases() -> dict[str, list[Case]]:
    found = defaultdict(list)
    for case in tables():
        if isinstance(case, Case) and case.op_type not in NO_BFLOAT16 | INTEGERS | EVALUATOR:
            found[case.op_type].append(replace(case, opset=max(case.opset, OPSET)))
    return found


CASES = cases()


def gradients(case: Case, dtype: np.dtype[Any], gs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    evaluator = ReferenceEvaluator(ir.to_proto(with_gradients(case, dtype, False)), new_ops=OPS)
    found = evaluator.run([f"grad{i}" for i in case.wrt], {**feeds(case, dtype), **gs})
    return [np.asarray(a, np.float64) for a in found]


def rounded(case: Case) -> Case:
    inputs = [
        x if x is None else typed_input(case, i, BFLOAT16).astype(np.asarray(x).dtype)
        for i, x in enumerate(case.inputs)
    ]
    return replace(case, inputs=inputs)


@pytest.mark.slow
@pytest.mark.parametrize("op_type", sorted(CASES))
def test_a_rule_gives_in_bfloat16_what_it_gives_in_float64(op_type: str) -> None:
    rng = np.random.default_rng(0)
    for case in map(rounded, CASES[op_type]):
        with np.errstate(all="ignore"):  # of the evaluator's forward operators
            evaluator = ReferenceEvaluator(forward_model(case, FLOAT64, False), new_ops=OPS)
            shapes = {
                k: y.shape for k, y in enumerate(evaluator.run(None, feeds(case, FLOAT64))) if y.dtype.kind == "f"
            }
            gs = {f"g{k}": rng.standard_normal(shape).astype(BFLOAT16) for k, shape in shapes.items()}
            exact = gradients(case, FLOAT64, {k: g.astype(FLOAT64) for k, g in gs.items()})
            found = gradients(case, BFLOAT16, gs)
        for a, b in zip(found, exact, strict=True):
            scale = max(float(np.abs(b).max(initial=0)), 1.0)
            np.testing.assert_allclose(a / scale, b / scale, atol=LIMIT, rtol=0, err_msg=str(case))
