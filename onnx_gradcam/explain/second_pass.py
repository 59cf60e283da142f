"""What evaluates a network at its inputs and at baselines of these, in one run."""

from __future__ import annotations

from collections.abc import Mapping

from onnx_gradcam.autodiff.multipliers.table import rescale_rules
from onnx_gradcam.engine.evaluation import Evaluation
from onnx_gradcam.engine.passes import Backward
from onnx_gradcam.explain.network import Network
from onnx_gradcam.graph.second_pass import baseline_inputs, with_second_pass

DIFFERENCES = "differences"
"""An evaluation of the multipliers between inputs and their baselines."""


def evaluation_of_differences(network: Network, moving: tuple[str, ...]) -> tuple[Evaluation, Mapping[str, str]]:
    """Return the evaluation of multipliers, and for each moving input the one that takes its baseline."""

    def make() -> Evaluation:
        second = with_second_pass(network.scored_model, moving)
        return network.new_evaluation(moving, Backward(rescale_rules(second.names)), second.model)

    return network.kept((moving, DIFFERENCES), make), baseline_inputs(network.scored_model.graph, moving)
