"""From samples to what is measured: the tensor of a photo, its class, and where its object lies in the tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnx_gradcam.errors import InputError, TargetError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.photo import prepare_photo
from onnx_gradcam.jobs.data.samples import NamedRegion, Sample, boxes_of, region_of
from onnx_gradcam.jobs.plan import is_array
from onnx_gradcam.jobs.truth import FOLDER, no_label
from onnx_gradcam.photos.decode import load_tensor
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.photos.inputs import check_feeds, input_space
from onnx_gradcam.photos.preprocess.choice import Choice
from onnx_gradcam.targets import class_index

HALF = 0.5  # of a pixel of the input lies on the object


@dataclass(frozen=True, eq=False)
class ReadySample:
    """A sample that is ready for the model.

    Attributes:
        x: (1, …), what is fed.
        class_index: the class that the data name; None: they name none.
        region: where the object lies, (*space) bool in pixels of the input; None as ``MapSubject.region``.
        boxes: (K, 4) in pixels of the input; None as ``MapSubject.boxes``.
        regions: parts of the image by name, (*space) bool each; those without a pixel in the input are left out.
    """

    x: npt.NDArray[np.generic]
    class_index: int | None
    region: npt.NDArray[np.bool_] | None
    boxes: npt.NDArray[np.float64] | None
    regions: Mapping[str, npt.NDArray[np.bool_]]


def prepare(
    sample: Sample, classes: Mapping[str, int], explainer: Explainer, choice: Choice | None, max_pixels: int
) -> ReadySample:
    """Return a sample as the model takes it.

    Args:
        sample: the sample.
        classes: the classes of folders, by name; empty where no folder has the name of a class.
        explainer: the model.
        choice: how photos become tensors; None where all samples are arrays.
        max_pixels: the largest photo that is decoded.

    Raises:
        InputError: the photo or its mask cannot be read, or lies in no folder of a class where others do.
        TargetError: the model has no class of this label.
    """
    known = class_of(sample, classes, explainer)
    if is_array(sample.path) or choice is None:
        return _of_array(sample, known, explainer)
    x, frame, _ = prepare_photo(sample.path, choice, explainer.image_input, explainer.preprocessing, max_pixels)
    geometry = frame.geometry
    assert geometry is not None
    regions = _named(sample, lambda place: geometry.to_model(region_of(place, geometry.photo)) >= HALF)
    if not sample.has_region:
        return ReadySample(x, known, None, None, regions)
    in_photo = region_of(sample, geometry.photo)
    region = geometry.to_model(in_photo) >= HALF
    boxes = boxes_in_input(boxes_of(sample, in_photo), geometry)
    return ReadySample(x, known, region if region.any() else None, boxes if len(boxes) else None, regions)


def _named(
    sample: Sample, in_input: Callable[[NamedRegion], npt.NDArray[np.bool_]]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the named regions of a sample as they lie in the input, those alone that the model sees."""
    regions = {name: in_input(place) for name, place in sample.regions.items()}
    return {name: region for name, region in regions.items() if region.any()}


def _of_array(sample: Sample, known: int | None, explainer: Explainer) -> ReadySample:
    """Return an array in the form of the model's input; its region is in the same pixels."""
    spec = explainer.image_input
    x = load_tensor(sample.path)
    x = x[None] if x.ndim == len(spec.shape) - 1 else x
    fed = check_feeds({spec.name: x}, {spec.name: spec})[spec.name]
    if len(fed) != 1:
        raise InputError(f"'{sample.path}' holds {len(fed)} images", hint="an array with one image for each sample")
    extents = tuple(fed.shape[k] for k in input_space(spec))
    regions = _named(sample, lambda place: region_of(place, extents))
    if not sample.has_region:
        return ReadySample(fed, known, None, None, regions)
    region = region_of(sample, extents)
    boxes = boxes_of(sample, region) if region.ndim == 2 else np.empty((0, 4))
    return ReadySample(fed, known, region if region.any() else None, boxes if len(boxes) else None, regions)


def boxes_in_input(boxes: npt.NDArray[np.float64], geometry: Geometry) -> npt.NDArray[np.float64]:
    """Return boxes of the photo in pixels of the input, cut at its edges; those that lie beside it are left out."""
    scale, offset, size = (np.array([v[1], v[0]] * 2) for v in (geometry.scale, geometry.offset, geometry.model))
    cut = np.clip(boxes * scale + offset, 0, size)
    return np.asarray(cut[(cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])])


def class_of(sample: Sample, classes: Mapping[str, int], explainer: Explainer) -> int | None:
    """Return the class that the data name for a sample, None where they name none. Raises as ``prepare``."""
    if sample.label is not None:
        return class_index(sample.label, explainer.score.count, explainer.labels)
    if not classes:
        return None
    named = [classes[folder] for folder in sample.folders if folder in classes]
    if not named:
        raise no_label(sample.path, FOLDER)
    return named[0]


def classes_of_folders(samples: Sequence[Sample], explainer: Explainer) -> dict[str, int]:
    """Return the classes that folders of the samples are named after, by the name of the folder."""
    classes = {}
    for folder in dict.fromkeys(folder for sample in samples for folder in sample.folders):
        try:
            classes[folder] = class_index(folder, explainer.score.count, explainer.labels)
        except TargetError:
            continue
    return classes


def classes_by_photo(
    samples: Sequence[Sample], classes: Mapping[str, int], explainer: Explainer
) -> dict[Path, tuple[int, ...]]:
    """Return the classes of all objects of each photo; samples whose class is not known are left out."""
    by_photo: dict[Path, list[int]] = defaultdict(list)
    for sample in samples:
        try:
            index = class_of(sample, classes, explainer)
        except (InputError, TargetError):
            continue
        if index is not None:
            by_photo[sample.path].append(index)
    return {path: tuple(dict.fromkeys(several)) for path, several in by_photo.items()}
