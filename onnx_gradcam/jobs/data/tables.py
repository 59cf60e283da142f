"""A table of photos: ``path,label,box,mask`` and any other columns."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from onnx_gradcam.errors import InputError
from onnx_gradcam.jobs.data.samples import Corners, Sample

TABLE_EXAMPLE = "a first line 'path,label,box,mask', then 'cat.jpg,tabby,10 20 110 90,'"


def read_samples(file: Path, cluster: str | None = None) -> tuple[Sample, ...]:
    """Return the samples of a table with a header; lines of the same photo and label are one sample with several boxes.

    Args:
        file: the table. Its column ``path`` is needed, from the folder of the table; ``label``, ``box`` (x1 y1 x2 y2 in
            pixels of the photo) and ``mask`` (an image file) may be there or be empty.
        cluster: the column by which photos belong together.

    Raises:
        InputError: the file cannot be read, a column is missing, or a box is none.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            rows = [(reader.line_num, row) for row in reader]
            columns = tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the table {str(file)!r} cannot be read: {error}", hint=TABLE_EXAMPLE, path=file) from None
    for column in filter(None, ("path", cluster)):
        if column not in columns:
            known = ", ".join(map(repr, columns))
            raise InputError(
                f"the table {str(file)!r} has no column {column!r}", where=known, hint=TABLE_EXAMPLE, path=file
            )
    samples: dict[tuple[Path, str | None], Sample] = {}
    for number, row in rows:
        sample = _sample(row, file, number, cluster)
        before = samples.get((sample.path, sample.label))
        boxes = sample.boxes if before is None else before.boxes + sample.boxes
        samples[sample.path, sample.label] = replace(before or sample, boxes=boxes)
    if not samples:
        raise InputError(f"the table {str(file)!r} names no photo", hint=TABLE_EXAMPLE, path=file)
    return tuple(samples.values())


def _sample(row: Mapping[str, str | None], file: Path, number: int, cluster: str | None) -> Sample:
    cells = {name: (value or "").strip() for name, value in row.items() if isinstance(value, str | None)}
    where = f"line {number} of {str(file)!r}"
    if not cells["path"]:
        raise InputError("a line without a path", where=where, hint=TABLE_EXAMPLE)
    mask = cells.get("mask", "")
    return Sample(
        path=file.parent / cells["path"],
        label=cells.get("label") or None,
        boxes=(_box(cells["box"], where),) if cells.get("box") else (),
        mask=file.parent / mask if mask else None,
        cluster=None if cluster is None else cells[cluster],
    )


def _box(text: str, where: str) -> Corners:
    try:
        x1, y1, x2, y2 = map(float, text.replace(",", " ").replace(";", " ").split())
    except ValueError:
        x1 = y1 = x2 = y2 = math.nan
    if not (x1 < x2 and y1 < y2):
        raise InputError(f"{text!r} is no box", where=where, hint="x1 y1 x2 y2 in pixels of the photo: 10 20 110 90")
    return x1, y1, x2, y2
