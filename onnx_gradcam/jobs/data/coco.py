"""COCO annotations: the objects of a photo by class, with boxes and outlines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnx_gradcam.errors import InputError
from onnx_gradcam.jobs.data.samples import NamedRegion, Sample

REGION = "region"
"""The supercategory of what is no class, but a named region."""
HINT = 'COCO annotations: {"images": [...], "annotations": [...], "categories": [...]}'


def read_coco(file: Path, cluster: str | None = None, group: str | None = None) -> tuple[Sample, ...]:
    """Return one sample for each photo and class of COCO annotations, with all its objects of this class.

    A category with the supercategory "region" is no class: its objects are a named region of the photo.

    Photos lie beside the file, or in a folder ``images`` beside it. Run-length encoded outlines are not read: their
    objects have boxes.

    Args:
        file: the annotations.
        cluster: the field of an image by which photos belong together.
        group: the field of an image by which figures are told apart.

    Raises:
        InputError: the file cannot be read, or holds no such annotations.
    """
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"the annotations {str(file)!r} cannot be read: {error}", hint=HINT, path=file) from None
    try:
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        of_regions = {c["id"] for c in content["categories"] if c.get("supercategory") == REGION}
        images = {image["id"]: image for image in content["images"]}
        objects = [(images[one["image_id"]], names[one["category_id"]], one) for one in content["annotations"]]
        columns = {
            number: tuple(None if column is None else str(image[column]) for column in (cluster, group))
            for number, image in images.items()
        }
        regions = _regions([each for each in objects if each[2]["category_id"] in of_regions])
        read = [
            _sample(file.parent, image, label, one, columns[image["id"]], regions.get(image["id"], {}))
            for image, label, one in objects
            if one["category_id"] not in of_regions
        ]
        with_class = {image["id"] for image, _, one in objects if one["category_id"] not in of_regions}
        read += [
            Sample(_photo(file.parent, images[number]), cluster=c, group=g, regions=of_image)
            for number, of_image in regions.items()
            if number not in with_class
            for c, g in [columns[number]]
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        cause = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{str(file)!r} holds no annotations of objects: {cause}", hint=HINT, path=file) from None
    samples: dict[tuple[Path, str | None], Sample] = {}
    for sample in read:
        before = samples.get((sample.path, sample.label))
        joined = sample if before is None else _joined(before, sample)
        samples[sample.path, sample.label] = joined
    if not samples:
        raise InputError(f"{str(file)!r} holds no annotation", hint=HINT, path=file)
    return tuple(samples.values())


def _sample(
    folder: Path,
    image: Mapping[str, Any],
    label: str,
    one: Mapping[str, Any],
    columns: tuple[str | None, ...],
    regions: Mapping[str, NamedRegion],
) -> Sample:
    place, (cluster, group) = _place(one), columns
    path = _photo(folder, image)
    return Sample(
        path, label, boxes=place.boxes, polygons=place.polygons, cluster=cluster, group=group, regions=regions
    )


def _photo(folder: Path, image: Mapping[str, Any]) -> Path:
    path = folder / str(image["file_name"])
    return path if path.exists() else folder / "images" / str(image["file_name"])


def _place(one: Mapping[str, Any]) -> NamedRegion:
    """Return where an annotated object lies."""
    x, y, width, height = map(float, one["bbox"])
    outlines = one.get("segmentation")
    polygons = tuple(tuple(map(float, line)) for line in outlines) if isinstance(outlines, list) else ()
    return NamedRegion(((x, y, x + width, y + height),), polygons)


def _regions(objects: Sequence[tuple[Mapping[str, Any], str, Mapping[str, Any]]]) -> dict[Any, dict[str, NamedRegion]]:
    """Return the named regions of each image, by its number."""
    by_image: dict[Any, dict[str, NamedRegion]] = {}
    for image, name, one in objects:
        of_image = by_image.setdefault(image["id"], {})
        of_image[name] = of_image.get(name, NamedRegion()).joined(_place(one))
    return by_image


def _joined(a: Sample, b: Sample) -> Sample:
    """Return the objects of two samples as one; where one has no outline, boxes say where they lie."""
    polygons = a.polygons + b.polygons if a.polygons and b.polygons else ()
    return replace(a, boxes=a.boxes + b.boxes, polygons=polygons)
