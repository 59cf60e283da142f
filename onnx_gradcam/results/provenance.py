"""How an explanation came about, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx_gradcam.photos.preprocess.choice import Choice


@dataclass(frozen=True)
class Provenance:
    """What the manifest records of the model and of the run.

    Attributes:
        model: the path of the model, or what it is called where it came from memory.
        sha256: the hash of the model file, without its external data, as hex digits.
        versions: of the tool, onnx, NumPy and the runtime, and the providers that this was built with.
        providers: the execution providers in use, by full name.
        provider_options: for each of them the options that were set.
        precision: "dtype" of the score, and "tf32": whether CUDA may round products (None for other providers).
        score: the ONNX value whose entries are the scores.
        score_activation: the Softmax, LogSoftmax or Sigmoid behind it that was walked back over, or "".
        labels: where the class names come from.
        layers, layer_reasons: the target layers, and why each was taken.
        fusion: how several layers became one map; None for a single one.
        check_forward: whether the outputs were compared with the untouched model.
        gradient_scale: what the gradients of a 16-bit model were multiplied with on their way; None for others.
        preprocess: how the photo became a tensor, with the source of each choice; None for arrays.
    """

    model: str
    sha256: str
    versions: Mapping[str, str]
    providers: tuple[str, ...]
    provider_options: Mapping[str, Mapping[str, str]]
    precision: Mapping[str, Any]
    score: str
    score_activation: str
    labels: str
    layers: tuple[str, ...]
    layer_reasons: tuple[str, ...]
    fusion: str | None
    check_forward: bool
    gradient_scale: float | None
    preprocess: Choice | None = None
