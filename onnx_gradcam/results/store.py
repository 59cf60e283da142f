"""A folder of results while a run writes it: nothing there is lost, and whatever is written is named."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from onnx_gradcam.errors import OnnxGradcamError, OutputError
from onnx_gradcam.results import files, journal
from onnx_gradcam.results.journal import JOURNAL, MANIFEST, PART, State
from onnx_gradcam.results.picture.overlay import Picture, encode_png
from onnx_gradcam.results.picture.style import PLAIN, Style
from onnx_gradcam.results.scales import IMAGE, SHARED, join_peaks, read_scale

SCHEMA_VERSION = 1
Mode = Literal["new", "overwrite", "resume"]
"""What a run does with results that are there: it refuses them, replaces them, or adds to them."""


class Store:
    """A folder of results; as a context manager it writes the manifest when the run ends, however it ends.

    Nothing is touched before the first result is written. Then results that are replaced are removed: exactly the files
    that the run before names and that nobody has changed since. Where the run is interrupted, what is complete stays,
    what is not is removed, and the manifest says ``"complete": false``. Where the process dies, the journal says all
    that the next run must know.

    Args:
        folder: where the results go; it is made where it does not exist.
        mode: what is done with results that are there.
        run: what the manifest says beside account and results: the request and the files that it names.

    Attributes:
        folder: where the results go.
        run: as given.
        errors: the images that failed, each with its error; the caller adds to them.
        left_out: what was met in folders and not taken; the caller fills it.
        kept: for "resume" the entries of the images that are complete, with all their files.

    Raises:
        OutputError: the folder cannot be written, or holds results or a manifest that stay.
    """

    def __init__(self, folder: Path, mode: Mode = "new", run: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.errors: list[tuple[str, OnnxGradcamError]] = []
        self.left_out: Mapping[str, int] = {}
        self.run = dict(run or {"request": {}, "files_read": {}})
        self._before = journal.read_state(folder)
        _refuse_existing(folder, mode, self._before)
        before = self._before if mode == "resume" else None
        self.kept = tuple(result for result in before.results if self._is_whole(result)) if before else ()
        self._account: Mapping[str, Any] = before.account if before and self.kept else {}
        self._started = (before.started if before and self.kept else "") or _now()
        self._journal: FileIO | None = None
        self._has_begun = False
        self._pages = 0

    def keep(self, stays: Callable[[Mapping[str, Any]], bool]) -> None:
        """Keep of the earlier entries only those that ``stays`` says; call it before the first result is written."""
        self.kept = tuple(entry for entry in self.kept if stays(entry))

    @property
    def manifest(self) -> Path:
        """Return the path of the manifest."""
        return self.folder / MANIFEST

    @property
    def before(self) -> State | None:
        """Return what an earlier run left in the folder, None where there was none."""
        return self._before

    def __enter__(self) -> Store:
        self._new_folders = _make(self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._give_up()
            return
        try:
            self._begin()
            self._finish(complete=True)
        except BaseException:  # an interrupt at the very end
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Leave a manifest of what is complete, or nothing where nothing has been written."""
        if self._has_begun and (self.folder / JOURNAL).exists():
            with suppress(OutputError):  # the error in flight says why; the journal stays and says the rest
                self._finish(complete=False)
            return
        with suppress(OSError):  # somebody else has written there
            (self.folder / PART).unlink(missing_ok=True)
            for folder in self._new_folders:
                folder.rmdir()

    # --- writing --------------------------------------------------------------------------------------------

    def write(self, result: files.Result, subject: files.Subject, style: Style = PLAIN) -> dict[str, Any]:
        """Write the files of an image, and return its entry for the manifest.

        Raises:
            OutputError: a file of that name is there and is not ours, or a file cannot be written.
        """
        payload, entry = files.encode(result, subject, style)
        self._refuse_taken(payload)
        self._begin()
        if not self._account:
            self._account = result.account()
            self._note("account", self._account)
        self._note("files", entry["files"])
        for name, data in payload.items():
            self._put(name, data)
        self._note("result", entry)
        return entry

    def write_sheet(self, page: Picture) -> Path:
        """Write a page of a contact sheet, and return its path. Raises ``OutputError`` as ``write`` does."""
        self._pages += 1
        name = "sheet.png" if self._pages == 1 else f"sheet-{self._pages}.png"
        data = encode_png(page)
        named = {name: hashlib.sha256(data).hexdigest()}
        self._refuse_taken({name: data})
        self._begin()
        self._note("files", named)
        self._put(name, data)
        self._note("sheets", named)
        return self.folder / name

    def _begin(self) -> None:
        """Open the journal: from here on it names every file of this run, and those of the run before."""
        if self._has_begun:
            return
        self._has_begun = True
        self._account = self._account if self.kept else {}
        stale = self._stale()
        lines = [("started", self._started), ("run", self.run), ("files", stale)]
        lines += [("account", self._account)] if self._account else []
        content = b"".join(journal.line(*line) for line in [*lines, *(("result", result) for result in self.kept)])
        path = self.folder / JOURNAL
        if self._before is None and path.exists():
            raise _unfinished(self.folder)
        self._put(JOURNAL, content)
        try:
            self.manifest.unlink(missing_ok=True)
            self._journal = FileIO(path, "a")
        except OSError as error:
            raise _unwritable(path, error) from None
        journal.remove(self.folder, stale)

    def _stale(self) -> dict[str, str]:
        """Return the files of the run before that do not stay."""
        staying = {name for result in self.kept for name in result["files"]}
        before = self._before.files if self._before else {}
        return {name: digest for name, digest in before.items() if name not in staying}

    def _refuse_taken(self, names: Mapping[str, bytes]) -> None:
        ours = {} if self._has_begun else self._stale()
        for name in names:
            path = self.folder / name
            if path.exists() and not (name in ours and journal.is_ours(self.folder, name, ours[name])):
                raise OutputError(
                    f"{str(path)!r} already exists, and no run has written it as it is",
                    hint="move it away, or another folder with -o DIR",
                    path=path,
                    is_taken=True,
                )

    def _note(self, kind: str, content: object) -> None:
        assert self._journal is not None
        text = journal.line(kind, content)
        try:
            if self._journal.write(text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _unwritable(self.folder / JOURNAL, error) from None

    def _put(self, name: str, data: bytes) -> None:
        """Write a file under another name, then rename it: so it is there whole or not at all."""
        path, part = self.folder / name, self.folder / PART
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            part.replace(path)
        except OSError as error:
            with suppress(OSError):  # what is left of it goes in the end, or with the next run
                part.unlink(missing_ok=True)
            raise _unwritable(path, error) from None

    def _is_whole(self, result: Mapping[str, Any]) -> bool:
        """Tell whether all files of an image are there as they were written."""
        named = result.get("files", {})
        return bool(named) and all(journal.is_ours(self.folder, name, digest) for name, digest in named.items())

    # --- the end --------------------------------------------------------------------------------------------

    def _finish(self, complete: bool) -> None:
        """Turn the journal into the manifest, after what no complete image names is removed."""
        if self._journal is not None:
            self._journal.close()
        state = journal.read_state(self.folder)
        assert state is not None
        journal.discard(self.folder / PART)
        journal.remove(self.folder, state.unnamed)
        self._put(MANIFEST, journal.encode_json(self._content(state, complete), indent=2) + b"\n")
        journal.discard(self.folder / JOURNAL)

    def _content(self, state: State, complete: bool) -> dict[str, Any]:
        account = dict(state.account)
        return {
            "schema_version": SCHEMA_VERSION,
            "complete": complete,
            "time": {"started": state.started, "finished": _now()},
            "versions": account.pop("versions", {}),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "model": account.pop("model", None),
            **state.run,
            **account,
            "results": list(state.results),
            "sheets": dict(state.sheets),
            "errors": [_error(name, error) for name, error in self.errors],
            "left_out": dict(self.left_out),
        }


def save(
    results: Sequence[files.Result],
    folder: Path,
    *,
    scale: str | float = IMAGE,
    overwrite: bool = False,
    style: Style = PLAIN,
) -> Path:
    """Write results that are in memory into a folder, the manifest last, and return the path of the manifest.

    Args:
        results: what is written, each under the name "explanation", with its number where there are several.
        folder: where to write; it is made where it does not exist.
        scale: what each map is divided by: "image", "shared", or a number in the score's units.
        overwrite: whether existing results are replaced.
        style: how pictures are drawn.

    Raises:
        OutputError: the folder cannot be written, or holds results already.
        MethodError: the scale is unknown, or the maps have no scale in the score's units.
    """
    scale = read_scale(scale)
    scales = join_peaks(result.peaks() for result in results) if scale == SHARED else scale
    scaled = results if isinstance(scales, str) else [result.at_scale(scales) for result in results]
    with Store(folder, "overwrite" if overwrite else "new") as store:
        for number, result in enumerate(scaled):
            stem = "explanation" if len(results) == 1 else f"explanation-{number}"
            store.write(result, files.Subject(stem), style)
    return store.manifest


def _make(folder: Path) -> list[Path]:
    """Make a folder and see whether it can be written; return the folders that are new, the innermost first."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to {str(folder)!r}: {error.strerror}", hint="another folder with -o DIR", folder=folder
        ) from None
    return new


def _refuse_existing(folder: Path, mode: Mode, before: State | None) -> None:
    if before is None or mode != "new":
        return
    if not before.complete:
        raise _unfinished(folder)
    raise OutputError(
        f"{str(folder)!r} already holds results",
        hint="--resume adds to them, --overwrite replaces them, -o DIR writes to another folder",
        folder=folder,
    )


def _unfinished(folder: Path) -> OutputError:
    return OutputError(
        f"{str(folder)!r} holds results of a run that was stopped or has not ended",
        hint="--resume continues it, --overwrite begins anew, -o DIR writes to another folder",
        folder=folder,
    )


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {str(path)!r}: {error.strerror}", hint="another folder with -o DIR", path=path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _error(image: str, error: OnnxGradcamError) -> dict[str, str]:
    return {
        "image": image,
        "error": type(error).__name__,
        "what": error.what,
        "where": error.where,
        "try": error.hint,
    }
