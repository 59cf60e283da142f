"""Repeat the run that a manifest describes, and compare its maps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import OutputError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.jobs.checks import check_request
from onnx_gradcam.jobs.images import explain_file
from onnx_gradcam.jobs.pictures import Pictures
from onnx_gradcam.jobs.plan import Plan, open_explainer, settle
from onnx_gradcam.jobs.request import Request
from onnx_gradcam.photos.decode import load_tensor
from onnx_gradcam.photos.listing import of_file
from onnx_gradcam.results import files
from onnx_gradcam.results.journal import sha256
from onnx_gradcam.results.scales import IMAGE

HEATMAP_TOLERANCE = 1e-3  # of a heatmap in [0, 1]: another provider or thread count rounds differently


@dataclass(frozen=True)
class Repeat:
    """How one row of a repeated run compares with the one that was written.

    Attributes:
        image: the path of the image.
        npy: the file of the heatmap.
        difference: the largest difference of the heatmaps; NaN where they cannot be compared.
        note: what has changed beside the map, "" for nothing.
    """

    image: str
    npy: str
    difference: float
    note: str

    @property
    def same(self) -> bool:
        """Return whether the maps agree within the tolerance and nothing else has changed."""
        return not self.note and self.difference <= HEATMAP_TOLERANCE


@dataclass(frozen=True)
class _Before:
    """What a manifest says of one image: its path, its hash, and its rows."""

    path: Path
    sha256: str
    rows: Sequence[Mapping[str, Any]]

    def failed(self, note: str) -> list[Repeat]:
        """Return rows that cannot be compared."""
        return [Repeat(str(self.path), row["npy"], float("nan"), note) for row in self.rows]


def repeat(manifest: Path) -> list[Repeat]:
    """Run what a manifest describes again, and compare every heatmap with the one that was written.

    Raises:
        OutputError: the manifest cannot be read.
        OnnxGradcamError: all that ``run`` raises.
    """
    request, model_sha256, images = _read(manifest)
    values = check_request(request)
    with open_explainer(request) as explainer:
        plan = settle(request, values, explainer, [of_file(image.path) for image in images])
        note = "" if explainer.source.sha256 == model_sha256 else "the model file has changed"
        return [row for image in images for row in _repeat_image(explainer, plan, manifest.parent, image, note)]


def _read(manifest: Path) -> tuple[Request, str, list[_Before]]:
    try:
        content = json.loads(manifest.read_text("utf-8"))
        request = Request.from_dict(content["request"])
        images = [_Before(Path(r["image"]), r["sha256"], r["rows"]) for r in content["results"]]
        return request, content["model"]["sha256"], images
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{str(manifest)!r} is not a manifest that can be repeated: {error}",
            hint="the manifest.json that `onnx-gradcam explain` wrote",
            path=manifest,
        ) from None


def _repeat_image(explainer: Explainer, plan: Plan, folder: Path, before: _Before, note: str) -> list[Repeat]:
    if not before.path.is_file():
        return before.failed("the image is gone")
    if sha256(before.path) != before.sha256:
        note = note or "the image has changed"
    result = explain_file(explainer, before.path, plan)
    maps = [entry for sheet in result.sheets() for entry in sheet.maps.values()]
    if len(maps) != len(before.rows):
        return before.failed(note or "another number of maps")
    rows = []
    for entry, row in zip(maps, before.rows, strict=True):
        old, new = load_tensor(folder / row["npy"]), _heatmap(entry, row, plan.pictures)
        if old.shape != new.shape or entry.record["target"] != row.get("target", str(row["class_index"])):
            rows.append(Repeat(str(before.path), row["npy"], float("nan"), note or "another class or shape"))
        else:
            rows.append(Repeat(str(before.path), row["npy"], float(np.abs(old - new).max()), note))
    return rows


def _heatmap(entry: files.MapFile, before: Mapping[str, Any], pictures: Pictures) -> np.ndarray:
    """Return a new map at the scale at which it was written, where maps of that run had a common scale."""
    if pictures.file_scale == IMAGE or entry.record["is_blank"]:
        return entry.heatmap
    share = float(entry.record["scale"]) / float(before["scale"])
    return np.clip(entry.heatmap * np.float32(share), -1, 1)
