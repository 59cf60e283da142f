"""A table of photos: ``path,label,box,mask`` and any other columns."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from onnx_gradcam.errors import InputError
from onnx_gradcam.jobs.data.samples import Corners, NamedRegion, Sample

REGION_COLUMN = "region:"
"""How the column of a named region begins: "region:badge"."""
NUMBERS = re.compile(r"[-+\d.eE,;\s]+")
TABLE_EXAMPLE = "a first line 'path,label,box,mask', then 'cat.jpg,tabby,10 20 110 90,'"


def read_samples(file: Path, cluster: str | None = None, group: str | None = None) -> tuple[Sample, ...]:
    """Return the samples of a table with a header; lines of the same photo and label are one sample with several boxes.

    Args:
        file: the table. Its column ``path`` is needed, from the folder of the table; ``label``, ``box`` (x1 y1 x2 y2 in
            pixels of the photo), ``mask`` (an image file) and ``region:NAME`` (a box or an image file) may be there or
            be empty.
        cluster: the column by which photos belong together.
        group: the column by which figures are told apart.

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
    for column in filter(None, ("path", cluster, group)):
        if column not in columns:
            known = ", ".join(map(repr, columns))
            raise InputError(
                f"the table {str(file)!r} has no column {column!r}", where=known, hint=TABLE_EXAMPLE, path=file
            )
    samples: dict[tuple[Path, str | None], Sample] = {}
    for number, row in rows:
        sample = _sample(row, file, number, cluster, group)
        before = samples.get((sample.path, sample.label))
        samples[sample.path, sample.label] = sample if before is None else _joined(before, sample)
    if not samples:
        raise InputError(f"the table {str(file)!r} names no photo", hint=TABLE_EXAMPLE, path=file)
    return tuple(samples.values())


def _joined(a: Sample, b: Sample) -> Sample:
    names = dict.fromkeys([*a.regions, *b.regions])
    regions = {name: a.regions.get(name, NamedRegion()).joined(b.regions.get(name)) for name in names}
    return replace(a, boxes=a.boxes + b.boxes, regions=regions)


def _sample(row: Mapping[str, str | None], file: Path, number: int, cluster: str | None, group: str | None) -> Sample:
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
        group=None if group is None else cells[group] or None,
        regions={
            column.removeprefix(REGION_COLUMN).strip(): _region(cell, file, where)
            for column, cell in cells.items()
            if column.startswith(REGION_COLUMN) and cell
        },
    )


def _region(cell: str, file: Path, where: str) -> NamedRegion:
    """Return the region that a cell names: by the path of a mask, or by a box."""
    is_mask = Path(cell).suffix and not NUMBERS.fullmatch(cell)
    return NamedRegion(mask=file.parent / cell) if is_mask else NamedRegion(boxes=(_box(cell, where),))


def _box(text: str, where: str) -> Corners:
    try:
        x1, y1, x2, y2 = map(float, text.replace(",", " ").replace(";", " ").split())
    except ValueError:
        x1 = y1 = x2 = y2 = math.nan
    if not (x1 < x2 and y1 < y2):
        raise InputError(f"{text!r} is no box", where=where, hint="x1 y1 x2 y2 in pixels of the photo: 10 20 110 90")
    return x1, y1, x2, y2
