"""What a user asked ``explain`` for, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from onnx_gradcam.jobs.model_options import PLAIN_DEFAULTS, Plain
from onnx_gradcam.jobs.pictures import Pictures
from onnx_gradcam.photos.decode import MAX_PIXELS


@dataclass(frozen=True)
class Request:
    """What the user asked for, as plain data: a manifest holds it, and repeating it repeats the run.

    Attributes:
        model: path of the model.
        images: files, folders and globs.
        method, layers, labels, counterfactual, signed, fusion, smooth, levels: as for ``Explainer`` and ``explain``.
        targets: texts of ``--target``.
        preprocess: "auto", a preset, a short form, or the path of a JSON file.
        inputs: texts NAME=FILE.npy, for the model's other inputs.
        both: show what speaks for a target and what speaks against it.
        question: a question about each photo, for a model that reads words.
        sentence: one about each photo whose words are explained; "own": what the model itself says.
        true: the true class of all images, the path of a table, or "folder": each photo's folder names it.
        options: texts NAME=VALUE, for the method.
        vocabulary: the path of the words of a model that reads tokens.
        tile: SIZE or SIZE,OVERLAP in pixels: photos are explained tile by tile; None: as a whole.
        every: of a video every so many frames the first is explained.
        strict: refuse a preprocessing that is guessed.
        max_pixels: the largest photo that is decoded.
        threshold: the probability below which nothing is detected; None: that of the family of models.
        model_options: by name, those of ``MODEL_OPTIONS`` that were given.
        pictures: how results are drawn, and at which scale.
    """

    model: str
    images: tuple[str, ...]
    method: str = "auto"
    layers: tuple[str, ...] = ("auto",)
    targets: tuple[str, ...] = ("top1",)
    labels: str | None = None
    preprocess: str = "auto"
    inputs: tuple[str, ...] = ()
    counterfactual: bool = False
    signed: bool = False
    both: bool = False
    question: str | None = None
    sentence: str | None = None
    true: str | None = None
    fusion: str = "mean"
    smooth: tuple[str, ...] = ()
    levels: str = "own"
    options: tuple[str, ...] = ()
    vocabulary: str | None = None
    tile: str | None = None
    every: int = 1
    strict: bool = False
    max_pixels: int = MAX_PIXELS
    threshold: float | None = None
    model_options: Mapping[str, Plain] = field(default_factory=dict)
    pictures: Pictures = field(default_factory=Pictures)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Request:
        """Read what ``as_dict`` returned.

        Raises:
            TypeError: a key is unknown, or one is missing.
        """
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        options = {name: plain.pop(name) for name in PLAIN_DEFAULTS if name in plain}
        pictures = {f.name: plain.pop(f.name) for f in fields(Pictures) if f.name in plain}
        return cls(**plain, model_options=options, pictures=Pictures(**pictures))

    def as_dict(self) -> dict[str, Any]:
        """Return the request as JSON has it; the options of model and pictures stand among the others."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("model_options", "pictures")}
        content = {**own, **PLAIN_DEFAULTS, **self.model_options, **asdict(self.pictures)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in content.items()}
