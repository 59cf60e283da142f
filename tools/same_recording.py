"""A recording of results on disk: written, read, and compared with another bit by bit.

MODEL/CASE.npz has the arrays of a case, MODEL/CASE.json the rest. A case is a dictionary of fields: arrays, and under
names that begin with ``FACT`` or ``TEXT`` what JSON holds. Texts may differ between two recordings, facts may not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Fields = dict[str, Any]
FACT, TEXT = "fact.", "text."
EXCERPT, BEFORE = 160, 60
"""How many characters of two values that differ are shown, and how many of them before the first difference."""


def save(path: Path, fields: Fields) -> None:
    """Write the arrays of a case to ``path``.npz, and the rest to ``path``.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(f"{path}.npz", **{k: v for k, v in fields.items() if not k.startswith((FACT, TEXT))})
    plain = {name: value for name, value in fields.items() if name.startswith((FACT, TEXT))}
    Path(f"{path}.json").write_text(json.dumps(plain, indent=1, default=str, allow_nan=False), "utf-8")


def load(path: Path) -> Fields:
    """Return the case that ``save`` wrote; no fields where there is no such case."""
    facts = Path(f"{path}.json")
    if not facts.exists():
        return {}
    with np.load(f"{path}.npz") as arrays:
        return {**json.loads(facts.read_text("utf-8")), **arrays}


@dataclass(frozen=True)
class Difference:
    """A field that is not the same in two recordings.

    Attributes:
        case, field: where it stands.
        text: how the two values differ.
        distance: by how much, where both are numbers of one shape and dtype; else infinity.
    """

    case: str
    field: str
    text: str
    distance: float

    def __str__(self) -> str:
        return f"{self.case} {self.field}: {self.text}"

    def is_drawn(self, limit: float) -> bool:
        """Tell whether this is a heatmap of a photo that differs by less than the limit."""
        of_photo = "/photo/" in self.case or self.case.startswith("commands/")
        return self.field.startswith("heatmap") and of_photo and self.distance < limit


def compare(a: Path, b: Path, drawn: float) -> bool:
    """Print how two recordings differ, and tell whether their results are the same.

    Args:
        a, b: the folders of the recordings.
        drawn: heatmaps of photos that differ by less are counted apart, and are no difference of results.

    Returns:
        True if all facts and arrays are identical but for such heatmaps; False, too, where there are none at all.
    """
    names = case_names(a) | case_names(b)
    differences, identical = list[Difference](), 0
    for name in sorted(names):
        one, two = load(a / name), load(b / name)
        unlike = list(case_differences(name, one, two))
        differences += unlike
        identical += len(one.keys() | two.keys()) - len(unlike)
    texts = [d for d in differences if d.field.startswith(TEXT)]
    maps = [d for d in differences if d.is_drawn(drawn)]
    results = [d for d in differences if not d.field.startswith(TEXT) and not d.is_drawn(drawn)]
    largest = max((d.distance for d in maps), default=0.0)
    print(*texts, f"{len(texts)} texts differ", *maps, sep="\n")
    print(f"{len(maps)} heatmaps of photos differ by less than {drawn}, at most {largest:.3g}", *results, sep="\n")
    print(f"{len(names)} cases, {identical} fields identical, {len(results)} differ")
    return identical > 0 and not results


def case_names(folder: Path) -> set[str]:
    """Return the names of the cases of a recording, MODEL/CASE."""
    return {path.relative_to(folder).as_posix().removesuffix(".json") for path in folder.rglob("*.json")}


def case_differences(case: str, one: Fields, two: Fields) -> Iterator[Difference]:
    """Yield the fields of a case that differ, among them those that only one of the recordings has."""
    for field in sorted(one.keys() | two.keys()):
        a, b = one.get(field), two.get(field)
        if not is_same(a, b):
            yield Difference(case, field, *describe(a, b))


def is_same(a: object, b: object) -> bool:
    """Tell whether two fields are the same: arrays in dtype, shape and every bit, other values as they are written."""
    if is_array(a) and is_array(b):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return repr(a) == repr(b)


def is_array(value: object) -> TypeGuard[Array]:
    """Tell whether a field is an array."""
    return isinstance(value, np.ndarray)


def describe(a: object, b: object) -> tuple[str, float]:
    """Return how two fields differ, and by how much: infinity unless both are numbers of one shape and dtype."""
    if is_array(a) and is_array(b) and a.shape == b.shape and a.dtype == b.dtype and a.dtype.kind in "fiub":
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            distance = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0))
        return f"differs by at most {distance:.3g}", distance
    before, after = written(a), written(b)
    return f"{excerpt(before, after)} became {excerpt(after, before)}", np.inf


def written(value: object) -> str:
    """Return a field on one line, arrays with dtype and shape."""
    text = f"{value.dtype} {value.shape} {value!r}" if is_array(value) else repr(value)
    return text.replace("\n", "")


def excerpt(text: str, other: str) -> str:
    """Return the part of a text around the first character in which it differs from another."""
    first = next((k for k, (p, q) in enumerate(zip(text, other, strict=False)) if p != q), 0)
    start = max(0, first - BEFORE)
    return text[start : start + EXCERPT]
