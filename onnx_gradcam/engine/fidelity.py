"""The promise that the rewritten model computes what the deployed one does: one comparison, for all who make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_gradcam.engine.batches import run_in_pieces
from onnx_gradcam.engine.session import Options, Session, unoptimised
from onnx_gradcam.graph.load import Source
from onnx_gradcam.graph.quantization import is_quantized

LIMITS = {"float16": 2e-2, "bfloat16": 1e-1}  # share of the largest output
LIMIT = 1e-4  # of every other dtype
SELECTIONS = frozenset("ArgMax ArgMin NonMaxSuppression NonZero TopK".split())


@dataclass(frozen=True)
class OutputDifference:
    """The largest difference of one output from the deployed model's, as a share of the largest magnitude."""

    output: str
    error: float
    limit: float

    @property
    def ok(self) -> bool:
        """Tell whether the difference is within what rounding explains."""
        return self.error <= self.limit


def differences(
    source: Source,
    options: Options,
    found: Mapping[str, Any],
    feeds: Mapping[str, np.ndarray],
    batch: int | None,
) -> list[OutputDifference]:
    """Compare ``found`` {output: result} with what the untouched model gives on the same ``feeds``, provider and
    options.

    The session is opened for this and closed again. Outputs that the deployed model does not have are passed over.
    """
    return differences_from(Session(source.deployed, options), source, found, feeds, batch)


def differences_from(
    deployed: Session, source: Source, found: Mapping[str, Any], feeds: Mapping[str, np.ndarray], batch: int | None
) -> list[OutputDifference]:
    """Compare ``found`` {output: result} with what an open session of the untouched model gives on ``feeds``."""
    names = [name for name in deployed.outputs if name in found]
    own = {name: array for name, array in feeds.items() if name in deployed.inputs}
    original = run_in_pieces(deployed.run, names, own, batch)
    return [
        OutputDifference(name, relative_difference(found[name], original[name]), _limit(original[name], source))
        for name in names
    ]


def rounding_decides(graph: ir.Graph) -> bool:
    """Tell whether rounding may change more than last digits: a model of integers, or one that selects by rank."""
    return is_quantized(graph) or any(node.op_type in SELECTIONS for node in graph)


def own_difference(source: Source, options: Options, feeds: Mapping[str, np.ndarray], batch: int | None) -> float:
    """Return the largest difference between the deployed model with and without the runtime's own optimisations.

    A quantized model rounds: whether kernels are fused decides which way, and so it does which of two nearly equal
    entries is selected first.
    """
    sessions = [Session(source.deployed, each) for each in (options, unoptimised(options))]
    own = {name: array for name, array in feeds.items() if name in sessions[0].inputs}
    fused, plain = (run_in_pieces(session.run, session.outputs, own, batch) for session in sessions)
    return max(relative_difference(fused[name], plain[name]) for name in fused)


def _limit(result: Any, source: Source) -> float:
    """Return the widest of the output's own and of the weights': a float32 output may be a Cast of float16 numbers."""
    weights = {str(v.dtype).lower() for v in source.model.graph.initializers.values()}
    return max(LIMITS.get(dtype, LIMIT) for dtype in (*weights, str(getattr(result, "dtype", ""))))


def relative_difference(found: Any, expected: Any) -> float:
    """Return the largest difference, as a share of the largest magnitude; 0 for equal and inf for different
    non-numbers."""
    if not isinstance(expected, np.ndarray) or expected.dtype.kind not in "fiub":
        return 0.0 if _equal(found, expected) else float("inf")
    if found.shape != expected.shape:
        return float("inf")
    a, b = found.astype(np.float64), expected.astype(np.float64)
    different = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not different.any():
        return 0.0
    largest = np.abs(b[np.isfinite(b)]).max(initial=1e-30)
    error = float(np.abs(a - b)[different].max() / largest)
    return float("inf") if np.isnan(error) else error


def _equal(found: Any, expected: Any) -> bool:
    return bool(np.array_equal(np.asarray(found, object), np.asarray(expected, object)))


def worst(found: Sequence[OutputDifference]) -> OutputDifference | None:
    """Return the difference furthest beyond its limit, None where there is none to compare."""
    return max(found, key=lambda d: d.error / d.limit, default=None)
