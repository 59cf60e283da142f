"""The record of the model and the run that an explanation comes from, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx_gradcam.photos.function import UserFunction
from onnx_gradcam.photos.preprocess.choice import Choice


@dataclass(frozen=True)
class Provenance:
    """The model and the run that an explanation comes from; the manifest records them.

    Attributes:
        model: the path of the model, or a name for a model from memory.
        sha256: the hash of the model file, without its external data, as hex digits.
        versions: the versions of this tool, onnx, NumPy and the runtime, and the providers that the runtime has.
        providers: the execution providers in use, by full name.
        provider_options: the options that were set, for each of these providers.
        precision: "dtype" of the score, and "tf32": whether CUDA may round products (None for other providers).
        score: the ONNX value whose entries are the scores.
        score_activation: the Softmax, LogSoftmax or Sigmoid after this value, which the score leaves out, or "".
        labels: where the class names come from.
        layers: the target layers.
        layer_reasons: for each target layer why it was chosen.
        fusion: how several layers became one map; None for a single layer.
        check_forward: whether the outputs were compared with those of the untouched model.
        gradient_scale: the factor that kept the gradients of a 16-bit model in range; None for other models.
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
    preprocess: Choice | UserFunction | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what the manifest says of model and run, ready for JSON; preprocessing stands with each image."""
        return {
            "versions": dict(self.versions),
            "model": {"path": self.model, "sha256": self.sha256},
            "providers": list(self.providers),
            "provider_options": {name: dict(options) for name, options in self.provider_options.items()},
            "precision": dict(self.precision),
            "score": self.score,
            "score_activation": self.score_activation,
            "labels": self.labels,
            "layers": list(self.layers),
            "layer_reasons": list(self.layer_reasons),
            "fusion": self.fusion,
            "check_forward": self.check_forward,
            "gradient_scale": self.gradient_scale,
        }
