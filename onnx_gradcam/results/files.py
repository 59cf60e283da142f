"""Results as files: for each row a PNG and an NPY, their names, and their entry in the manifest."""

from __future__ import annotations

import hashlib
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import one_line
from onnx_gradcam.photos.volume import VolumeSpace, encode_volume
from onnx_gradcam.results.picture import overlay
from onnx_gradcam.results.picture.overlay import Picture
from onnx_gradcam.results.picture.style import PLAIN, Style
from onnx_gradcam.results.provenance import Provenance
from onnx_gradcam.results.scales import Scales

LONGEST_STEM, LONGEST_SLUG = 120, 60  # bytes: a name with method and target stays below the 255 of file systems


@dataclass(frozen=True)
class Subject:
    """An image that was explained, as the manifest names it.

    Attributes:
        stem: the first part of the names of its files.
        path: where the image comes from; None for arrays.
        sha256: the hash of the image file, as hex digits; None for arrays.
    """

    stem: str
    path: str | None = None
    sha256: str | None = None


def stems(names: Sequence[str], paths: Sequence[Path], taken: Iterable[str] = ()) -> list[str]:
    """Return the first part of the names of each image's files, its folders before it: "cats/tabby".

    Equal names, as file systems compare them, and names that are too long get 8 hex digits of the hash of their path.

    Args:
        names: for each image its name among the images of the run.
        paths: for each image where it lies.
        taken: what other images are called already.
    """
    counts = Counter(name.casefold() for name in [*names, *taken])
    return [_stem_of(name, path, counts[name.casefold()] > 1) for name, path in zip(names, paths, strict=True)]


def _stem_of(name: str, path: Path, is_shared: bool) -> str:
    folder, slash, last = name.rpartition("/")
    data = last.encode("utf-8", "surrogateescape")
    if len(data) > LONGEST_STEM:
        last = data[:LONGEST_STEM].decode("utf-8", "ignore")
    elif not is_shared:
        return name
    return f"{folder}{slash}{last}-{_digits(str(path))}"


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


@dataclass(frozen=True, eq=False, repr=False)
class MapFile:
    """One map as it is written to a file.

    Attributes:
        heatmap: (*size) float32 in [−1, 1].
        attribution: (*input shape) float32 for methods of the input; None for others.
        method: the method that made it, for messages.
        record: what the manifest says of it; "image_index" and "view_index" among it are read here, too.
        volume: where the voxels of the map lie, for a map that is written as NIfTI, too; None for others.
    """

    heatmap: npt.NDArray[Any]
    attribution: npt.NDArray[Any] | None
    method: str
    record: Mapping[str, Any]
    volume: VolumeSpace | None = None

    def __repr__(self) -> str:
        return one_line(self)


@dataclass(frozen=True, eq=False)
class Sheet:
    """The files of one row: a picture, and the numbers of one or several maps.

    Attributes:
        title: what was explained, in words.
        method: the method as it stands in file names.
        target: the target as it stands in file names.
        images: how many images the result has; where there are several, their numbers stand in file names.
        views: how many views or frames each image has; where there are several, their numbers stand there, too.
        figure: a function that draws the picture in a style; None where maps cannot be drawn.
        maps: the maps, by the part of the file name before ``.npy``; "" for a single map.
    """

    title: str
    method: str
    target: str
    images: int
    figure: Callable[[Style], Picture] | None
    maps: Mapping[str, MapFile]
    views: int = 1


class Result(Protocol):
    """A result that can be written."""

    @property
    def warnings(self) -> Sequence[str]:
        """Return what the user should know, one sentence each."""

    @property
    def provenance(self) -> Provenance:
        """Return the record of the model and the run that the result comes from."""

    def account(self) -> Mapping[str, Any]:
        """Return what the manifest says of model, score, layers and method."""

    def sheets(self) -> Sequence[Sheet]:
        """Return the files of each row."""

    def peaks(self) -> Scales:
        """Return for each unit of the maps their largest scale."""

    def at_scale(self, scale: float | Scales) -> Result:
        """Return the same maps with another scale."""


def encode(result: Result, subject: Subject, style: Style = PLAIN) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of all rows of an image, by name, and its entry for the manifest."""
    payload: dict[str, bytes] = {}
    rows = []
    for sheet in result.sheets():
        stem = _free(_stem(sheet, subject), payload)
        if sheet.figure is not None:
            payload[f"{stem}.png"] = overlay.encode_png(sheet.figure(style))
        for part, entry in sheet.maps.items():
            name = f"{stem}.{part}.npy" if part else f"{stem}.npy"
            payload[name] = encode_npy(entry.heatmap)
            named = {"part": part or None, "png": f"{stem}.png" if sheet.figure else None, "npy": name}
            if entry.attribution is not None:
                beside = f"{name.removesuffix('.npy')}.attribution.npy"
                payload[beside] = encode_npy(entry.attribution)
                named["attribution"] = beside
            if entry.volume is not None:
                in_space = f"{name.removesuffix('.npy')}.nii.gz"
                payload[in_space] = encode_volume(entry.heatmap, entry.volume)
                named["nii"] = in_space
            rows.append({**entry.record, **named})
    preprocess = result.provenance.preprocess
    return payload, {
        "image": subject.path,
        "sha256": subject.sha256,
        "stem": subject.stem,
        "rows": rows,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in payload.items()},
        "preprocess": preprocess.record() if preprocess else None,
        "warnings": list(result.warnings),
    }


def _free(stem: str, names: Mapping[str, bytes]) -> str:
    """Return a stem that no other row of the image has: a target may be requested twice, under two names."""
    candidates = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
    return next(c for c in candidates if not any(name.startswith(f"{c}.") for name in names))


def encode_npy(array: npt.NDArray[Any]) -> bytes:
    """Return an array as the content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _stem(sheet: Sheet, subject: Subject) -> str:
    record = next(iter(sheet.maps.values())).record
    image = f"-{record['image_index']}" if sheet.images > 1 else ""
    view = f"-view{record['view_index']}" if sheet.views > 1 else ""
    return f"{subject.stem}{image}{view}.{sheet.method}.{sheet.target}"


def slug(target: str) -> str:
    """Return a target as it stands in file names, made of [a-z0-9-]."""
    return _slug(f"minus {target[1:]}" if target.startswith("-") else target)


def _slug(text: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"
    return words if len(words) <= LONGEST_SLUG else f"{words[:LONGEST_SLUG].rstrip('-')}-{_digits(text)}"
