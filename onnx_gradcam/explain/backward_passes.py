"""The ways back from a score: which rules each kind of method takes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from onnx_gradcam.autodiff.rectifiers.gating import GATES, deconvolution_rules, guided_rules
from onnx_gradcam.autodiff.relevance.settings import RelevanceSettings
from onnx_gradcam.autodiff.relevance.table import relevance_of, relevance_rules
from onnx_gradcam.engine.passes import Backward

TAIL = "tail"
"""An evaluation whose forward passes return what the graphs behind layers read: it has no backward pass."""
BACKWARD_PASSES: Mapping[str, Backward] = {
    "gradient": Backward(),
    TAIL: Backward(),
    "curvature": Backward(second_order=True),
    **{
        f"{name} of {which}{side}": Backward(rules(gate), sign=sign)
        for name, rules in (("guided", guided_rules), ("deconvolution", deconvolution_rules))
        for which, gate in GATES.items()
        for side, sign in (("", 1), (" counterfactual", -1))
    },
}


def backward_pass(request: str | RelevanceSettings) -> Backward:
    """Return one of ``BACKWARD_PASSES`` by its name, or that of the relevance rules that these settings choose."""
    if isinstance(request, str):
        return BACKWARD_PASSES[request]
    return Backward(relevance_rules(request), finish=partial(relevance_of, settings=request))
