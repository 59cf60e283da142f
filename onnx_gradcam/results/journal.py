"""What lies in a folder of results: read from its manifest, or from the journal of a run that was stopped.

While a run writes, its journal is the truth: a hidden file with one JSON object a line, to which a line is added before
files are written and another one after. It is never rewritten, and at whatever moment the process dies, it names all
files that the run may have left. When the run ends, the manifest takes its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from onnx_gradcam.errors import OutputError

MANIFEST = "manifest.json"
JOURNAL = ".onnx-gradcam.journal"
PART = ".onnx-gradcam.part"
"""The name of a file that is not complete yet: it is renamed when it is."""

DOCUMENTS = COMPARISON, EVALUATION, ATTACK, FAILURES = (
    "comparison.json",
    "evaluation.json",
    "attack.json",
    "failures.json",
)
"""The names of documents that stand with their pictures in a folder of their own."""

RUN_KEYS = ("request", "files_read")
OWN_KEYS = (
    "schema_version",
    "complete",
    "time",
    "python",
    "platform",
    "results",
    "sheets",
    "errors",
    "left_out",
    *RUN_KEYS,
)


@dataclass(frozen=True)
class State:
    """What a run left in a folder.

    Attributes:
        run: what was asked for: the request, and the hashes of the files that it names.
        account: what the manifest says of model, score, layers and method; empty before the first result.
        results: the entries of the images that are complete.
        files: every file that the run may have left, by its name in the folder → its sha256.
        sheets: the pages of the contact sheet that are complete, by name → sha256.
        started: when the run began, "" where that is not known.
        complete: whether the run came to its end.
    """

    run: Mapping[str, Any]
    account: Mapping[str, Any]
    results: tuple[Mapping[str, Any], ...]
    files: Mapping[str, str]
    started: str = ""
    complete: bool = False
    sheets: Mapping[str, str] = field(default_factory=dict)

    @property
    def unnamed(self) -> dict[str, str]:
        """Return the files that belong to no complete image: of one that was interrupted, or of an earlier run."""
        named = {name for result in self.results for name in _files(result)} | set(self.sheets)
        return {name: digest for name, digest in self.files.items() if name not in named}


def read_state(folder: Path) -> State | None:
    """Return what a run left in a folder, None where no run has written.

    Raises:
        OutputError: its manifest.json was not written by this tool, or cannot be read.
    """
    path = folder / MANIFEST
    try:
        if (folder / JOURNAL).exists():
            return _fold(_lines((folder / JOURNAL).read_bytes()))
        if not path.exists():
            return None
    except OSError as error:
        raise OutputError(
            f"cannot read {str(folder)!r}: {error.strerror}", hint="another folder", path=folder
        ) from None
    content = _manifest(path)
    if content is None:
        raise OutputError(
            f"{str(path)!r} is no manifest of this tool, and would be in the way",
            hint="another folder with -o DIR",
            path=path,
        )
    results, sheets = tuple(content["results"]), content.get("sheets", {})
    return State(
        run={key: content[key] for key in RUN_KEYS if key in content},
        account={key: value for key, value in content.items() if key not in OWN_KEYS},
        results=results,
        files={name: digest for result in results for name, digest in _files(result).items()} | sheets,
        started=content.get("time", {}).get("started", ""),
        complete=content.get("complete", True),
        sheets=sheets,
    )


def holds_results(folder: Path) -> bool:
    """Tell whether a run has written results into a folder, or a document with its pictures."""
    if (folder / JOURNAL).exists() or _manifest(folder / MANIFEST) is not None:
        return True
    return any(_is_document(folder / name) for name in DOCUMENTS)


def _is_document(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "schema_version" in content and isinstance(content.get("files"), dict)


def _manifest(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    is_ours = isinstance(content, dict) and "schema_version" in content and isinstance(content.get("results"), list)
    return content if is_ours and all(isinstance(result, dict) for result in content["results"]) else None


def _lines(data: bytes) -> Iterator[Mapping[str, Any]]:
    """Yield the lines up to the first that is not complete: there the process died."""
    for text in data.split(b"\n")[:-1]:
        try:
            content = json.loads(text)
        except ValueError:
            return
        if not isinstance(content, dict):
            return
        yield content


def line(kind: str, content: object) -> bytes:
    """Return one line of a journal.

    Args:
        kind: "started", "run", "account"; "files": names of files with their hashes, before they are written, or of
            earlier ones that are taken away; "result": the entry of an image when all its files are there; "sheets": a
            page of the contact sheet when it is there.
        content: what JSON can hold.
    """
    return encode_json({kind: content}) + b"\n"


def encode_json(content: object, indent: int | None = None) -> bytes:
    """Return JSON as UTF-8; names of files that are no text keep their bytes as escapes."""
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def _fold(lines: Iterable[Mapping[str, Any]]) -> State:
    last: dict[str, Any] = {}
    files: dict[str, str] = {}
    sheets: dict[str, str] = {}
    results: list[Mapping[str, Any]] = []
    for content in lines:
        for kind, value in content.items():
            last[kind] = value
            files |= value if kind == "files" else _files(value) if kind == "result" else {}
            results += [value] if kind == "result" else []
            sheets |= value if kind == "sheets" else {}
    return State(
        run=last.get("run", {}),
        account=last.get("account", {}),
        results=tuple(results),
        files=files,
        started=last.get("started", ""),
        sheets=sheets,
    )


def _files(result: Mapping[str, Any]) -> Mapping[str, str]:
    files: Mapping[str, str] = result.get("files", {})
    return files


def is_ours(folder: Path, name: str, digest: str) -> bool:
    """Tell whether a file in a folder still is what this tool wrote: a file with that hash, inside of the folder."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name:
        return False
    path = folder / relative
    return path.is_file() and sha256(path) == digest


def remove(folder: Path, files: Mapping[str, str]) -> None:
    """Remove those of the files that this tool wrote and nobody has changed, and folders that are empty then.

    Raises:
        OutputError: a file cannot be removed.
    """
    for name, digest in files.items():
        if not is_ours(folder, name, digest):
            continue
        path = folder / name
        discard(path)
        for parent in path.relative_to(folder).parents[:-1]:
            with suppress(OSError):  # it holds other files
                (folder / parent).rmdir()


def discard(path: Path) -> None:
    """Remove a file, if it is there. Raises ``OutputError`` where that fails."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {str(path)!r}: {error.strerror}", hint="another folder", path=path) from None


def sha256(path: Path) -> str:
    """Return the sha256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
