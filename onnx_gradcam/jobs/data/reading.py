"""What the word DATA names, as samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from onnx_gradcam.errors import InputError
from onnx_gradcam.jobs.data.coco import read_coco
from onnx_gradcam.jobs.data.samples import Sample
from onnx_gradcam.jobs.data.tables import read_samples
from onnx_gradcam.photos.listing import find_images
from onnx_gradcam.results.journal import holds_results

DATA_READERS = {".csv": read_samples, ".json": read_coco}


def read_data(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    cluster: str | None = None,
    group: str | None = None,
) -> tuple[Sample, ...]:
    """Return the samples that ``data`` names.

    Args:
        data: a table (``.csv``), COCO annotations (``.json``), or files, folders and globs of photos, whose folders may
            be named after classes.
        cluster: the column of a table, or the field of COCO's images, by which photos belong together.
        group: the column or the field by which figures are told apart.

    Raises:
        InputError: the data cannot be read, or name no photo; or a column is named, and they are no table.
    """
    names = [data] if isinstance(data, str | os.PathLike) else list(data)
    tables = [name for name in names if Path(name).suffix.lower() in DATA_READERS]
    if tables and len(names) > 1:
        raise InputError(
            f"{len(names)} names, and {os.fspath(tables[0])!r} is a table",
            hint="one table or file of annotations, or photos, folders and globs",
        )
    suffix = Path(names[0]).suffix.lower() if len(names) == 1 else ""
    if suffix in DATA_READERS:
        return DATA_READERS[suffix](Path(names[0]), cluster, group)
    for what, column in (("cluster", cluster), ("group", group)):
        if column is not None:
            raise InputError(
                f"the {what} {column!r} is a column of a table, and the data are photos",
                hint=f"a table with the columns path,label,{column}, or COCO annotations",
            )
    return tuple(Sample(image.path, folders=image.folders) for image in find_images(names, holds_results).images)
