"""Maps that show only where a cell is: no larger than the last kernel before it."""

from __future__ import annotations

import dense_kinds
import numpy as np
import onnx
import pytest

import onnx_gradcam as ogc

X = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)


def dense(name: str) -> onnx.ModelProto:
    return dense_kinds.model(dense_kinds.KINDS[name].write)


@pytest.mark.parametrize(("layer", "is_told"), [("auto", False), ("neck0", True), ("top0", True)])
def test_a_map_of_the_last_kernel_is_named(layer: str, is_told: bool) -> None:
    """The 3 × 3 places that the last kernel reads, or the one behind it: named in remarks and picture."""
    with ogc.Explainer(dense("raw v8"), layer, providers=["cpu"]) as explainer:
        found = explainer.explain(X, 0, "hirescam")
        averaged = explainer.explain(X, 0, "gradcam")
    level0 = found.layers[0]
    assert level0.gradient is not None
    places = np.argwhere(level0.gradient[0].any(axis=0))
    longest = int((places.max(axis=0) - places.min(axis=0) + 1).max()) if len(places) else 0
    assert (0 < longest <= 3) is is_told
    assert any("tautological" in warning for warning in found.warnings) is is_told
    assert any("tautological" in line for line in found.cautions(0)) is is_told
    assert not any("tautological" in line for line in averaged.cautions(0))
