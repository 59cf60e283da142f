"""From an ``nn.Module`` to an ONNX file with gradients. torch is imported when ``export`` is called, and not before."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from onnx_gradcam.errors import ModelError, ProviderError

Autodiff = Literal["onnx", "torch"]
NEEDED = ("torch", "onnxscript")
# torch's exporter keeps state for the whole process. So do its switches for TF32 and for kernels of attention, which
# are set for a while and put back: two exports at once would leave them wrong.
_ONE_AT_A_TIME = threading.Lock()


def export(
    module: Any,
    example_inputs: Sequence[Any],
    path: str | os.PathLike[str],
    target_layer: str | Sequence[str],
    *,
    dynamic_shapes: Any = None,
    score: str = "auto",
    autodiff: Autodiff = "onnx",
    check_forward: bool = True,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
) -> Path:
    """Write ``module`` to ``path`` as one ONNX file with activations and gradients as further outputs; return the path.

    The file is what ``gradient_model`` makes of an exported one: the module's own outputs; for each target layer the
    activation under the layer's name and ``grad/<layer>`` of the same shape; ``grad/score`` (N,) and
    ``grad/class_index`` (N,); the extra input ``target_index`` int64 (N,), −1 for the model's own top-1. It runs on a
    stock onnxruntime. The module is exported in evaluation mode, and left as it was. Of calls in several threads one
    works at a time.

    Args:
        module: an ``nn.Module``.
        example_inputs: the tensors of one call, a tuple.
        target_layer: module path(s) as in ``module.named_modules()``, "layer4.2" say, or the name of an input. The
            activation is the tensor that the module returns, before anything is done to it in place.
        dynamic_shapes: as in ``torch.onnx.export``.
        score: the name of the output that is explained; "auto" as in ``Explainer``.
        autodiff: "onnx": by the rules of this package, on the exported graph. "torch": by torch's own autograd, whose
            trace is exported; for classifiers and regressions in float32 or float64.
        check_forward: compare outputs and activations with the module's, on random inputs, before the file is written.
        input_names, output_names, opset_version: as in ``torch.onnx.export``.

    Raises:
        ProviderError: torch or onnxscript is not installed, or no onnxruntime to check with.
        ForwardMismatch: the exported model computes something else than the module.
        LayerError: a layer does not exist, is not called exactly once, or does not return one tensor.
        InputError, ModelError, ScoreError, UnsupportedGradient, NoGradientPath; and what ``torch.onnx.export`` raises
        for a module that it cannot export.
    """
    _require()
    if autodiff not in ("onnx", "torch"):
        raise ModelError(f"autodiff={autodiff!r} is not known", hint="'onnx' or 'torch'")
    from onnx_gradcam.roads.torch import checking, exporting

    names = [target_layer] if isinstance(target_layer, str) else list(dict.fromkeys(target_layer))
    inputs = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    request = exporting.ExportRequest(module, inputs, dynamic_shapes, input_names, output_names, opset_version)
    make = exporting.by_rules if autodiff == "onnx" else exporting.by_autograd
    with _ONE_AT_A_TIME:
        made = make(request, names, score)
        if check_forward:
            checking.check_forward(made.model, made.names.inputs, module, inputs, made.outputs, made.layers)
    return exporting.write(made.model, made.names, Path(path))


def _require() -> None:
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ProviderError(
                f"exporting an nn.Module needs the package {name!r}, which is not installed",
                hint='pip install "onnx-gradcam[torch]"; an exported .onnx file needs none of it: Explainer(path)',
                package=name,
            )
