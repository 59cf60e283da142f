"""The promise that an exported model computes what the module does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch.utils import _pytree

from onnx_gradcam.engine.fidelity import LIMIT, LIMITS, relative_difference
from onnx_gradcam.engine.session import Options, Session
from onnx_gradcam.errors import ForwardMismatch
from onnx_gradcam.graph.names import SCALE_INPUT, TARGET_INDEX
from onnx_gradcam.roads.torch.taps import evaluating, tapped


def check_forward(
    model: ir.Model,
    added: Mapping[str, str],
    module: Any,
    examples: Sequence[Any],
    outputs: Sequence[str],
    layers: Sequence[str],
) -> None:
    """Compare outputs and activations on random inputs of the examples' shapes; integers are taken from the examples.

    Args:
        model: the exported model.
        added: its inputs beside the module's own, as in ``GradientNames``.
        module: the module.
        examples: the tensors of one call.
        outputs: the names of the module's outputs.
        layers: the module paths of the target layers.

    Raises:
        ForwardMismatch: a value differs; the one that differs most is named.
        ProviderError: there is no runtime.
    """
    inputs = _random(examples)
    with evaluating(module), tapped(module, layers), torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        results = [x for x in _pytree.tree_leaves(module(*inputs)) if isinstance(x, torch.Tensor)]
    session = Session(model, Options(("cpu",)))
    own = [name for name in session.inputs if name not in added.values()]
    feeds = {name: x.cpu().numpy() for name, x in zip(own, inputs, strict=True)}
    feeds[added[TARGET_INDEX]] = np.full(len(examples[0]), -1)
    if SCALE_INPUT in added:
        feeds[added[SCALE_INPUT]] = np.array(1, np.float32)
    expected = dict(zip([*outputs, *layers], results, strict=True))
    found = session.run(list(expected), feeds)
    errors = {name: relative_difference(found[name], x.cpu().numpy()) / _limit(x) for name, x in expected.items()}
    worst = max(errors, key=lambda name: errors[name])
    if errors[worst] > 1:
        error = errors[worst] * _limit(expected[worst])
        raise ForwardMismatch(
            f"the exported model computes something else than the module: {worst!r} is off by {error:.2g} of its peak",
            where="torch's exporter, which takes some settings for others (AvgPool2d's divisor_override is one)",
            hint="the settings of the layers before that value; check_forward=False writes the file as it is",
            name=worst,
            error=error,
        )


def _random(examples: Sequence[Any]) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(x.shape, generator=generator).to(x) if x.is_floating_point() else x for x in examples]


def _limit(x: Any) -> float:
    return LIMITS.get(str(x.dtype).removeprefix("torch."), LIMIT)
