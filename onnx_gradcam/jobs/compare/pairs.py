"""What a comparison says of one of its two models, and of one pair of maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Side:
    """One of the two models: what ran it, and what its maps were taken from.

    Attributes:
        model: the path of the model, or what it is called where it came from memory.
        providers: the execution providers in use, by full name.
        score: the score tensor.
        layers: the target layers; empty for methods of the input.
        attributed: the value that an attribution is of; "" for methods of layers.
        sha256: the hash of the model file, without its external data, as hex digits.
        provider_options: the options that were set, for each of the providers.
        precision: as in ``Provenance``.
        preprocess: how photos became tensors, each field with its source; None for arrays.
    """

    model: str
    providers: tuple[str, ...]
    score: str
    layers: tuple[str, ...]
    attributed: str = ""
    sha256: str = ""
    provider_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    precision: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Pair:
    """The two maps of one image.

    Attributes:
        image: its path, or its position among the images given.
        image_index: its place in the array, for .npy files with several.
        view_index: which of its views or frames, where a model looks at several.
        class_index, label: what both maps explain; −1 where it is of no class.
        target: the same as ``--target`` has it.
        top1_a, top1_b: the class that each model puts first; −1 for outputs that are no classes.
        pearson, iou, distance_px, distance: correlation of the maps, overlap of their highest 20 %, and distance of
            their peaks, in pixels and as a share of the diagonal; all within the region that both models saw. None
            where both maps are blank: they agree in saying nothing, and count in no statistic.
        note: "", or why a map says nothing: it is blank, the same everywhere, or not finite. Where one of two says
            nothing, the pair counts as disagreement: 0, 0 and 1. Of detectors and segmenters also: that the most
            probable cells differ.
        sha256: the hash of the image's file, as hex digits; None for an image from memory.
    """

    image: str
    image_index: int
    class_index: int
    label: str
    target: str
    top1_a: int
    top1_b: int
    pearson: float | None
    iou: float | None
    distance_px: float | None
    distance: float | None
    note: str = ""
    sha256: str | None = None
    view_index: int = 0
